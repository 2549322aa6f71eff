"""A record that nobody could train on is left out and counted; the others are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import DataError
from pipelines.labels.exchange.gather import LEFT_OUT
from pipelines.labels.exchange.label_files import read_labels
from pipelines.labels.exchange.verdicts import INCOMPLETE, NO_ANSWER, NOT_READ
from tests.labels.exchange.exports import (
    FIELDS,
    ITEMS,
    PAIR,
    RANKED,
    USERS,
    annotation,
    flat,
    minimal,
    nested,
    ranker,
    response,
    result,
    selected,
    task,
    values,
    wire,
)

GOOD = task(PAIR, annotation(selected("left")))
GOOD_RANKED = task(RANKED, annotation(ranker(["wiki", "mdn", "blog"])))
BETTER = response(USERS[0], better="response_1")
ONE_USER = {"b.responses": ["response_1"], "b.responses.users": [USERS[0]], "b.responses.status": ["submitted"]}
BLANK = {**FIELDS, "response_2": " "}


def pair(**data: Any) -> dict[str, Any]:
    return task({**PAIR, **data}, annotation(selected("right")))


def items(*entries: Any) -> dict[str, Any]:
    return task({"prompt": "a", "items": list(entries)}, annotation(ranker(["mdn", "wiki", "blog"])))


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (GOOD, pair(text2=""), "text2 is blank"),
        (GOOD, pair(text1=" \n"), "text1 is blank"),
        (GOOD, pair(text2=None), "text2 is null"),
        (flat(ONE_USER), flat(ONE_USER, {**FIELDS, "response_2": None}), "response_2 is null"),
        (wire(BETTER), wire(BETTER, fields={**FIELDS, "response_1": None}), "response_1 is null"),
        (GOOD, pair(text2=3), "text2 must be a text"),
        (GOOD, pair(prompt=" "), "prompt is blank"),
        (GOOD, pair(prompt=[{"role": "me", "content": "x"}]), "prompt[0].role"),
        (GOOD, pair(prompt=[{"role": "assistant", "content": "x"}]), "no user turn"),
        (GOOD, pair(prompt=None), "there is no prompt"),
        (GOOD_RANKED, items(ITEMS[0], 3), "items[1]"),
        (GOOD_RANKED, items(ITEMS[0], ""), "items[1] is blank"),
        (GOOD_RANKED, items({"id": "x", "body": ""}), "items[0]"),
        (GOOD_RANKED, items({"id": [], "body": "x"}), "items[0].id"),
        (GOOD_RANKED, items(ITEMS[0], ITEMS[0]), "the same id"),
        (
            minimal(PAIR, {"pw": [{"selected": "left"}]}),
            minimal({**PAIR, "text1": ""}, {"pw": "left"}),
            "text1 is blank",
        ),
        (minimal(PAIR, {"pw": [{"selected": "left"}]}), minimal({"a": "b"}, {}), "there is no prompt"),
        (wire(BETTER), wire(BETTER, fields=BLANK), "response_2 is blank"),
        (wire(BETTER), wire(BETTER, fields={**FIELDS, "prompt": ""}), "there is no prompt"),
        (nested({"b": [{"value": "response_1", "user_id": "u"}]}), nested({}, BLANK), "response_2 is blank"),
        (flat(ONE_USER), flat(ONE_USER, BLANK), "response_2 is blank"),
    ],
)
def test_a_record_without_a_usable_task_is_counted(export: Any, good: Any, bad: Any, reason: str) -> None:
    kept = export(good)
    labels = export(bad, good, bad)
    assert (labels.tasks, labels.labels) == (kept.tasks, kept.labels)
    (note,) = labels.notes.keys() - kept.notes.keys()
    assert reason in note
    assert note.endswith("(the first: row 1)")
    assert labels.notes[note] == 2
    with pytest.raises(DataError) as caught:
        export(bad)
    assert reason in caught.value.message
    assert (caught.value.where or "").endswith("export.json:row 1")


def test_one_blank_answer_leaves_the_other_pairs() -> None:
    labels = read_labels(Path(__file__).parent / "faults" / "labels_blank.json")
    assert values(labels) == [{"comparison": (1, 2)}]
    assert labels.notes == {LEFT_OUT.format("answer1 is blank", "row 2"): 1}


def test_a_comparison_of_one_answer_is_counted(export: Any) -> None:
    lone = task({"prompt": "a", "text1": "x"}, annotation(selected("left")))
    labels = export(GOOD, lone)
    assert values(labels) == [{"pw": (1, 2)}, {}]
    assert labels.notes[NOT_READ.format("pw")] == 1


@pytest.mark.parametrize(
    ("order", "strangers"), [(["mdn", "wiki"], 0), (["mdn", "wiki", "cat"], 1), (["mdn", "wiki", None], 1), ([], 0)]
)
def test_a_ranking_without_one_of_the_answers_is_counted(export: Any, order: Any, strangers: int) -> None:
    labels = export(GOOD_RANKED, task(RANKED, annotation(ranker({"rank": order}), by=2)))
    assert values(labels) == [{"rank": (2, 1, 3)}, {}]
    assert (labels.notes[INCOMPLETE], labels.notes.get(NO_ANSWER.format("rank"), 0)) == (1, strangers)


def test_optional_fields_that_a_record_lacks_are_passed_over_in_its_ranking(export: Any) -> None:
    """Argilla ranks the names of all fields, whether the record has them or not."""
    ranks = [{"value": f"response_{place}", "rank": rank} for place, rank in ((1, 3), (2, 1), (3, 2))]
    fewer = wire(response(USERS[0], ranking=ranks), fields={**FIELDS, "response_3": None})
    three = wire(response(USERS[0], ranking=ranks), fields={**FIELDS, "response_3": "c"})
    assert values(export(three, fewer)) == [{"ranking": (3, 1, 2)}, {"ranking": (2, 1)}]
    names = [{"value": ["response_3", "response_2", "response_1"], "user_id": "u"}]
    labels = export(nested({"ranking": names}))
    assert (values(labels), labels.notes[NO_ANSWER.format("ranking")]) == ([{"ranking": (2, 1)}], 1)


def test_a_number_with_decimals_is_counted(export: Any) -> None:
    odd = [result(f"n_{place}", f"text{place}", "number", {"number": 2.5}) for place in (1, 2)]
    labels = export(task(PAIR, annotation(selected("left"), *odd)))
    assert (values(labels), labels.notes) == ([{"pw": (1, 2)}], {NOT_READ.format("n_1"): 1, NOT_READ.format("n_2"): 1})
