"""Every malformed export ends with its file, the record and the reason; never with a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import DataError
from pipelines.labels.exchange.label_files import read_labels
from tests.labels.exchange.exports import (
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
    wire,
)

GOOD = task(PAIR, annotation(selected("left")))
GOOD_RANKED = task(RANKED, annotation(ranker(["mdn", "wiki", "blog"])))
GOOD_MINIMAL = minimal(PAIR, {"pw": [{"selected": "left"}]})
GOOD_NESTED = nested({"ranking": [{"value": ["response_1", "response_2"], "user_id": USERS[0]}]})
GOOD_WIRE = wire(response(USERS[0], better="response_1"))
ONE_USER = {"r.responses.users": [USERS[0]], "r.responses.status": ["submitted"]}
GOOD_FLAT = flat({"r.responses": [["response_1", "response_2"]], **ONE_USER})


def rank(*keys: Any) -> dict[str, Any]:
    return task(RANKED, annotation(ranker({"rank": list(keys)})))


def pair(*results: dict[str, Any], data: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return task(data or PAIR, annotation(*results, **more))


def ranked(*items: tuple[Any, Any]) -> dict[str, Any]:
    return wire(response(USERS[0], r=[{"value": value, "rank": number} for value, number in items]))


HOME = {"task": "t", "order": [0, 1]}
SECOND: list[tuple[dict[str, Any], Any, str]] = [
    (GOOD, 5, "must be an object, not a number"),
    (GOOD, {"annotations": []}, "this is no file of labels; the first record has annotations"),
    (GOOD, GOOD_NESTED, "the record is of another kind than the first one"),
    (GOOD, {"data": PAIR, "annotations": 3}, "annotations: must be a list"),
    (GOOD, {"data": PAIR, "annotations": [3]}, "annotations[0]: must be an object"),
    (GOOD, {"data": PAIR, "annotations": [{}]}, "annotations[0].result: missing"),
    (GOOD, pair({"id": "x"}), "annotations[0].result[0].type: missing"),
    (GOOD, pair({"type": "pairwise", "value": {"selected": "left"}}), "annotations[0].result[0]: from_name: missing"),
    (GOOD, pair({"type": "pairwise", "from_name": "pw"}), "annotations[0].result[0]: value.selected: missing"),
    (GOOD, pair(selected("middle")), "selected must be 'left' or 'right', not 'middle'"),
    (GOOD, pair(selected("left"), selected("left")), "`pw` is answered twice"),
    (GOOD, pair(selected("left"), by=[1]), "completed_by"),
    (GOOD, pair(selected("left"), was_cancelled="no"), "was_cancelled: must be true or false"),
    (GOOD, pair(selected("left"), lead_time=-1), "lead_time"),
    (GOOD, pair(selected("left"), lead_time="4"), "lead_time: must be a number"),
    (GOOD, pair(selected("left"), data={**PAIR, "text3": "c"}), "chooses one of two answers, and the task has 3"),
    (GOOD, pair(result("g", "text1", "rating", {"rating": "4"})), "rating must be a whole number, not '4'"),
    (GOOD, pair(result("g", "text1", "rating", {"rating": 4.5})), "rating must be a whole number, not a number"),
    (GOOD, pair(*[result("g", "text1", "rating", {"rating": 4})] * 2), "`g` judges the same answer twice"),
    (GOOD, pair(result("t", "text1", "choices", {"choices": "tie"})), "choices must be a list of texts, not text"),
    (GOOD, pair(result("t", "text1", "textarea", {"text": [1]})), "text must be a text or a list of texts"),
    (GOOD, pair(selected("left"), data={**PAIR, "rlhf": 3}), "rlhf: must be an object, not a number"),
    (GOOD, pair(selected("left"), data={**PAIR, "rlhf": {}}), "rlhf: task: missing"),
    (GOOD, pair(selected("left"), data={**PAIR, "rlhf": {**HOME, "order": [0, 2]}}), "rlhf.order: [0, 2] is not"),
    (GOOD, pair(selected("left"), data={**PAIR, "rlhf": {**HOME, "more": 1}}), "rlhf: more"),
    (
        pair(selected("left"), data={**PAIR, "rlhf": HOME}),
        pair(selected("left"), data={**PAIR, "text1": "other", "rlhf": HOME}),
        "the task t is in the file twice",
    ),
    (GOOD_RANKED, rank("mdn", "wiki", "wiki"), "`rank` ranks the answer 'wiki' twice"),
    (GOOD_RANKED, pair(ranker(3), data=RANKED), "ranker: must be a list of ids, or an object of such lists"),
    (GOOD_RANKED, pair(ranker({"best": "mdn"}), data=RANKED), "ranker: must be a list of ids"),
    (GOOD_RANKED, pair(ranker({}), data=RANKED), "ranker: must be a list of ids"),
    (GOOD_MINIMAL, minimal(PAIR, {"pw": [{"selected": "up"}]}), "pw: selected must be 'left' or 'right', not 'up'"),
    (GOOD_MINIMAL, minimal(PAIR, {"pw": [{"selected": "left"}, 3]}), "pw: must be a result such as"),
    (GOOD_MINIMAL, minimal(PAIR, {}, lead_time="4"), "lead_time: must be a number"),
    (GOOD_NESTED, nested(3), "responses: must be a list or an object, not a number"),
    (GOOD_NESTED, nested({"ranking": 3}), "responses.ranking: must be a list, not a number"),
    (GOOD_NESTED, nested({"ranking": [{"value": 3}]}), "responses: user_id: missing"),
    (GOOD_NESTED, nested({"r": [{"value": {"a": 1}, "user_id": "u"}]}), "r: must be a number, a text or a list"),
    (GOOD_NESTED, nested({}, metadata=3), "metadata: must be an object, not a number"),
    (GOOD_NESTED, nested({}, metadata={"rlhf_order": [1]}), "rlhf_order: must be numbers such as '2,0,1'"),
    (GOOD_NESTED, nested({}, metadata={"rlhf_order": "0"}), "rlhf.order: [0] is not an order of 2 answers"),
    (GOOD_WIRE, wire(response(USERS[0], "done")), "responses: status: must be"),
    (GOOD_WIRE, wire({"status": "submitted", "values": {"r": 3}}), "an answer must be an object with a value"),
    (GOOD_WIRE, ranked(("response_1", "1")), "a ranked answer must have a value and a whole number as rank"),
    (GOOD_WIRE, wire(response(USERS[0], r=True)), "r: must be a number, a text or a list, not true/false"),
    (
        GOOD_FLAT,
        flat({"r.responses": [3], "r.responses.users": [USERS[0]], "r.responses.status": []}),
        "r.responses: has 1",
    ),
    (GOOD_FLAT, flat({"r.responses": [3], **ONE_USER, "r.responses.users": [7]}), "r.responses.users: must be texts"),
    (GOOD_FLAT, flat({"r.responses": [3], **ONE_USER, "r.responses.status": ["x"]}), "r.responses.status: must be"),
    (GOOD_FLAT, flat({"r.responses": 3, **ONE_USER}), "r.responses: must be a list"),
]


@pytest.mark.parametrize("number", range(len(SECOND)))
def test_a_bad_second_record(number: int, tmp_path: Path) -> None:
    first, second, reason = SECOND[number]
    path = tmp_path / "export.json"
    path.write_text(json.dumps([first, second]))
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert reason in caught.value.message
    assert caught.value.where == f"{path}:row 2"


WHOLE: list[tuple[str, str, str]] = [
    ("", "the file holds nothing", ""),
    ("[]", "the file holds nothing", ""),
    ("[1", "not valid JSON", ":1"),
    ("hello", "must be one array of objects", ":1"),
    ('{"data": {', "not valid JSON", ":1"),
    ('[{"data": {}, "data": {}}]', "data: the key stands twice", ":row 1"),
    ('[{"a": 1}]', "this is no file of labels; the first record has a", ":row 1"),
    ('[{"prompt": "a", "chosen": "b", "rejected": "c"}]', "this is no file of labels", ":row 1"),
    ('{"items": [3]}', "must be an object, not a number", ":items 1"),
    (json.dumps([task(PAIR)]), "no annotation answers a question that can be read", ""),
    (json.dumps([pair(result("x", "y", "labels", {}))]), "no annotation answers a question that can be read", ""),
    (
        json.dumps([pair(selected("left")), pair(result("pw", "text1", "textarea", {"text": ["x"]}))])[:-1],
        "not valid JSON",
        ":1",
    ),
    (
        json.dumps(
            [
                pair(selected("left")),
                pair(result("pw_1", "x", "rating", {"rating": 1}), result("pw_2", "x", "rating", {"rating": 2}))
                | {"data": {**PAIR, "prompt": "b"}},
                pair(result("pw", "x", "rating", {"rating": 2})) | {"data": {"prompt": "c", "text": "x"}},
            ]
        ),
        "`pw` is answered in two ways: pairwise and scale",
        "",
    ),
    ('{"rlhf": "tasks", "version": 2}', "version", ":1"),
]


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_a_file_that_is_none(number: int, tmp_path: Path) -> None:
    text, reason, place = WHOLE[number]
    path = tmp_path / "export.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert reason in caught.value.message
    assert caught.value.where == f"{path}{place}"


def test_all_good_ones_are_good(tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    for good in (GOOD, GOOD_RANKED, GOOD_MINIMAL, GOOD_NESTED, GOOD_WIRE, GOOD_FLAT):
        path.write_text(json.dumps([good]))
        assert len(read_labels(path).labels) == 1
