"""A task of another program: its prompt and answers among the fields of a record, and their order on the page."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from pipelines.data.faults import fault_of, type_name
from pipelines.data.formats.sharegpt import any_turns
from pipelines.data.rows import Message, Row, as_dict, check_dialogue
from pipelines.labels.label_types import Answer, Task

HOME = "rlhf"
"""Field of exported tasks with their id, prompt and order of answers, by which they are recognized later."""
PROMPTS: tuple[str, ...] = ("prompt", "question", "instruction", "query", "input", "dialogue", "dialog", "messages")
PROMPTS += ("conversation", "conversations", "context")
LISTS = ("items", "answers", "responses", "completions", "candidates", "outputs")
_ONE = ("answer", "response", "completion", "output", "candidate", "reply", "generation", "option", "text", "model")
_NUMBERED = re.compile(rf"({'|'.join(_ONE)})[ _\-]?(\d{{1,2}}|(?<=[ _\-])[a-h])", re.IGNORECASE)
_BODIES = ("body", "text", "content", "html", "title")
_Item = TypeVar("_Item")


class UnusableTask(ValueError):
    """A record without a prompt or an answer that anybody could train on, such as a blank answer.

    Unlike other faults of a record, it says nothing against the rest of the file: the record is left out and counted.
    """


@dataclass(frozen=True)
class ForeignTask:
    """A task, and its presentation in another program.

    Attributes:
        keys: name of the answer at each place of the page, as results use it.
        order: index of the answer at each place of the page, in the task's own order.
        sent: the task was sent out from here.
    """

    task: Task
    keys: tuple[str, ...]
    order: tuple[int, ...]
    sent: bool = False

    def home(self, by_place: Sequence[_Item]) -> tuple[_Item, ...]:
        """Reorder values by place into the task's own order of answers."""
        by_index = dict(zip(self.order, by_place, strict=True))
        return tuple(by_index[index] for index in range(len(by_index)))

    def place(self, key: object) -> int | None:
        """Return the place of the answer that results call `key`; None: there is no such answer."""
        name = str(key) if isinstance(key, str | int) else None
        return self.keys.index(name) if name in self.keys else None


class _Home(Row):
    task: str = Field(min_length=1)
    order: list[int]
    prompt: list[Message] | None = None


def read_foreign_task(
    data: Mapping[str, Any], columns: Mapping[str, str], home: Mapping[str, Any] | None = None
) -> ForeignTask:
    """Read a task from the fields of a record.

    Args:
        data: the fields.
        columns: names of fields that differ from the usual ones: of the `prompt`, of the `system` turn, and of the
            `answers` (a list) or of `answer_1`, `answer_2` and so on.
        home: the value of the field `HOME`; None: the task was not sent out from here.

    Raises:
        UnusableTask: the prompt or an answer is missing, blank or not a text.
        ValueError: a field of `columns` is missing, `home` is damaged, or several sets of fields may be the answers.
    """
    keys, texts = _answers(data, columns)
    if len(set(keys)) < len(keys):
        raise UnusableTask("two answers have the same id")
    order = tuple(range(len(texts)))
    if home is None:
        prompt = _prompt(data, columns)
        return ForeignTask(Task(prompt, tuple(Answer(text) for text in texts)), keys, order)
    try:
        told = _Home.model_validate(dict(home))
    except ValidationError as error:
        raise ValueError(f"{HOME}: {fault_of(error)}") from error
    if sorted(told.order) != list(order):
        raise ValueError(f"{HOME}.order: {told.order} is not an order of {len(texts)} answers")
    prompt = tuple(told.prompt) if told.prompt is not None else _prompt(data, columns)
    check_dialogue(prompt)
    own = dict(zip(told.order, texts, strict=True))
    task = Task(prompt, tuple(Answer(own[index]) for index in order), id=told.task)
    return ForeignTask(task, keys, tuple(told.order), sent=True)


def task_metadata(task: Task, order: Sequence[int], *, prompt: bool = True) -> dict[str, Any]:
    """Return the metadata by which an exported task is recognized when it comes back."""
    plain = {"task": task.id, "order": list(order)}
    return plain | ({"prompt": [as_dict(turn) for turn in task.prompt]} if prompt else {})


def drawn_order(task: Task, seed: int) -> tuple[int, ...]:
    """Shuffle the answers of a task by the seed and its id, whatever the other tasks are."""
    order = list(range(len(task.answers)))
    random.Random(f"{seed}/{task.id}").shuffle(order)
    return tuple(order)


def prompt_text(prompt: Sequence[Message]) -> str:
    """Return a prompt as one text: the content of a single user turn, else every turn after its role."""
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in prompt)


