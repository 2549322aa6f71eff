"""What a file of labels holds, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from pipelines.feedback.names import is_unknown
from pipelines.feedback.types import Label, LabelSet, question_dict

_SHOWN = 12


def summary(found: LabelSet) -> dict[str, Any]:
    """Questions, and the numbers of tasks, labels and what was left out; a skip is no label."""
    counts = [len(task.answers) for task in found.tasks.values()]
    by_annotator: dict[str, list[Label]] = {}
    for label in found.labels:
        if is_unknown(label.annotator):
            continue
        by_annotator.setdefault(label.annotator, []).append(label)
    return {
        "questions": [question_dict(question) for question in found.questions],
        "tasks": len(found.tasks),
        "controls": sum(task.control is not None for task in found.tasks.values()),
        "answers": [min(counts, default=0), max(counts, default=0)],
        "labels": sum(not label.skipped for label in found.labels),
        "skipped": sum(label.skipped for label in found.labels),
        "simulated": sum(label.simulated for label in found.labels),
        "tasks_with_labels": len({label.task for label in found.labels if not label.skipped}),
        "of_unknown_annotators": sum(is_unknown(label.annotator) for label in found.labels),
        "annotators": {name: _of_one(labels) for name, labels in by_annotator.items()},
        "notes": found.notes,
    }


def _of_one(labels: Sequence[Label]) -> dict[str, Any]:
    seconds = [label.seconds for label in labels if label.seconds is not None]
    return {
        "labels": sum(not label.skipped for label in labels),
        "skipped": sum(label.skipped for label in labels),
        "flagged": sum(label.flagged for label in labels),
        "comments": sum(bool(label.comment) for label in labels),
        "median_seconds": median(seconds) if seconds else None,
    }


def lines(told: dict[str, Any]) -> list[str]:
    """The summary in words."""
    asked = [_question(question) for question in told["questions"]]
    low, high = told["answers"]
    answers = f"{low} answers each" if low == high else f"{low} to {high} answers each"
    controls = f", {told['controls']} of them controls" if told["controls"] else ""
    notes = counted("of note", told["notes"])
    nothing = "none: the label page asks for a ranking (two answers: a choice), or what --question says"
    text = [f"  questions   {'; '.join(asked) or nothing}", f"  tasks       {told['tasks']}{controls}, {answers}"]
    if not told["labels"] and not told["skipped"]:
        return [*text, "  labels      none yet: `rlhf label FILE` opens the page where people give them", *notes]
    text.append(
        f"  labels      {told['labels']} of {told['tasks_with_labels']} tasks, by {len(told['annotators'])} annotators"
        + (f"; {told['skipped']} skipped" if told["skipped"] else "")
        + (f"; {told['simulated']} of them simulated" if told["simulated"] else "")
    )
    if told["of_unknown_annotators"]:
        text.append(f"    of annotators that are not told: {told['of_unknown_annotators']}")
    everybody = list(told["annotators"].items())
    for name, one in everybody[:_SHOWN]:
        beside = [f"{one[key]} {key}" for key in ("skipped", "flagged") if one[key]]
        beside += [f"{one['comments']} with a comment"] if one["comments"] else []
        beside += [f"{one['median_seconds']:.1f} s at the median"] if one["median_seconds"] is not None else []
        text.append(f"    {name}: {', '.join([str(one['labels']), *beside])}")
    if len(everybody) > _SHOWN:
        text.append(f"    and {len(everybody) - _SHOWN} more")
    return text + notes


def counted(head: str, notes: dict[str, int]) -> list[str]:
    """Counts in words, each on a line below the head; nothing where there are none."""
    return [f"  {head}", *(f"    {count} x {words}" for words, count in notes.items())] if notes else []


def _question(question: dict[str, Any]) -> str:
    points = f" from 1 to {question['points']}" if question["kind"] == "scale" else ""
    return f"{question['name']} ({question['kind']}{points})"
