"""Encoding of tasks, questions and answers as columns of the store, and checks of everything that goes in."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.data.rows import Message, as_dict, check_dialogue
from pipelines.errors import ConflictError, DataError
from pipelines.labels.label_types import Answer, Label, Question, Task, question_dict, values_fault
from pipelines.labels.store.records import Invalid, Settings, Submission

MAX_COMMENT = 10_000
MAX_TEXT = 200_000
MAX_KEY = 200
MOST_ANSWERS = 26
"""Maximum number of answers of a task: the page names them A to Z."""

_ID = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,64}")
_PROMPT = TypeAdapter(tuple[Message, ...])
_LEAST_ANSWERS = {"pairwise": 2, "ranking": 2, "binary": 1, "scale": 1, "demonstration": 0}
_MOST_ANSWERS = {"pairwise": 2, "demonstration": 1}


def shuffled_place(*parts: object) -> int:
    """Return a hash of the parts, a number of 62 bits; sorting by it shuffles, always in the same way."""
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def is_text(text: str) -> bool:
    """Whether the text can be encoded as UTF-8; half a surrogate pair, which JSON can contain, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_settings(settings: Settings) -> None:
    """Raise DataError unless the settings are valid."""
    names = [question.name for question in settings.questions]
    if not names or len(set(names)) < len(names):
        raise DataError("a label store needs at least one question, and questions need distinct names")
    if settings.overlap < 1:
        raise DataError(f"the overlap must be 1 or more, not {settings.overlap}")
    if not 0 <= settings.control_share <= 0.5:
        raise DataError(f"the share of control tasks must be from 0 to 0.5, not {settings.control_share}")


def check_task(task: Task, questions: tuple[Question, ...]) -> None:
    """Raise DataError unless every question can be asked about the task and its known values answer them."""
    where = f"task {task.id!r}"
    if not _ID.fullmatch(task.id):
        raise DataError(
            "the id of a task is part of an address: it has 1 to 64 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`, "
            "and not dots only",
            where=where,
            hint="change the id, or leave it out, so that one is made from prompt and answers",
        )
    try:
        check_dialogue(task.prompt)
    except ValueError as error:
        raise DataError(f"prompt: {error}", where=where) from error
    texts = [task.source or ""]
    texts += [text for answer in task.answers for text in (answer.text, answer.model or "")]
    texts += [json.dumps(as_dict(turn), ensure_ascii=False) for turn in task.prompt]
    if not all(is_text(text) for text in texts):
        raise DataError("it contains half a surrogate pair, which UTF-8 cannot encode", where=where)
    answers = len(task.answers)
    if answers > MOST_ANSWERS:
        raise DataError(
            f"it has {answers} answers; the page can show at most {MOST_ANSWERS}, as A to Z",
            where=where,
            hint="leave some out, or split the task",
        )
    for question in questions:
        least = _LEAST_ANSWERS[question.kind]
        if not least <= answers <= _MOST_ANSWERS.get(question.kind, answers):
            most = _MOST_ANSWERS.get(question.kind)
            wanted = f"{least} or more" if most is None else f"{least}" if least == most else f"{most} at most"
            raise DataError(
                f"the question `{question.name}` of kind {question.kind} needs {wanted} answers, not {answers}",
                where=where,
            )
    if task.control is not None:
        if not task.control:
            raise DataError("a control task needs the known value of at least one question", where=where)
        if fault := values_fault(task.control, questions, answers):
            raise DataError(f"control: {fault}", where=where)