def prompt_field(data: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Return the name of the field with the prompt; None: there is none."""
    if "prompt" in columns:
        return columns["prompt"] if columns["prompt"] in data else None
    return next((name for name in PROMPTS if data.get(name) not in (None, "", [])), None)


def _list_field(data: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    return columns.get("answers") or next((name for name in LISTS if isinstance(data.get(name), list)), None)


def task_fields(data: Mapping[str, Any], columns: Mapping[str, str]) -> set[str]:
    """Return the names of the fields that a task is made of.

    Raises:
        UnusableTask: an answer is blank or not a text.
        ValueError: several sets of fields may be the answers.
    """
    fields = {prompt_field(data, columns), _list_field(data, columns), columns.get("system", "system")}
    return {name for name in (*fields, *_answers(data, columns)[0]) if name is not None}


def _prompt(data: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[Message, ...]:
    name = prompt_field(data, columns)
    if name is None:
        what = f"there is no field `{columns['prompt']}`" if "prompt" in columns else "there is no prompt"
        raise UnusableTask(f"{what}; the fields are {', '.join(data) or '(none)'}; name it with --columns prompt=FIELD")
    turns = _turns(name, data[name])
    system = data.get(columns.get("system", "system"))
    if isinstance(system, str) and system.strip() and turns[0].role != "system":
        turns = (Message(role="system", content=system), *turns)
    try:
        check_dialogue(turns)
    except ValueError as error:
        raise UnusableTask(f"{name}: {error}") from error
    return turns


def _turns(name: str, value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(role="user", content=_text(name, value)),)
    if not isinstance(value, list) or not value:
        raise UnusableTask(f"{name} must be a text or a list of turns, not {type_name(value)}")
    try:
        return any_turns(value)
    except ValidationError as error:
        raise UnusableTask(f"{name}{fault_of(error)}") from error


def _answers(data: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys of the answers, as results use them, and their texts, both by place."""
    told = {key: name for key, name in columns.items() if re.fullmatch(r"answer_?\d*", key)}
    for name in (*told.values(), *([columns["answers"]] if "answers" in columns else [])):
        if name not in data:
            raise ValueError(f"there is no field `{name}`; the fields are {', '.join(data) or '(none)'}")
    if told:
        return _of_fields(data, [told[key] for key in sorted(told, key=lambda key: int(key[6:].strip("_") or 0))])
    named = _list_field(data, columns)
    if named is not None:
        return _of_list(named, data[named])
    taken = set(columns.values())
    matches = {name: match for name in data if name not in taken and (match := _NUMBERED.fullmatch(name))}
    families: dict[str, list[str]] = {}
    for name, match in matches.items():
        if data[name] is not None:
            families.setdefault(match[1].lower(), []).append(name)
    if len(families) > 1:
        families.pop("model", None)  # then `model1` names the author of `text1`
    if families:
        largest = max(map(len, families.values()))
        family, *others = [names for names in families.values() if len(names) == largest]
        if others:
            several = " or ".join(sorted(", ".join(sorted(names)) for names in (family, *others)))
            raise ValueError(f"the answers may be {several}; name them with --columns answer_1=FIELD and so on")
        # Fields of further answers may be null; that the second one is, leaves nothing to compare.
        stem = matches[family[0]][1].lower()
        empty = [name for name, match in matches.items() if match[1].lower() == stem and name not in family]
        if len(family) == 1 and empty:
            raise UnusableTask(f"{', '.join(sorted(empty))} is null")
        return _of_fields(data, sorted(family, key=lambda name: _rank(matches[name][2])))
    prompt = columns.get("prompt") or next((name for name in PROMPTS if name in data), None)
    single = next((name for name in _ONE if isinstance(data.get(name), str) and name != prompt), None)
    return _of_fields(data, [single]) if single else ((), ())


def _rank(number: str) -> int:
    return int(number) if number.isdigit() else ord(number.lower()) - ord("a") + 1


def _of_fields(data: Mapping[str, Any], names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(names), tuple(_text(name, data[name]) for name in names)


def _of_list(name: str, items: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not isinstance(items, list):
        raise UnusableTask(f"{name} must be a list of answers, not {type_name(items)}")
    keys, texts = [], []
    for number, item in enumerate(items):
        place = f"{name}[{number}]"
        if isinstance(item, str):
            keys.append(str(number + 1))
            texts.append(_text(place, item))
            continue
        if not isinstance(item, dict):
            raise UnusableTask(f"{place} must be a text or an object, not {type_name(item)}")
        key = item.get("id", str(number + 1))
        if type(key) not in (str, int):
            raise UnusableTask(f"{place}.id must be text or a number, not {type_name(key)}")
        held = next((field for field in _BODIES if item.get(field)), None)
        if held is None:
            raise UnusableTask(f"{place} has no text in {', '.join(_BODIES)}")
        keys.append(str(key))
        texts.append(_text(f"{place}.{held}", item[held]))
    return tuple(keys), tuple(texts)


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UnusableTask(f"{place} must be a text, not {type_name(value)}")
    if not value.strip():
        raise UnusableTask(f"{place} is blank")
    return value
