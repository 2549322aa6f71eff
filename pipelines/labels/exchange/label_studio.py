"""Label Studio: exports (JSON, JSON_MIN) in, labeling configurations and tasks out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from pipelines.data.faults import fault_of, shorten, type_name
from pipelines.data.rows import Lenient
from pipelines.labels.exchange.foreign_task import (
    HOME,
    ForeignTask,
    drawn_order,
    prompt_field,
    prompt_text,
    read_foreign_task,
    task_fields,
    task_metadata,
)
from pipelines.labels.exchange.gather import LabelCollection, ReadingOptions
from pipelines.labels.exchange.verdicts import COMMENT, Verdict, ranked_groups
from pipelines.labels.label_types import Label, LabelSet, Question, Task, Value

UNTOUCHED = "rankings in the order of the page (perhaps submitted untouched)"
_READ = {name: name for name in ("ranker", "choices", "rating", "number")} | {
    "pairwise": "selected",
    "textarea": "text",
}
_MIN = {field: kind for kind, field in _READ.items()}
_TAIL = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")
_ABOUT = (*_TAIL, "id")


class _Result(Lenient):
    type: str
    from_name: str | None = None
    to_name: str | list[str] | None = None
    value: dict[str, Any] | None = None


class _Times(Lenient):
    lead_time: float | None = Field(None, ge=0)
    created_at: str | None = None
    updated_at: str | None = None


class _Annotation(_Times):
    result: list[_Result]
    completed_by: int | str | dict[str, Any] | None = None
    was_cancelled: bool | None = False
    ground_truth: bool | None = False


class _Task(Lenient):
    data: dict[str, Any]
    annotations: list[_Annotation] = Field([])
    predictions: list[Any] | None = None
    drafts: list[Any] | None = None


class _Minimal(_Times):
    annotator: int | str | dict[str, Any] | None = None


def is_task(row: Mapping[str, Any]) -> bool:
    """Whether the record is one of a JSON export."""
    return isinstance(row.get("data"), dict) and "fields" not in row


def is_minimal(row: Mapping[str, Any]) -> bool:
    """Whether the record is one of a JSON_MIN export."""
    return "annotation_id" in row or ("annotator" in row and "lead_time" in row)


def read_task(row: Mapping[str, Any], place: str, collection: LabelCollection) -> None:
    """Read one record of a JSON export: a task and its annotations.

    Raises:
        ValueError: the reason why it cannot be read.
    """
    try:
        task = _Task.model_validate(row)
    except ValidationError as error:
        raise ValueError(str(fault_of(error))) from error
    collection.notes["predictions of models (not read)"] += len(task.predictions or ())
    collection.notes["drafts (not read)"] += len(task.drafts or ())
    foreign = _shown(task.data, collection)
    for number, annotation in enumerate(task.annotations):
        known = bool(annotation.ground_truth)
        name = annotator_name(annotation.completed_by) or ("ground truth" if known else collection.nobody(foreign))
        verdict = Verdict(
            foreign,
            name,
            place,
            collection.notes,
            collection.reading.choices,
            seconds=annotation.lead_time,
            time=annotation.updated_at or annotation.created_at,
            skipped=bool(annotation.was_cancelled),
            known=known,
        )
        if not annotation.was_cancelled:
            for index, result in enumerate(annotation.result):
                try:
                    _take_result(verdict, result, collection.reading)
                except ValueError as error:
                    raise ValueError(f"annotations[{number}].result[{index}]: {error}") from error
        collection.verdicts.append(verdict)


def read_minimal(row: Mapping[str, Any], place: str, collection: LabelCollection) -> None:
    """Read one record of a JSON_MIN export: the fields of a task and one annotation.

    Raises:
        ValueError: the reason why it cannot be read.
    """
    try:
        about = _Minimal.model_validate(row)
    except ValidationError as error:
        raise ValueError(str(fault_of(error))) from error
    controls = _controls(row, collection.reading)
    results = {name: some for name in controls if (some := _results(row[name]))}
    told = {*controls, *_ABOUT}
    foreign = _shown({name: value for name, value in row.items() if name not in told}, collection)
    name = annotator_name(about.annotator) or collection.nobody(foreign)
    time = about.updated_at or about.created_at
    verdict = Verdict(
        foreign, name, place, collection.notes, collection.reading.choices, seconds=about.lead_time, time=time
    )
    for control, value in results.items():
        try:
            _take_minimal(verdict, control, value, collection.reading)
        except ValueError as error:
            raise ValueError(f"{control}: {error}") from error
    for control in controls:
        if isinstance(row[control], str):
            verdict.bare[control] = row[control]
        elif control not in results and row[control] not in (None, [], {}):
            verdict.pass_over(control)
    collection.verdicts.append(verdict)


def annotator_name(told: int | str | Mapping[str, Any] | None) -> str | None:
    """Return the name of an annotator from a number, a name, or an object with an email, a username or an id."""
    if isinstance(told, Mapping):
        told = next((told[key] for key in ("email", "username", "id") if told.get(key) not in (None, "")), None)
    return str(told) if isinstance(told, str | int) and str(told).strip() else None


def _shown(data: Mapping[str, Any], collection: LabelCollection) -> ForeignTask:
    home = data.get(HOME)
    if home is not None and not isinstance(home, dict):
        raise ValueError(f"{HOME}: must be an object, not {type_name(home)}")
    return collection.add_task(read_foreign_task(data, collection.reading.columns, home))


def _take_result(verdict: Verdict, result: _Result, reading: ReadingOptions) -> None:
    if result.type not in _READ:
        verdict.notes[f"results of type {shorten(result.type)} (not read)"] += 1
        return
    if not result.from_name:
        raise ValueError("from_name: missing")
    if result.value is None or _READ[result.type] not in result.value:
        raise ValueError(f"value.{_READ[result.type]}: missing")
    targets = result.to_name if isinstance(result.to_name, list) else [result.to_name or ""]
    target = targets[0] if len(targets) == 1 else ""
    _take(verdict, result.type, result.from_name, target, result.value, reading)


def _take_minimal(verdict: Verdict, control: str, results: list[dict[str, Any]], reading: ReadingOptions) -> None:
    for result in results:
        kind = _kind_of(result)
        if kind is None:
            raise ValueError(f"must be a result such as {{'selected': 'left'}}, not {type_name(result)}")
        _take(verdict, kind, control, "", result, reading)


def _take(
    verdict: Verdict, kind: str, control: str, target: str, value: Mapping[str, Any], reading: ReadingOptions
) -> None:
    """Read one result of one control."""
    said = value[_READ[kind]]
    if kind == "textarea" or (control == COMMENT and kind == "choices"):
        texts = [said] if isinstance(said, str) else said
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{_READ[kind]} must be a text or a list of texts, not {type_name(said)}")
        verdict.write(control, "\n".join(texts))
    elif control == COMMENT:
        verdict.pass_over(control)
    elif kind == "pairwise":
        if said not in ("left", "right"):
            raise ValueError(f"selected must be 'left' or 'right', not {shorten(said)}")
        verdict.prefer(control, 0 if said == "left" else 1)
    elif kind == "ranker":
        # A list that is submitted untouched has the order in which it was shown.
        groups = ranked_groups(control, said, reading.buckets_of(control), verdict.notes)
        verdict.notes[UNTOUCHED] += verdict.rank(control, groups)
    elif kind == "choices":
        if not isinstance(said, list) or not all(isinstance(item, str) for item in said):
            raise ValueError(f"choices must be a list of texts, not {type_name(said)}")
        if len(said) == 1:
            verdict.choice(control, target, said[0])
        else:
            verdict.pass_over(control)
    else:
        if type(said) not in (int, float) or (kind == "rating" and said != int(said)):
            raise ValueError(f"{kind} must be a whole number, not {shorten(said)}")
        if said != int(said):
            verdict.pass_over(control)  # a Number may have decimals, a scale here has none
            return
        # Stars are a scale, even if all of them are one star; a Number may be 0/1.
        verdict.number(control, target, int(said), "scale" if kind == "rating" else None)


def _kind_of(result: Any) -> str | None:
    """The type of a result of JSON_MIN, which does not name it; None: unknown, such as a choice about a region."""
    if not isinstance(result, dict) or result.keys() & {"id", "role", "author"}:
        return None
    kinds = [_MIN[name] for name in result if name in _MIN]
    return kinds[0] if len(kinds) == 1 else None


def _results(value: Any) -> list[dict[str, Any]]:
    """Return the results of a control of JSON_MIN: a list of objects, or one object; empty: it is neither."""
    results = [value] if isinstance(value, dict) else value
    return results if isinstance(results, list) and results and _kind_of(results[0]) is not None else []


def _controls(row: Mapping[str, Any], reading: ReadingOptions) -> list[str]:
    """Return the fields of a JSON_MIN record that are results; the other fields are the task.

    The configuration or the questions that were sent out name them. Without these, Label Studio's own order of the
    fields does: task, id, results, annotator. (A task with an ``id`` of its own keeps it in its place, so that its
    fields may follow; these are known by their names.) In any other order of the fields, only results that are lists
    can be told from the task.
    """
    names = list(row)
    own_order = "id" in row and _written_by_label_studio(names)
    first, last = (names.index("id") + 1, names.index("annotator")) if own_order else (0, len(names))
    fields = {HOME, *reading.columns.values(), *_ABOUT}
    if not own_order or prompt_field({name: row[name] for name in names[:first]}, reading.columns) is None:
        fields |= task_fields(row, reading.columns)
    if reading.config is not None:
        return [name for name in names if name in reading.config.controls]
    candidates = [name for name in names[first:last] if name not in fields]
    if own_order:
        return candidates
    if reading.tasks is not None:
        return [name for name in candidates if name == COMMENT or reading.was_sent(name)]
    texts = [
        name
        for name in candidates
        if (isinstance(row[name], str) and row[name].strip()) or (isinstance(row[name], dict) and _results(row[name]))
    ]
    if texts:
        raise ValueError(
            f"the fields are not in Label Studio's order, so {', '.join(texts)} may be results or parts of the task; "
            "`rlhf labels convert` takes the names of the controls from the labeling configuration "
            "(--label-config FILE) or from the tasks that were sent out (--tasks FILE)"
        )
    return [name for name in candidates if isinstance(row[name], list) and _results(row[name])]


def _written_by_label_studio(names: Sequence[str]) -> bool:
    """Whether the fields are in the order in which Label Studio writes a record of JSON_MIN."""
    if not {"annotator", "annotation_id", "created_at"} <= set(names):
        return False
    place = names.index("annotator")
    tail = [name for name in _TAIL if name in names]
    return names.index("id") < place and names[place : place + len(tail)] == tail


MODELS = "names of models (hidden from annotators; --tasks restores them)"
CONTROLS = "known values of control tasks (hidden from annotators; --tasks restores them)"
SOURCES = "sources of tasks (--tasks restores them)"
ORDERS = "labels whose annotator saw the answers in another order"
TIES = "labels with a tied ranking (left out: a Ranker has no ties)"
LABELS = "labels (--with-labels writes them as annotations)"
FLAGS = "flags of labels"
SIMULATED = "marks of simulated labels"
Lost = Counter[str]


def tasks(collection: LabelSet, seed: int, *, with_labels: bool = False) -> tuple[str, dict[str, int]]:
    """Write tasks as JSON that Label Studio imports, with answers shuffled by the seed.

    Labels are written as annotations. Label Studio accepts those of its own members only, whom it knows by email; so
    the names of the annotators must be emails.

    Returns:
        The text of the file, and counts of what it leaves out because Label Studio has no place for it or its
        annotators must not see it.
    """
    lost: Lost = Counter()
    labels: dict[str, list[Label]] = {}
    for label in collection.labels if with_labels else ():
        labels.setdefault(label.task, []).append(label)
    if not with_labels:
        lost[LABELS] += len(collection.labels)
    tasks = collection.tasks.values()
    rows = [_task(task, labels.get(task.id, []), collection.questions, seed, lost) for task in tasks]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n", dict(+lost)


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
    data[HOME] = task_metadata(task, order)
    annotations = []
    for label in labels:
        results = _prefilled_results(label, questions, order, lost)
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


def _prefilled_results(
    label: Label, questions: Sequence[Question], order: Sequence[int], lost: Lost
) -> list[dict[str, Any]] | None:
    """Return the results of one label; None: it has a tie, which a Ranker cannot express."""
    collection: list[dict[str, Any]] = []
    for question in questions:
        if question.name not in label.values:
            continue
        value = label.values[question.name]
        if question.kind == "ranking" and len(set(value)) < len(order):
            lost[TIES] += 1
            return None
        collection += _result(question, value, order)
    if label.comment:
        collection.append(_one("comment", "prompt", "textarea", {"text": [label.comment]}))
    return [{"id": f"r{number}", **result} for number, result in enumerate(collection, 1)]


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
