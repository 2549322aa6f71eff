"""Nothing is read from the order of JSON keys, which databases and programs on the way change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.feedback_section import PairsSection
from pipelines.errors import DataError, UsageError
from pipelines.labels.exchange.gather import ReadingOptions
from pipelines.labels.exchange.label_config import LabelConfig, read_config
from pipelines.labels.exchange.label_files import read_labels
from pipelines.labels.exchange.verdicts import NOT_READ, UNDISTRIBUTED
from pipelines.labels.label_types import LabelSet
from pipelines.labels.pairs.label_rows import build
from tests.labels.exchange.exports import (
    PAIR,
    RANKED,
    USERS,
    annotation,
    flat,
    minimal,
    ranker,
    response,
    result,
    selected,
    task,
    values,
    wire,
)

HERE = Path(__file__).parent
CONFIG = """<View><Text name="prompt" value="$prompt"/><List name="items" value="$items"/>
<Ranker name="rank" toName="items"><Bucket name="good" title="Good"/><Bucket name="bad"/></Ranker>
<TextArea name="why" toName="prompt"/></View>"""


def _reordered(value: Any, order: str) -> Any:
    """The same JSON value with its keys in another order."""
    if isinstance(value, list):
        return [_reordered(item, order) for item in value]
    if not isinstance(value, dict):
        return value
    keys = {
        "sorted": sorted(value),
        "jsonb": sorted(value, key=lambda key: (len(key), key)),
        "reversed": [*value][::-1],
    }
    return {key: _reordered(value[key], order) for key in keys[order]}


@pytest.fixture(params=["sorted", "jsonb", "reversed"])
def order(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("file", ["ranker_config_order", "ranker_jsonb_order"])
def test_buckets_have_the_order_of_the_configuration_or_of_the_option(file: str, tmp_path: Path) -> None:
    path = HERE / "faults" / f"{file}.json"
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert caught.value.where == f"{path}:row 1"
    (tmp_path / "config.xml").write_text(CONFIG)
    config = read_config(tmp_path / "config.xml")
    assert config == LabelConfig(("rank", "why"), {"rank": ("good", "bad")})
    for reading in (ReadingOptions(config=config), ReadingOptions(buckets=("good", "bad"))):
        assert values(read_labels(path, reading)) == [{"rank": (2, 1)}] * 3
    assert values(read_labels(path, ReadingOptions(buckets=("bad", "good")))) == [{"rank": (1, 2)}] * 3
    with pytest.raises(DataError):
        read_labels(path, ReadingOptions(buckets=("good", "poor")))


@pytest.mark.parametrize(
    ("buckets", "ranks", "undistributed"),
    [
        (("good", "fair", "bad"), (2, 1, 2), 0),
        (("bad", "fair", "good"), (1, 2, 1), 0),
    ],
)
def test_an_empty_bucket_ranks_nothing(export: Any, buckets: Any, ranks: Any, undistributed: int) -> None:
    said = {"bad": ["mdn", "blog"], "_": [], "fair": ["wiki"], "good": []}
    for row in (task(RANKED, annotation(ranker(said))), minimal(RANKED, {"rank": [{"ranker": said}]})):
        labels = export(row, buckets=buckets)
        assert (values(labels), labels.notes.get(UNDISTRIBUTED, 0)) == ([{"rank": ranks}], undistributed)


@pytest.mark.parametrize(
    ("buckets", "ranks", "undistributed"), [(("bad",), (1, 2, 2), 2), (("_", "bad"), (2, 1, 1), 0), ((), None, 0)]
)
def test_answers_in_no_bucket_rank_last_or_where_the_option_says(
    export: Any, buckets: Any, ranks: Any, undistributed: int
) -> None:
    row = task(RANKED, annotation(ranker({"_": ["wiki", "blog"], "bad": ["mdn"]})))
    if ranks is None:
        with pytest.raises(DataError):
            export(row)
    else:
        labels = export(row, buckets=buckets)
        assert (values(labels), labels.notes.get(UNDISTRIBUTED, 0)) == ([{"rank": ranks}], undistributed)


@pytest.mark.parametrize("text", ["", "<View>", "<View/>", "not XML", '<View><Text name="a" value="$a"/></View>'])
def test_a_configuration_that_is_none_is_bad_data(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.xml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_config(path)
    assert caught.value.where == str(path)


def _content(exported: LabelSet) -> Any:
    """Everything that is read, as a value that does not depend on the order of its keys."""
    labels = [
        (label.task, label.annotator, dict(label.values), label.comment, label.skipped) for label in exported.labels
    ]
    return exported.questions, exported.tasks, labels, exported.notes


BOTH = [result(name, name, "pairwise", {"selected": "left"}) for name in ("tone", "better")]
EXPORTS: dict[str, list[dict[str, Any]]] = {
    "pairwise": [task(PAIR, annotation(*BOTH, by={"id": 1, "email": "ann@example.org"}))],
    "ranker": [task(RANKED, annotation(ranker({"rank": ["wiki", "mdn", "blog"], "_": []})))],
    "models beside answers": [task(PAIR | {"model1": "x", "model2": "y"}, annotation(selected("left")))],
    "two sets of answers": [
        task({"prompt": "?", "answer1": "a", "answer2": "b", **PAIR}, annotation(selected("left")))
    ],
    "minimal": [minimal(PAIR, {"tone": [{"rating": 3}], "pw": [{"selected": "left"}]}, source="web")],
    "minimal with a choice": [minimal(PAIR | {"source": "web"}, {"better": "A"})],
    "minimal with a tie": [
        minimal(PAIR, {"pw": [{"selected": "left"}]}),
        minimal(PAIR, {"pw_tie": "tie"}, annotator=2),
    ],
    "a tie of one of two": [
        minimal(PAIR, {"tone": [{"selected": "left"}], "pw": [{"selected": "right"}], "t": [{"choices": ["tie"]}]})
    ],
    "argilla": [wire(response(USERS[0], tone="response_2", better="response_1", why="because"))],
    "argilla flat": [
        flat({"b.responses": ["tie"], "b.responses.users": ["u"], "a.responses": ["A"], "a.responses.users": ["u"]})
    ],
}


@pytest.mark.parametrize("ties_from_empty", [False, True])
@pytest.mark.parametrize("name", EXPORTS)
def test_the_same_export_in_another_order_is_read_alike_or_refused(
    export: Any, name: str, order: str, ties_from_empty: bool
) -> None:
    def read(rows: list[dict[str, Any]]) -> Any:
        try:
            return _content(export(*rows, ties_from_empty=ties_from_empty))
        except DataError:
            return None

    original, changed = read(EXPORTS[name]), read([_reordered(row, order) for row in EXPORTS[name]])
    assert changed in (original, None)
    assert (original is None) is (name == "two sets of answers")
    assert (changed is None) is (
        name in ("two sets of answers", "minimal with a choice", "minimal with a tie", "minimal")
    )


@pytest.mark.parametrize("form", ["JSON", "JSON_MIN"])
@pytest.mark.parametrize("project", ["tasks", "pair", "demo"])
def test_an_export_that_a_database_rewrote_is_read_with_the_tasks_that_were_sent_out(
    project: str, form: str, order: str, tmp_path: Path
) -> None:
    sent = ReadingOptions(tasks=read_labels(HERE / "live" / f"{project}.jsonl"))
    original = HERE / "live" / f"{project}.{form}.json"
    (tmp_path / "export.json").write_text(json.dumps(_reordered(json.loads(original.read_text()), order)))
    assert _content(read_labels(tmp_path / "export.json", sent)) == _content(read_labels(original, sent))


def test_the_configuration_names_the_results_of_a_reordered_record(export: Any, order: str) -> None:
    config = LabelConfig(("tone", "better", "comment"))
    row = minimal(PAIR | {"source": "web"}, {"better": "A", "tone": "B", "comment": "hm"})
    labels = export(_reordered(row, order), config=config)
    assert (values(labels), labels.labels[0].comment) == ([{"better": (1, 2), "tone": (2, 1)}], "hm")
    assert [question.name for question in labels.questions] == ["tone", "better"], "the order of the configuration"


@pytest.mark.parametrize("keys", [("text", "choices"), ("choices", "text")])
def test_a_choice_about_a_region_is_neither_a_choice_nor_a_text(export: Any, keys: tuple[str, str]) -> None:
    region = {key: {"text": "a span", "choices": ["A"]}[key] for key in keys}
    labels = export(minimal(PAIR, {"pw": [{"selected": "left"}], "span": [region]}))
    assert (values(labels), labels.labels[0].comment) == ([{"pw": (1, 2)}], "")
    assert labels.notes == {NOT_READ.format("span"): 1}


def test_a_tie_that_names_none_of_several_questions_is_counted(export: Any) -> None:
    tie = result("same", "text1", "choices", {"choices": ["tie"]})
    labels = export(task(PAIR, annotation(*BOTH), annotation(BOTH[0], tie, by=2)))
    assert values(labels)[1] == {"tone": (1, 2)}
    assert labels.notes == {NOT_READ.format("same"): 1}


def test_pairs_of_several_questions_need_the_name_of_one(export: Any) -> None:
    labels = export(task(PAIR, annotation(*BOTH)))
    assert [question.name for question in labels.questions] == ["better", "tone"]
    with pytest.raises(UsageError):
        build(labels, PairsSection())
    assert len(build(labels, PairsSection(question="tone")).rows) == 1
    assert (
        len(build(export(task(PAIR, annotation(*BOTH)), config=LabelConfig(("tone", "better"))), PairsSection()).rows)
        == 1
    )
    assert len(build(export(task(PAIR, annotation(BOTH[0]))), PairsSection()).rows) == 1
