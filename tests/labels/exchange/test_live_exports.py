"""What Label Studio 1.23.2 itself exported after tasks and configurations from here were answered in its pages.

`live/` holds what was sent out (`*.jsonl`) and both exports of each project, as they came.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.labels.exchange.gather import ReadingOptions
from pipelines.labels.exchange.label_files import read_labels

LIVE = Path(__file__).parent / "live"
ANSWERED: dict[str, list[dict[str, Any]]] = {
    # dragged; submitted untouched; dragged, with a comment. The answers were shown in the order 1, 2, 0.
    "tasks": [{"overall": (2, 1, 3)}, {"overall": (3, 1, 2)}, {"overall": (3, 2, 1)}],
    # shown in the order 1, 0: the left one is better; and a tie, answers and choices having the same words
    "pair": [
        {"better": (2, 1), "polite": (2, 4), "toxic": (0, 1)},
        {"better": (1, 1), "polite": (1, 5), "toxic": (1, 0)},
    ],
    "demo": [{"overall": "Snow falls\nquietly"}, {"overall": "Yes."}],
}
COMMENTS = {"tasks": ["", "", "odd prompt"], "pair": ["", ""], "demo": ["my remark", "my remark"]}


@pytest.mark.parametrize("form", ["JSON", "JSON_MIN"])
@pytest.mark.parametrize("project", ANSWERED)
def test_what_was_answered_comes_home(project: str, form: str) -> None:
    sent = read_labels(LIVE / f"{project}.jsonl")
    found = read_labels(LIVE / f"{project}.{form}.json", ReadingOptions(tasks=sent))
    labels = {label.task: label for label in found.labels}
    assert [labels[task].values for task in sent.tasks] == ANSWERED[project]
    assert [labels[task].comment for task in sent.tasks] == COMMENTS[project]
    assert all(label.seconds and label.time and not label.skipped for label in found.labels)
    assert found.tasks == sent.tasks, "models, and the order of the answers"
    bare = read_labels(LIVE / f"{project}.{form}.json")
    assert {label.task: label.values for label in bare.labels} == {name: label.values for name, label in labels.items()}
    assert [question.kind for question in bare.questions] == [question.kind for question in sent.questions]
