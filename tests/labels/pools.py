"""Label sets for tests: written by hand, or of a pool of people with habits of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Kind, Label, LabelSet, Question, Task


def prompt(text: str = "q") -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def by_hand(
    rows: Sequence[Mapping[str, Sequence[int]]],
    kind: Kind = "ranking",
    *,
    answers: Sequence[Sequence[str]] | None = None,
    control: Mapping[int, Sequence[int]] | None = None,
    points: int = 5,
    **label: Any,
) -> LabelSet:
    """One task a row: what each annotator said of it, by name; control tasks by the number of their row."""
    found = LabelSet((Question("overall", kind, "Which one?", points=points),), {}, [])
    for number, row in enumerate(rows):
        size = len(next(iter(row.values()))) if row else 2
        texts = answers[number] if answers else [f"answer {number} {letter}" for letter in "abcdefghijklm"[:size]]
        known = None if number not in (control or {}) else {"overall": tuple((control or {})[number])}
        task = Task(prompt(f"question {number}"), tuple(map(Answer, texts)), known)
        found.tasks[task.id] = task
        found.labels += [Label(task.id, name, {"overall": tuple(value)}, **label) for name, value in row.items()]
    return found


def pool(
    seed: int,
    *,
    kind: Kind = "ranking",
    tasks: int = 60,
    answers: int = 4,
    people: int = 4,
    noise: float = 0.5,
    habits: Mapping[int, str] | None = None,
) -> LabelSet:
    """People who see the same truth through noise; answers are shuffled for each, and reading takes its time.

    Args:
        habits: by number of the person: ``first`` prefers what is shown first, ``random`` does not look, ``fast`` does
            not read, ``ties`` makes no difference, ``same`` finds everything good.
    """
    rng = np.random.default_rng(seed)
    found = LabelSet((Question("overall", kind, "Which one?"),), {}, [])
    for number in range(tasks):
        texts = [f"{index}-{number} " + "word " * int(rng.integers(3, 40)) for index in range(answers)]
        task = Task(prompt(f"question {number}"), tuple(map(Answer, texts)))
        found.tasks[task.id] = task
        truth = rng.normal(size=answers)
        for person in range(people):
            own, habit = np.random.default_rng([seed, number, person]), (habits or {}).get(person)
            order = tuple(int(index) for index in own.permutation(answers))
            score = truth + own.normal(size=answers) * noise
            seconds = sum(map(len, texts)) / own.uniform(8, 30)
            if habit == "first":
                score = -np.argsort(order).astype(float)
            elif habit == "random":
                score = own.normal(size=answers)
            elif habit == "fast":
                seconds /= 20
            elif habit in ("ties", "same"):
                score = np.full(answers, 10.0 * (habit == "same"))
            value = _value(kind, score)
            found.labels.append(Label(task.id, f"p{person}", {"overall": value}, order, float(seconds)))
    return found


def _value(kind: Kind, score: np.ndarray) -> tuple[int, ...]:
    if kind == "binary":
        return tuple(int(one > 0) for one in score)
    if kind == "scale":
        return tuple(int(np.clip(round(3 + 1.3 * one), 1, 5)) for one in score)
    distinct = sorted(set(-score))
    return tuple(distinct.index(-one) + 1 for one in score)
