"""Label Studio: labelling configurations to paste, and tasks with their labels to import."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from pipelines.feedback.exchange.shown import HOME, drawn_order, home_of, prompt_text
from pipelines.feedback.questions import WORDS
from pipelines.feedback.types import Label, LabelSet, Question, Task, Value

MODELS = "names of models (kept from annotators; --tasks brings them home)"
CONTROLS = "known values of control tasks (kept from annotators; --tasks brings them home)"
SOURCES = "sources of tasks (--tasks brings them home)"
ORDERS = "other orders in which annotators saw the answers"
TIES = "rankings with ties (a Ranker has none; the labels are left out)"
LABELS = "labels (--with-labels writes them as annotations)"
FLAGS = "flags of labels"
SIMULATED = "marks that no human gave a label"
Lost = Counter[str]


def tasks(found: LabelSet, seed: int, *, with_labels: bool = False) -> tuple[str, dict[str, int]]:
    """Tasks as JSON to import, with the answers shuffled.

    Args:
        found: what is written.
        seed: of the shuffle.
        with_labels: write the labels too, as annotations. Label Studio refuses annotators that are no members of its
            organization, by the email that their name here must be.

    Returns:
        The text of the file, and what Label Studio has no place for or must not see, with how often.
    """
    lost: Lost = Counter()
    labels: dict[str, list[Label]] = {}
    for label in found.labels if with_labels else ():
        labels.setdefault(label.task, []).append(label)
    if not with_labels:
        lost[LABELS] += len(found.labels)
    rows = [_task(task, labels.get(task.id, []), found.questions, seed, lost) for task in found.tasks.values()]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n", {name: count for name, count in lost.items() if count}


def _task(task: Task, labels: Sequence[Label], questions: Sequence[Question], seed: int, lost: Lost) -> dict[str, Any]:
    order = drawn_order(task, seed)
    lost[MODELS] += any(answer.model for answer in task.answers)
    lost[CONTROLS] += task.control is not None
    lost[SOURCES] += task.source is not None
    data: dict[str, Any] = {"prompt": prompt_text(task.prompt)}
    texts = [task.answers[index].text for index in order]
    data["items"] = [
        {"id": f"answer_{place}", "title": f"Answer {place}", "body": text} for place, text in enumerate(texts, 1)
    ]
    data |= {f"text{place}": text for place, text in enumerate(texts, 1)}
    data[HOME] = home_of(task, order)
    annotations = []
    for label in labels:
        results = _results(label, questions, order, lost)
        if results is not None:
            lost[ORDERS] += bool(label.order) and label.order != order
            lost[FLAGS] += label.flagged
            lost[SIMULATED] += label.simulated
            annotations.append(_annotation(label, results))
    return {"data": data} | ({"annotations": annotations} if annotations else {})


def _annotation(label: Label, results: list[dict[str, Any]]) -> dict[str, Any]:
    times = {} if label.time is None else {"created_at": label.time, "updated_at": label.time}
    lead = {} if label.seconds is None else {"lead_time": label.seconds}
    told = {"completed_by": {"email": label.annotator}, "was_cancelled": label.skipped, "ground_truth": False}
    return told | lead | times | {"result": results}


def _results(
    label: Label, questions: Sequence[Question], order: Sequence[int], lost: Lost
) -> list[dict[str, Any]] | None:
    """The results of one label; None where it holds a tie that no control can say."""
    found: list[dict[str, Any]] = []
    for question in questions:
        if question.name not in label.values:
            continue
        value = label.values[question.name]
        if question.kind == "ranking" and len(set(value)) < len(order):
            lost[TIES] += 1
            return None
        found += _result(question, value, order)
    if label.comment:
        found.append(_one("comment", "prompt", "textarea", {"text": [label.comment]}))
    return [{"id": f"r{number}", **result} for number, result in enumerate(found, 1)]


def _result(question: Question, value: Value, order: Sequence[int]) -> Iterator[dict[str, Any]]:
    name = question.name
    if isinstance(value, str):
        yield _one(name, "prompt", "textarea", {"text": [value]})
        return
    by_place = [value[index] for index in order]
    if question.kind == "pairwise":
        if len(set(by_place)) == 1:
            yield _one(f"{name}_tie", "answer_1", "choices", {"choices": ["tie"]})
        else:
            yield _one(name, name, "pairwise", {"selected": "left" if by_place[0] == 1 else "right"})
    elif question.kind == "ranking":
        best_first = sorted(range(len(by_place)), key=lambda place: by_place[place])
        ids = [f"answer_{place + 1}" for place in best_first]
        yield _one(name, f"{name}_answers", "ranker", {"ranker": {name: ids}})
    else:
        for place, number in enumerate(by_place, 1):
            kind = "choices" if question.kind == "binary" else "rating"
            said: Any = [str(number)] if question.kind == "binary" else number
            yield _one(f"{name}_{place}", f"answer_{place}", kind, {kind: said})


def _one(name: str, target: str, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"from_name": name, "to_name": target, "type": kind, "value": dict(value)}


def config(questions: Sequence[Question], answers: int) -> str:
    """A labelling configuration to paste, in XML, for tasks that `tasks` wrote with so many answers each."""
    lines = ["<View>", '  <Header value="Prompt"/>', '  <Text name="prompt" value="$prompt"/>']
    if any(question.kind in ("pairwise", "binary", "scale") for question in questions):
        for place in range(1, answers + 1):
            lines.append(f'  <Header value="Answer {place}"/>')
            lines.append(f'  <Text name="answer_{place}" value="$text{place}"/>')
            lines += [
                line
                for question in questions
                if question.kind in ("binary", "scale")
                for line in _about_one(question, place)
            ]
    for question in questions:
        lines += _about_all(question)
    lines.append('  <TextArea name="comment" toName="prompt" placeholder="Comment" rows="2" maxSubmissions="1"/>')
    return "\n".join([*lines, "</View>", ""])


def _about_one(question: Question, place: int) -> Iterator[str]:
    name, target = f"{question.name}_{place}", f"answer_{place}"
    required = ' required="true"' if question.required else ""
    yield f"  <Header value={quoteattr(question.text or question.name)} size={quoteattr('5')}/>"
    if question.kind == "scale":
        yield f'  <Rating name="{name}" toName="{target}" maxRating="{question.points}"{required}/>'
        return
    yield f'  <Choices name="{name}" toName="{target}" choice="single-radio" showInline="true"{required}>'
    for number, words in (("1", question.high or "yes"), ("0", question.low or "no")):
        yield f'    <Choice value={quoteattr(words)} alias="{number}"/>'
    yield "  </Choices>"


def _about_all(question: Question) -> Iterator[str]:
    name, words = question.name, quoteattr(question.text or question.name)
    if question.kind == "pairwise":
        yield f"  <Header value={words}/>"
        yield f'  <Pairwise name="{name}" toName="answer_1,answer_2"/>'
        yield f'  <Choices name="{name}_tie" toName="answer_1" choice="single">'
        yield '    <Choice value="They are equally good" alias="tie"/>'
        yield "  </Choices>"
    elif question.kind == "ranking":
        if question.text == WORDS["ranking"]:  # a Ranker has no ties
            words = quoteattr("Rank the answers from best to worst.")
        yield f'  <List name="{name}_answers" value="$items" title={words}/>'
        yield f'  <Ranker name="{name}" toName="{name}_answers"/>'
    elif question.kind == "demonstration":
        yield f"  <Header value={words}/>"
        yield f'  <TextArea name="{name}" toName="prompt" rows="8" maxSubmissions="1"/>'
