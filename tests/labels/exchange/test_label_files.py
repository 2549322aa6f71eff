"""Labels from any file: what it is, its content tells; random documents end in words, not in tracebacks."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.rows import Message
from pipelines.errors import DataError
from pipelines.labels.exchange.gather import ADRIFT, ReadingOptions
from pipelines.labels.exchange.label_files import ACCEPTED, read_labels
from pipelines.labels.label_types import Answer, Label, LabelSet, Question, Task, with_pseudonyms
from pipelines.labels.store.records import Settings, Submission
from pipelines.labels.store.store import LabelStore
from pipelines.labels.tasks_file import write_tasks
from tests.labels.exchange import exports

ASKED = (Question("overall", "ranking", "Which?"),)
TASK = Task((Message(role="user", content="Hi?"),), (Answer("a", "m"), Answer("b", "m"), Answer("c")))
GIVEN = Label(TASK.id, "ann", {"overall": (2, 1, 1)}, (2, 0, 1), 3.5, comment="so", time="2026-11-21T18:00:00Z")


def test_a_tasks_file_whatever_its_name(tmp_path: Path) -> None:
    found = LabelSet(ASKED, {TASK.id: TASK}, [GIVEN])
    for name in ("tasks.jsonl", "tasks.json", "tasks"):
        write_tasks(tmp_path / name, found)
        assert read_labels(tmp_path / name) == found


def test_a_label_store_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    with LabelStore.create(path, Settings("test", ASKED)) as store:
        store.add_tasks([TASK])
        store.add_annotator("ann")
        shown = store.next_task("ann")
        assert shown is not None
        store.submit("ann", TASK.id, Submission({"overall": (2, 1, 1)}, key="k", version=shown.version))
    found = read_labels(path)
    assert found.tasks == {TASK.id: TASK}
    assert [(label.annotator, dict(label.values)) for label in found.labels] == [("ann", {"overall": (2, 1, 1)})]


@pytest.mark.parametrize("indent", [None, 1])
def test_one_object_on_one_line_or_on_several(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(exports.task(exports.PAIR, exports.annotation(exports.selected("left"))), indent=indent))
    assert len(read_labels(path).labels) == 1


@pytest.mark.parametrize("written", [json.dumps, str])
@pytest.mark.parametrize("name", ["pair", "demo", "tasks"])
def test_the_csv_export_of_label_studio_holds_what_its_json_min_does(
    tmp_path: Path, name: str, written: Callable[[Any], str]
) -> None:
    """A list stands in a cell as JSON or as Python prints it, by the version of Label Studio."""
    minimal = Path(__file__).parent / "live" / f"{name}.JSON_MIN.json"
    rows = json.loads(minimal.read_text())
    about = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")
    task = [name for name in rows[0] if name in ("prompt", "items", "text1", "text2", "text3", "rlhf")]
    said = [name for row in rows for name in row if name not in (*task, *about, "id")]
    path = tmp_path / "export.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys([*task, "text1", "id", *said, *about])))
        table.writeheader()
        table.writerows(
            {key: value if isinstance(value, str) else written(value) for key, value in row.items()} for row in rows
        )
    assert read_labels(path) == read_labels(minimal)


@pytest.mark.parametrize("tasks", [True, False])
def test_packed_files_are_read(tmp_path: Path, tasks: bool) -> None:
    plain = tmp_path / "plain.jsonl"
    if tasks:
        write_tasks(plain, LabelSet(ASKED, {TASK.id: TASK}, [GIVEN]))
    else:
        plain.write_text(json.dumps(exports.task(exports.PAIR, exports.annotation(exports.selected("left")))))
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_labels(packed) == read_labels(plain)


def test_lines_of_records(tmp_path: Path) -> None:
    rows = [exports.wire(exports.response(user, better="response_1")) for user in exports.USERS]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"fields": 3}\n')
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert caught.value.where == f"{path}:3"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [label.annotator for label in read_labels(path).labels] == list(exports.USERS)


def test_what_is_missing_or_something_else_says_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_labels(tmp_path / "none.json")
    with pytest.raises(DataError, match="directory"):
        read_labels(tmp_path)
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert ACCEPTED in (caught.value.hint or "")
    path.write_bytes(b"SQLite format 3\0" + b"x" * 100)
    with pytest.raises(DataError):
        read_labels(path)


def test_questions_come_back_as_they_were_sent_out(tmp_path: Path) -> None:
    sent = LabelSet((Question("pw", "ranking", "Which one?"), Question("left", "scale", "")), {}, [])
    path = tmp_path / "export.json"
    path.write_text(json.dumps([exports.task(exports.PAIR, exports.annotation(exports.selected("left")))]))
    assert read_labels(path, ReadingOptions(tasks=sent)).questions == sent.questions
    assert read_labels(path, ReadingOptions(tasks=sent)).notes == {ADRIFT: 1}
    wrong = LabelSet((Question("pw", "scale", ""),), {}, [])
    with pytest.raises(DataError, match="`pw` was sent out as scale and comes back as pairwise"):
        read_labels(path, ReadingOptions(tasks=wrong))


def test_pseudonyms() -> None:
    labels = [Label("t", name, {}) for name in ("bob", "ann", "bob")]
    named = with_pseudonyms(LabelSet(ASKED, {}, labels))
    assert [label.annotator for label in named.labels] == ["annotator-01", "annotator-02", "annotator-01"]
    named = with_pseudonyms(LabelSet(ASKED, {}, labels), ["ann", "bob"])
    assert [label.annotator for label in named.labels] == ["annotator-02", "annotator-01", "annotator-02"]
    labels = [Label("t", name, {}) for name in ("unknown-1", "unknown-ann", "unknown-12")]
    named = with_pseudonyms(LabelSet(ASKED, {}, labels))
    assert [label.annotator for label in named.labels] == ["unknown-1", "annotator-01", "unknown-12"]


GOOD = [
    exports.task(exports.PAIR, exports.annotation(exports.selected("left"), exports.selected("right"))),
    exports.task(exports.RANKED, exports.annotation(exports.ranker({"_": ["mdn"], "best": ["wiki", "blog"]}))),
    exports.task({**exports.PAIR, "rlhf": {"task": "t", "order": [1, 0]}}, exports.annotation()),
    exports.task(exports.PAIR, exports.annotation(exports.result("q_1", "text1", "rating", {"rating": 2}))),
    exports.minimal(exports.RANKED, {"rank": [{"ranker": ["mdn", "wiki", "blog"]}], "tie": "tie"}),
    exports.nested({"r": [{"value": ["response_2", "response_1"], "user_id": "u"}]}, metadata={"rlhf_order": "1,0"}),
    exports.flat({"r.responses": [1], "r.responses.users": ["u"], "r.responses.status": ["submitted"]}),
    exports.wire(exports.response("u", r=[{"value": "response_2", "rank": 1}, {"value": "response_1", "rank": 1}])),
]


PIECES = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        3,
        1.5,
        "",
        " ",
        "x",
        "left",
        "tie",
        "1",
        "prompt",
        "text1",
        "items",
        "id",
        "value",
    ),
    *("selected", "ranker", "rank", "choices", "rating", "text", "data", "rlhf", "order", "response_1", "r.responses"),
)


def anything(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(9)
    if kind < 5 or depth > 2:
        return chance.choice(PIECES)
    if kind < 7:
        return [anything(chance, depth + 1) for _ in range(chance.randrange(3))]
    return {str(chance.choice(PIECES)): anything(chance, depth + 1) for _ in range(chance.randrange(4))}


def change(chance: random.Random, at: Any) -> None:
    """Leave out, add or replace one value somewhere in a document."""
    while at:
        key = chance.choice(list(range(len(at))) if isinstance(at, list) else list(at))
        if isinstance(at[key], list | dict) and at[key] and chance.random() < 0.8:
            at = at[key]
            continue
        what = chance.randrange(4)
        if what == 0:
            del at[key]
        elif what == 1 and isinstance(at, dict):
            at[str(chance.choice(PIECES))] = anything(chance)
        else:
            at[key] = anything(chance)
        return


def test_random_documents_are_read_or_refused_in_words(tmp_path: Path) -> None:
    chance, path = random.Random(0), tmp_path / "export.json"
    count = {"read": 0, "refused": 0}
    for number in range(1500):
        document = [json.loads(json.dumps(chance.choice(GOOD))) for _ in range(chance.randrange(1, 3))]
        for _ in range(chance.randrange(1, 4)):
            change(chance, document)
        path.write_text(json.dumps(document if number % 10 else anything(chance)))
        try:
            found = read_labels(path, ReadingOptions(ties_from_empty=number % 2 == 0, choices={"left": 1, "x": 7}))
        except DataError as error:
            if not (error.where or "").startswith(str(path)):
                raise
            count["refused"] += 1
            continue
        count["read"] += 1
        for label in found.labels:
            task = found.tasks[label.task]
            for name, value in label.values.items():
                assert found.question(name).fault(value, len(task.answers)) is None
    assert min(count.values()) > 150
