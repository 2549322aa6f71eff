"""Argilla 2.x: records as its Python client and its server write them, and records to be logged there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from pipelines.data.faults import fault_of, shorten, type_name
from pipelines.data.rows import Lenient, as_dict
from pipelines.labels.exchange.foreign_task import drawn_order, read_foreign_task, task_metadata
from pipelines.labels.exchange.gather import LabelCollection
from pipelines.labels.exchange.label_studio import CONTROLS, MODELS, SOURCES
from pipelines.labels.exchange.verdicts import COMMENT, Verdict
from pipelines.labels.label_types import LabelSet, Question, Task

ORDER = "rlhf_order"
"""Metadata field of exported records with the order of the answers; the id of a record is that of its task."""
TIES_LOST = "rankings without ranks (Argilla's Python client drops the ranks, so ties are lost)"
NO_STATUS = "answers without a status (nested exports of the Python client drop it; read as submitted)"


class _Response(Lenient):
    """Answers of one user to a record, as the server writes them; a deleted user has no id."""

    values: dict[str, Any] | None = None
    status: Literal["submitted", "draft", "discarded"]
    user_id: str | None = None
    updated_at: str | None = None


class _Given(Lenient):
    """Answer of one user to one question, as the Python client writes it."""

    value: Any
    user_id: str
    status: Literal["submitted", "draft", "discarded"] | None = None


class _User(NamedTuple):
    """Response of one user to one record: id, status and time of the last change, None what is not in the export."""

    name: str | None
    status: str | None
    answers: dict[str, Any]
    time: str | None = None


def is_record(row: Mapping[str, Any]) -> bool:
    """Whether the record is one of Argilla, in any of its shapes."""
    return isinstance(row.get("fields"), dict) or _is_flat(row)


def _is_flat(row: Mapping[str, Any]) -> bool:
    return "fields" not in row and any(name.endswith((".responses", ".responses.users")) for name in row)


def read_record(row: Mapping[str, Any], place: str, collection: LabelCollection) -> None:
    """Read one record and the answers to it; only submitted ones count.

    Raises:
        ValueError: the reason why it cannot be read.
    """
    flat = _is_flat(row)
    fields = row if flat else row["fields"]
    metadata = row if flat else row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"metadata: must be an object, not {type_name(metadata)}")
    foreign = collection.add_task(
        read_foreign_task(
            fields, collection.reading.columns, _home(row.get("external_id") or row.get("id"), metadata.get(ORDER))
        )
    )
    suggested = row.get("suggestions") or ()
    if flat:
        suggested = [name for name in row if name.endswith(".suggestion") and row[name] is not None]
    if not isinstance(suggested, list | dict | tuple):
        raise ValueError(f"suggestions: must be a list or an object, not {type_name(suggested)}")
    collection.notes["suggestions of models (not read)"] += len(suggested)
    for user, status, answers, time in _flat(row) if flat else _users(row.get("responses")):
        if status == "draft":
            collection.notes["drafts (not read)"] += 1
            continue
        if status is None:
            collection.notes[NO_STATUS] += 1
        name = user or collection.nobody(foreign)
        verdict = Verdict(
            foreign, name, place, collection.notes, collection.reading.choices, time=time, skipped=status == "discarded"
        )
        if status != "discarded":
            for question, value in answers.items():
                _take(verdict, question, value)
        collection.verdicts.append(verdict)


def _home(record: Any, order: Any) -> dict[str, Any] | None:
    if order is None:
        return None
    if not isinstance(order, str) or not all(part.isdigit() for part in order.split(",") if order):
        raise ValueError(f"{ORDER}: must be numbers such as '2,0,1', not {shorten(order)}")
    return {"task": record, "order": [int(part) for part in order.split(",") if part]}


def _users(responses: Any) -> Iterator[_User]:
    """Yield the answers of a nested record by user."""
    if responses in (None, {}, []):
        return
    try:
        if isinstance(responses, list):
            for response in map(_Response.model_validate, responses):
                values = response.values or {}
                answers = {name: _value(values[name]) for name in values}
                yield _User(response.user_id, response.status, answers, response.updated_at)
            return
        if not isinstance(responses, dict):
            raise ValueError(f"responses: must be a list or an object, not {type_name(responses)}")
        users: dict[tuple[str, str | None], dict[str, Any]] = {}
        for question, given in responses.items():
            if not isinstance(given, list):
                raise ValueError(f"responses.{question}: must be a list, not {type_name(given)}")
            for one in map(_Given.model_validate, given):
                users.setdefault((one.user_id, one.status), {})[question] = one.value
    except ValidationError as error:
        raise ValueError(f"responses: {fault_of(error)}") from error
    yield from (_User(user, status, answers) for (user, status), answers in users.items())


def _value(held: Any) -> Any:
    if not isinstance(held, dict) or "value" not in held:
        raise ValueError(f"responses: an answer must be an object with a value, not {type_name(held)}")
    return held["value"]


def _flat(row: Mapping[str, Any]) -> Iterator[_User]:
    """Yield the answers of a flat record by user."""
    users: dict[tuple[str, str | None], dict[str, Any]] = {}
    for name, values in row.items():
        if not name.endswith(".responses") or values is None:
            continue
        who, status = row.get(f"{name}.users"), row.get(f"{name}.status")
        status = [None] * len(values) if status is None and isinstance(values, list) else status
        if not all(isinstance(column, list) for column in (values, who, status)):
            raise ValueError(f"{name}: must be a list, with lists {name}.users and {name}.status beside it")
        if not len(values) == len(who or ()) == len(status or ()):
            raise ValueError(f"{name}: has {len(values)} answers, {len(who or ())} users, {len(status or ())} states")
        for value, user, state in zip(values, who or (), status or (), strict=True):
            if not isinstance(user, str) or not user.strip():
                raise ValueError(f"{name}.users: must be texts, not {type_name(user)}")
            if state not in ("submitted", "draft", "discarded", None):
                raise ValueError(f"{name}.status: must be submitted, draft or discarded, not {shorten(state)}")
            users.setdefault((user, state), {})[name.removesuffix(".responses")] = value
    yield from (_User(user, status, answers) for (user, status), answers in users.items())


def _take(verdict: Verdict, question: str, value: Any) -> None:
    """Read one answer to one question."""
    if value in (None, []):
        return  # not answered
    if isinstance(value, bool):
        raise ValueError(f"{question}: must be a number, a text or a list, not {type_name(value)}")
    if isinstance(value, str):
        verdict.bare[question] = value
    elif question == COMMENT:
        verdict.pass_over(question)
    elif isinstance(value, int):
        verdict.number(question, "", value)
    elif isinstance(value, list) and all(isinstance(item, dict) and "rank" in item for item in value):
        _rank(verdict, question, value)
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        if not any(item in verdict.foreign.keys for item in value):
            verdict.pass_over(question)
            return
        verdict.notes[TIES_LOST] += 1
        verdict.rank(question, [[item] for item in value])
    elif isinstance(value, list):
        verdict.pass_over(question)
    else:
        raise ValueError(f"{question}: must be a number, a text or a list, not {type_name(value)}")


def _rank(verdict: Verdict, question: str, items: Sequence[Mapping[str, Any]]) -> None:
    groups: dict[int, list[Any]] = {}
    for item in items:
        if type(item["rank"]) is not int or "value" not in item:
            raise ValueError(f"{question}: a ranked answer must have a value and a whole number as rank")
        groups.setdefault(item["rank"], []).append(item["value"])
    verdict.rank(question, [groups[rank] for rank in sorted(groups)])


def records(collection: LabelSet, seed: int) -> tuple[str, dict[str, int]]:
    """Write tasks as JSON for ``dataset.records.from_json`` of Argilla, with shuffled answers.

    Returns:
        The text of the file, and counts of what it leaves out because Argilla has no place for it or its annotators
        must not see it.
    """
    tasks = collection.tasks.values()
    lost = {
        "labels (Argilla accepts those of its own users only)": len(collection.labels),
        MODELS: sum(any(answer.model for answer in task.answers) for task in tasks),
        CONTROLS: sum(task.control is not None for task in tasks),
        SOURCES: sum(task.source is not None for task in tasks),
    }
    text = json.dumps([_record(task, seed) for task in tasks], ensure_ascii=False, indent=1) + "\n"
    return text, {name: count for name, count in lost.items() if count}


def _record(task: Task, seed: int) -> dict[str, Any]:
    order = drawn_order(task, seed)
    fields: dict[str, Any] = {"prompt": [as_dict(turn) for turn in task.prompt]}
    fields |= {f"response_{place}": task.answers[index].text for place, index in enumerate(order, 1)}
    home = task_metadata(task, order, prompt=False)
    metadata = {ORDER: ",".join(map(str, home["order"]))}
    return {"id": task.id, "fields": fields, "metadata": metadata, "suggestions": {}, "responses": {}, "vectors": {}}


def settings(questions: Sequence[Question], answers: int) -> str:
    """Return Python code that creates an Argilla data set for these questions and so many answers a task."""
    names = [f"response_{place}" for place in range(1, answers + 1)]
    lines = ["import argilla as rg", "", "settings = rg.Settings(", "    fields=["]
    lines.append('        rg.ChatField(name="prompt", use_markdown=False),')
    for place, name in enumerate(names):
        required = ", required=False" if place >= 2 else ""
        lines.append(f'        rg.TextField(name="{name}", use_markdown=False{required}),')
    lines += ["    ],", "    questions=["]
    for question in questions:
        lines += [f"        {line}," for line in _question(question, names)]
    lines.append('        rg.TextQuestion(name="comment", title="Comment", required=False),')
    lines += ["    ],", f'    metadata=[rg.TermsMetadataProperty(name="{ORDER}")],', ")"]
    lines += ['dataset = rg.Dataset(name="answers", settings=settings)', "dataset.create()"]
    return "\n".join([*lines, 'dataset.records.from_json("records.json")', ""])


def _question(question: Question, names: Sequence[str]) -> Iterator[str]:
    title = f", title={json.dumps(question.text, ensure_ascii=False)}" if question.text else ""
    required = "" if question.required else ", required=False"
    if question.kind == "demonstration":
        yield f'rg.TextQuestion(name="{question.name}"{title}{required})'
    elif question.kind in ("ranking", "pairwise"):
        yield f'rg.RankingQuestion(name="{question.name}", values={json.dumps(list(names))}{title}{required})'
    else:
        values = [0, 1] if question.kind == "binary" else list(range(1, question.points + 1))
        for place in range(1, len(names) + 1):
            yield f'rg.RatingQuestion(name="{question.name}_{place}", values={values}{title}{required})'
