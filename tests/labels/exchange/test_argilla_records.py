"""Argilla's records in each of their shapes."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.labels.exchange.argilla import NO_STATUS, TIES_LOST, settings
from pipelines.labels.exchange.gather import UNTOLD
from pipelines.labels.exchange.label_files import read_labels
from pipelines.labels.exchange.verdicts import NOT_READ
from pipelines.labels.label_types import LabelSet
from pipelines.labels.questions import parse_questions
from tests.labels.exchange.exports import FIELDS, USERS, flat, nested, response, values, wire

ONE, TWO = USERS


@pytest.fixture
def export(tmp_path: Path) -> Any:
    """Read a document as an export."""

    def read(document: Any) -> LabelSet:
        path = tmp_path / "records.json"
        path.write_text(json.dumps(document, indent=1))
        return read_labels(path)

    return read


def test_nested_records_have_no_ranks_and_no_status(export: Any) -> None:
    given = [{"value": ["response_2", "response_1"], "user_id": user} for user in USERS]
    found = export([nested({"ranking": given})])
    assert values(found) == [{"ranking": (2, 1)}] * 2
    assert [label.annotator for label in found.labels] == [ONE, TWO]
    assert found.notes == {TIES_LOST: 2, NO_STATUS: 2}
    (task,) = found.tasks.values()
    assert [answer.text for answer in task.answers] == [FIELDS["response_1"], FIELDS["response_2"]]


def test_flat_records_take_submitted_answers_only(export: Any) -> None:
    columns = {
        "ranking.responses": [["response_2", "response_1"]] * 2,
        "ranking.responses.users": [ONE, TWO],
        "ranking.responses.status": ["submitted", "draft"],
        "good_1.responses": [4],
        "good_1.responses.users": [ONE],
        "good_1.responses.status": ["submitted"],
        "good_2.responses": [2],
        "good_2.responses.users": [ONE],
        "good_2.responses.status": ["submitted"],
        "ranking.suggestion": ["response_1", "response_2"],
    }
    unanswered = dict.fromkeys(columns)
    found = export([flat(columns), flat(unanswered, {"prompt": "Why?", "response_1": "a", "response_2": "b"})])
    assert values(found) == [{"ranking": (2, 1), "good": (4, 2)}]
    assert len(found.tasks) == 2
    assert found.notes["drafts (not read)"] == 1


def test_the_wire_keeps_ties_and_discarded_records_are_skips(export: Any) -> None:
    tied = [{"value": name, "rank": 1} for name in ("response_2", "response_1")]
    late = {"updated_at": "2026-01-01T00:00:00"}
    record = wire(response(ONE, ranking=tied, comment="both fine") | late, response(TWO, "discarded"))
    record["responses"].append(response("third", "draft", ranking=tied))
    found = export([record])
    assert values(found) == [{"ranking": (1, 1)}, {}]
    assert [label.skipped for label in found.labels] == [False, True]
    assert found.labels[0].comment == "both fine"
    assert found.labels[0].time == "2026-01-01T00:00:00"
    assert found.notes == {"drafts (not read)": 1}


def test_ranks_are_ordered_by_rank_not_by_place(export: Any) -> None:
    ranks = [{"value": "response_1", "rank": 3}, {"value": "response_2", "rank": 1}]
    assert values(export([wire(response(ONE, ranking=ranks))])) == [{"ranking": (2, 1)}]


def test_the_page_of_the_server_that_wraps_records(export: Any) -> None:
    page = {"items": [wire(response(ONE, better="response_2")), wire(response(TWO, better="tie"))], "total": 2}
    found = export(page)
    assert values(found) == [{"better": (2, 1)}, {"better": (1, 1)}]


def test_what_says_nothing_of_the_answers_is_counted(export: Any) -> None:
    spans = [{"start": 0, "end": 2, "label": "x"}]
    found = export([wire(response(ONE, better="response_1", topics=["code", "math"], marks=spans))])
    assert values(found) == [{"better": (1, 2)}]
    assert found.notes == {NOT_READ.format("topics"): 1, NOT_READ.format("marks"): 1}


def test_a_remark_is_never_a_judgement(export: Any) -> None:
    best = [{"value": f"response_{place}", "rank": place} for place in (1, 2)]
    said = [response(ONE, ranking=best, comment="Same"), response(TWO, ranking=best, comment="B is better")]
    found = export([wire(*said)])
    assert values(found) == [{"ranking": (1, 2)}] * 2
    assert [label.comment for label in found.labels] == ["Same", "B is better"]
    assert [question.name for question in found.questions] == ["ranking"]


def test_the_text_of_a_choice_that_is_not_read_is_counted_and_kept_as_a_comment(export: Any) -> None:
    said = [response(ONE, better="response_1"), response(TWO, better="Reject A"), response("third", better="tie")]
    found = export([wire(*said)])
    assert values(found) == [{"better": (1, 2)}, {}, {"better": (1, 1)}]
    assert found.labels[1].comment == "Reject A"
    assert found.notes[NOT_READ.format("better")] == 1


def test_answers_of_users_without_an_id_are_kept_apart(export: Any) -> None:
    found = export([wire(*(response(ONE, better=f"response_{place}") | {"user_id": None} for place in (1, 2)))])
    assert [label.annotator for label in found.labels] == ["unknown-1", "unknown-2"]
    assert found.notes == {UNTOLD: 2}


def test_a_chat_as_the_prompt_and_a_demonstration(export: Any) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    found = export([wire(response(ONE, reply="Hello!"), fields={"prompt": chat})])
    (task,) = found.tasks.values()
    assert [(turn.role, turn.content) for turn in task.prompt] == [("system", "Be brief."), ("user", "Hi?")]
    assert values(found) == [{"reply": "Hello!"}]


def test_settings_are_python_and_hold_every_question() -> None:
    asked = parse_questions(['overall:ranking:Which "one"?', "safe:binary", "clear:scale3"])
    text = settings(asked, 3)
    names = {
        keyword.value.value
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)
    }
    assert {"prompt", "response_1", "response_3", "overall", "safe_1", "clear_3", "comment", "rlhf_order"} <= names
    assert "values=[1, 2, 3]" in text
    assert "values=[0, 1]" in text
