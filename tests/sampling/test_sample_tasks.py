"""From answers to tasks: what each kind of question needs, and that places tell nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Kind, Question
from pipelines.sampling.stage import TaskMaker

PROMPT = (Message(role="user", content="q"),)


def answers(count: int) -> list[Answer]:
    return [Answer(f"answer {number}", f"model {number}") for number in range(count)]


def asked(*kinds: Kind) -> list[Question]:
    return [Question(kind, kind, "") for kind in kinds]


@pytest.mark.parametrize(
    ("kinds", "given", "sizes", "counts"),
    [
        (("ranking",), 4, [4], (0, 0, 0)),
        (("ranking",), 3, [3], (1, 0, 0)),
        (("ranking", "scale"), 1, [], (0, 1, 0)),
        (("scale",), 1, [1], (1, 0, 0)),
        (("binary",), 0, [], (0, 1, 0)),
        (("pairwise",), 4, [2, 2], (0, 0, 0)),
        (("pairwise", "binary"), 3, [2], (0, 0, 1)),
        (("pairwise",), 1, [], (0, 1, 0)),
        (("demonstration",), 3, [1, 1, 1], (0, 0, 0)),
        ((), 4, [4], (0, 0, 0)),
        ((), 1, [], (0, 1, 0)),
    ],
)
def test_tasks_suit_the_questions(kinds: tuple[Kind, ...], given: int, sizes: list[int], counts: tuple[int, ...]):
    maker = TaskMaker(asked(*kinds), 4, 0)
    tasks = list(maker.tasks(PROMPT, 7, "here", answers(given)))
    assert [len(task.answers) for task in tasks] == sizes
    assert tuple(maker.counts.values()) == counts
    assert all(task.source == "here" for task in tasks)
    kept = [answer for task in tasks for answer in task.answers]
    assert len(set(kept)) == len(kept)


def test_one_answer_is_a_task_where_one_is_all_that_was_asked_for():
    maker = TaskMaker((), 1, 0)
    assert len(list(maker.tasks(PROMPT, 7, None, answers(1)))) == 1
    assert maker.counts["short"] == 0


def test_places_tell_nothing_of_the_models_and_stay_the_same():
    maker = TaskMaker(asked("ranking"), 3, 5)
    first = [next(maker.tasks(PROMPT, key, None, answers(3))).answers[0].model for key in range(600)]
    again = [next(maker.tasks(PROMPT, key, None, answers(3)[::-1])).answers[0].model for key in range(600)]
    assert first == again
    assert all(150 < count < 250 for count in Counter(first).values())
    other = TaskMaker(asked("ranking"), 3, 6)
    assert first != [next(other.tasks(PROMPT, key, None, answers(3))).answers[0].model for key in range(600)]