def check_submission(submission: Submission, questions: tuple[Question, ...], answers: int) -> None:
    """Raise Invalid, with the reason, unless the submission fits the questions and a task of so many answers."""
    check_key(submission.key)
    if len(submission.comment) > MAX_COMMENT:
        raise Invalid(f"the comment has {len(submission.comment)} characters; at most {MAX_COMMENT} can be saved")
    if submission.seconds is not None and not (math.isfinite(submission.seconds) and submission.seconds >= 0):
        raise Invalid("the time must be a number of seconds, at least 0")
    written = [value for value in submission.values.values() if isinstance(value, str)]
    if not all(is_text(text) for text in (submission.comment, *submission.values, *written)):
        raise Invalid("a text contains half a surrogate pair, which cannot be saved")
    if submission.skipped:
        return
    if fault := values_fault(submission.values, questions, answers):
        raise Invalid(fault)
    if any(len(text) > MAX_TEXT for text in written):
        raise Invalid(f"a text can have at most {MAX_TEXT} characters")
    if missing := [
        question.name for question in questions if question.required and question.name not in submission.values
    ]:
        raise Invalid(f"not answered yet: {', '.join(missing)}")
    if not submission.values:
        raise Invalid("answer at least one question, or skip the task")


def check_key(key: str) -> None:
    """Raise Invalid unless the key can identify a request."""
    if not key.strip() or len(key) > MAX_KEY or not is_text(key):
        raise Invalid(f"the key must be a text of 1 to {MAX_KEY} characters")


def task_columns(task: Task, seed: int) -> dict[str, object]:
    """Return the task as a row of the table."""
    return {
        "id": task.id,
        "prompt": _text([as_dict(turn) for turn in task.prompt]),
        "answers": _text([[answer.text, answer.model] for answer in task.answers]),
        "control": None if task.control is None else _text(dict(sorted(task.control.items()))),
        "source": task.source,
        "place": shuffled_place(seed, task.id),
    }


def check_same(columns: Mapping[str, object], row: sqlite3.Row, where: str) -> None:
    """Raise ConflictError if the store has a different task with the same id."""
    texts = [[answer[0] for answer in json.loads(str(one["answers"]))] for one in (columns, row)]
    if columns["prompt"] != row["prompt"] or texts[0] != texts[1]:
        difference = "another prompt or other answers"
    elif columns["control"] != row["control"]:
        difference = "another known value"
    else:
        return
    raise ConflictError(
        f"the label store already has a task {columns['id']}, with {difference}",
        where=where,
        hint="give the changed task another id, or use a new label store",
    )


def task_of(row: sqlite3.Row) -> Task:
    """Return the task of a row with the columns id, prompt, answers, control and source."""
    try:
        prompt = _PROMPT.validate_json(row["prompt"])
        answers = tuple(Answer(text, model) for text, model in json.loads(row["answers"]))
        known = None if row["control"] is None else json.loads(row["control"])
        control = None if known is None else {name: tuple(value) for name, value in known.items()}
    except (ValidationError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"the label store is damaged: task {row['id']}: {error}") from error
    return Task(prompt, answers, control, row["source"], row["id"])


def label_of(row: sqlite3.Row) -> Label:
    """Return the label of a row of `answers.STANDING`."""
    try:
        pairs = json.loads(row["answer"]).items()
        values = {name: value if isinstance(value, str) else tuple(value) for name, value in pairs}
        order = order_of(row["shown"])
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"the label store is damaged: answer to task {row['task']}: {error}") from error
    as_they_are = {key: row[key] for key in ("task", "annotator", "seconds", "comment", "time")}
    flags: dict[str, Any] = {key: bool(row[key]) for key in ("skipped", "flagged", "simulated")}
    return Label(**as_they_are, values=values, order=order, **flags)


def order_of(shown: str) -> tuple[int, ...]:
    """Return the order of answers in the column `shown`."""
    return tuple(json.loads(shown))


def values_text(submission: Submission) -> str:
    """Return the values of a submission as a column; empty if it is skipped."""
    return _text({} if submission.skipped else dict(submission.values))


def questions_text(questions: tuple[Question, ...]) -> str:
    """Return the questions as a column."""
    return _text([question_dict(question) for question in questions])


@functools.lru_cache(maxsize=8)
def questions_of(text: str) -> tuple[Question, ...]:
    """Return the questions in a column."""
    try:
        return tuple(Question(**plain) for plain in json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataError(f"the label store is damaged: questions: {error}") from error


def _text(plain: object) -> str:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
