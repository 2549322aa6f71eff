"""What an annotator reads of an earlier answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.data.rows import Message
from pipelines.labels.label_types import Answer, Label, Question, Task, Value
from pipelines.labels.page.views import history_view
from pipelines.labels.store.records import HistoryEntry

TASK = Task((Message(role="user", content="a question"),), tuple(Answer(text) for text in ("w", "x", "y", "z")))


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("ranking", (1, 2, 2, 3), "C > B = D > A"),  # shown as z, x, w, y
        ("ranking", (1, 1, 1, 1), "A = B = C = D"),
        ("scale", (5, 1, 3, 2), "A 2, B 1, C 5, D 3"),
        ("demonstration", "long " * 20, "long " * 12 + "…"),
    ],
)
def test_an_answer_is_told_by_the_places_on_the_page(kind: str, value: Value, told: str) -> None:
    label = Label(TASK.id, "ann", {"overall": value}, (3, 1, 0, 2), time="2026-11-21T18:00:00Z")
    entry = HistoryEntry(TASK, label, 1)
    assert history_view(entry, [Question("overall", kind, "")])["summary"] == told  # type: ignore[arg-type]


def test_several_questions_are_told_by_their_names() -> None:
    questions = [Question("overall", "ranking", ""), Question("fun_to_read", "scale", "")]
    label = Label(TASK.id, "ann", {"overall": (1, 2, 2, 3), "fun_to_read": (5, 1, 3, 2)}, (3, 1, 0, 2), comment="why")
    view = history_view(HistoryEntry(TASK, label, 1), questions)
    assert view["summary"] == "overall: C > B = D > A · fun to read: A 2, B 1, C 5, D 3"
    assert view["comment"] == "why"
    alone = replace(label, values={"fun_to_read": (5, 1, 3, 2)})  # of two questions only one was answered
    assert history_view(HistoryEntry(TASK, alone, 1), questions)["summary"] == "fun to read: A 2, B 1, C 5, D 3"
