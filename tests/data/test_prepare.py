"""The data stages: what they count, what they write, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.data import read, sources
from pipelines.data.canonical import prompt_of, read_rows, write_rows
from pipelines.data.prepare import comparisons, demonstrations, effective_sources, prompts
from pipelines.data.rows import Comparison, Demonstration, Message, Prompt
from pipelines.data.sources.record import Record
from pipelines.data.split import is_held_out, share_of, split_key
from pipelines.errors import ArtifactError, DataError, UsageError
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import StageContext
from tests.recorders import Recorder


def context(out: Path, **data: Any) -> StageContext:
    out.mkdir(exist_ok=True)
    return StageContext(Config.model_validate({"data": data}), out, {}, Recorder())


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def pairs(n: int) -> list[dict[str, str]]:
    return [{"prompt": f"Question {i}?", "chosen": f"Yes {i}", "rejected": f"No {i}"} for i in range(n)]


def test_ties_are_left_out_and_counted(tmp_path: Path) -> None:
    answers = {"answer_1": "a", "answer_2": "b"}
    rows = [{"prompt": f"Question {i}?", **answers, "winner": "tie" if i % 10 == 0 else 1 + i % 2} for i in range(40)]
    ctx = context(tmp_path / "out", comparisons=jsonl(tmp_path / "a.jsonl", rows), eval_fraction=0.2)
    metrics = comparisons(ctx)
    assert (metrics["rows_read"], metrics["rows"], metrics["ties"]) == (40, 36, 4)
    assert any("0 bad, 4 ties" in text for text in map(str, vars(ctx.reporter).values()))


def test_comparisons_are_read_cleaned_and_split(tmp_path: Path) -> None:
    rows = pairs(100)
    equal = {"prompt": "Same?", "chosen": "One ", "rejected": " One"}
    other_annotator = {**rows[1], "annotator": "ann"}
    source = jsonl(tmp_path / "a.jsonl", [*rows, rows[0], equal, other_annotator])
    ctx = context(tmp_path / "out", comparisons=source, eval_fraction=0.2)
    metrics = comparisons(ctx)
    train = list(read_rows(ctx.out / "train.jsonl", Comparison))
    heldout = list(read_rows(ctx.out / "heldout.jsonl", Comparison))
    assert all(is_held_out(row.prompt, 0.2) for row in heldout)
    assert not any(is_held_out(row.prompt, 0.2) for row in train)
    assert sorted(row.chosen for row in train + heldout) == sorted(f"Yes {i}" for i in [*range(100), 1])
    assert metrics == {
        "rows_read": 103,
        "rows": 103,
        "train": len(train),
        "heldout": len(heldout),
        "train_prompts": len({row.prompt for row in train}),
        "heldout_prompts": len({row.prompt for row in heldout}),
        "duplicates": 1,
        "equal_pairs": 1,
        "ties": 0,
        "thinned": 0,
        "repeated": 0,
        "bad": 0,
        "sources": [{"path": source, "format": "preference", "rows_read": 103, "rows": 103, "bad": 0}],
    }
    assert sorted(path.name for path in ctx.out.iterdir()) == ["heldout.jsonl", "train.jsonl"]


def test_one_file_serves_all_kinds_and_no_prompt_changes_sides(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", [*pairs(60), {"prompt": "Question 0?", "chosen": "Maybe", "rejected": "No"}])
    sides: dict[str, list[set[str]]] = {"train": [], "heldout": []}
    for stage, kind in ((demonstrations, Demonstration), (comparisons, Comparison), (prompts, Prompt)):
        ctx = context(tmp_path / stage.keywords["name"], comparisons=source)
        metrics = stage(ctx)
        for side, found in sides.items():
            rows = list(read_rows(ctx.out / f"{side}.jsonl", kind))
            found.append({(row.messages if kind is Demonstration else row.prompt)[0].content for row in rows})
        assert metrics["duplicates"] == (1 if kind is Prompt else 0)
    assert sides["train"][0] == sides["train"][1] == sides["train"][2]
    assert sides["heldout"][0] == sides["heldout"][1] == sides["heldout"][2]
    assert not sides["train"][0] & sides["heldout"][0]


def test_fallbacks_between_kinds() -> None:
    def paths(kind: str, **data: Any) -> list[str]:
        return [source.path for source in effective_sources(Config.model_validate({"data": data}), kind)]  # type: ignore

    assert paths("prompts", prompts="p.txt", comparisons="c.json") == ["p.txt"]
    assert paths("prompts", comparisons=["c.json", "d.json"], demonstrations="e.json") == ["c.json", "d.json"]
    assert paths("prompts", demonstrations="e.json") == ["e.json"]
    assert paths("demonstrations", comparisons="c.json") == ["c.json"]
    assert paths("comparisons", task={}) == []
    with pytest.raises(UsageError) as caught:
        paths("comparisons", demonstrations="e.json")
    assert "data.comparisons" in str(caught.value.hint)


BAD_ROWS = [
    *pairs(40),
    {"prompt": "a", "chosen": None, "rejected": "b"},
    {"prompt": "a", "chosen": "b"},
    '{"prompt": "a", ',
    *({"prompt": "a", "chosen": 1, "rejected": "b"} for _ in range(30)),
]


def test_bad_rows_fail_with_places_and_counts(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", BAD_ROWS)
    with pytest.raises(DataError) as caught:
        comparisons(context(tmp_path / "out", comparisons=source))
    assert caught.value.where == f"{source}:41"
    lines = caught.value.message.splitlines()
    assert lines[0] == "33 of 73 rows are bad:"
    assert lines[1] == f"  {source}:41: chosen: must be text, not null"
    assert lines[2] == f"  {source}:42: rejected: missing"
    assert lines[3].startswith(f"  {source}:43: not valid JSON (column 17")
    assert lines[21] == "  ... and 13 more"
    assert lines[22].startswith("by kind: 30 x chosen: must be text, not a number; 1 x ")
    assert "on_bad_row" in str(caught.value.hint)


def test_bad_rows_are_dropped_and_listed(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", [*BAD_ROWS, '{"prompt": "\\ud800"}'])
    ctx = context(tmp_path / "out", comparisons=source, on_bad_row="drop")
    metrics = comparisons(ctx)
    assert (metrics["bad"], metrics["train"] + metrics["heldout"]) == (34, 40)
    rejects = [json.loads(line) for line in (ctx.out / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == 34
    assert rejects[0] == {
        "place": f"{source}:41",
        "field": "chosen",
        "reason": "must be text, not null",
        "detail": "",
        "text": '{"prompt": "a", "chosen": null, "rejected": "b"}',
    }
    assert isinstance(ctx.reporter, Recorder)
    assert "34 of 74" in ctx.reporter.warned[0]


def test_limit_and_several_sources(tmp_path: Path) -> None:
    first = jsonl(tmp_path / "a.jsonl", pairs(30))
    second = tmp_path / "b.txt"
    second.write_text("".join(f"Line {i}\n" for i in range(30)))
    ctx = context(tmp_path / "out", prompts=[{"path": first, "limit": 25}, str(second)])
    metrics = prompts(ctx)
    assert [(s["format"], s["rows_read"]) for s in metrics["sources"]] == [("preference", 25), ("prompt", 30)]


def written(ctx: StageContext) -> tuple[list[str], list[str]]:
    """The prompts of both sides, as often as they were written."""
    sides = (read_rows(ctx.out / f"{side}.jsonl", Comparison) for side in ("train", "heldout"))
    train, heldout = ([row.prompt[0].content for row in rows] for rows in sides)
    return train, heldout


def test_weights_thin_and_repeat_what_is_trained_on_and_nothing_else(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", pairs(400))
    found = {}
    for weight in (1.0, 0.5, 0.25, 2.0, 2.5):
        ctx = context(tmp_path / str(weight), comparisons={"path": source, "weight": weight})
        metrics = comparisons(ctx)
        found[weight], heldout = written(ctx)
        assert set(heldout) == {f"Question {i}?" for i in range(400)} - set(written_plain(tmp_path))
        assert len(heldout) == len(set(heldout)) == metrics["heldout"]
        assert metrics["train"] == len(found[weight])
        assert metrics["train_prompts"] == len(set(found[weight]))
        assert metrics["thinned"] == len(found[1.0]) - len(set(found[weight]))
        assert metrics["repeated"] == len(found[weight]) - len(set(found[weight]))
    whole = len(found[1.0])
    assert abs(len(found[0.5]) - whole / 2) < 40  # 4 standard deviations.
    assert set(found[0.25]) < set(found[0.5]) < set(found[1.0])
    assert sorted(found[2.0]) == sorted(found[1.0] * 2)
    assert abs(len(found[2.5]) - whole * 2.5) < 40


def written_plain(tmp_path: Path) -> list[str]:
    """The prompts to train on at weight 1."""
    return [row.prompt[0].content for row in read_rows(tmp_path / "1.0" / "train.jsonl", Comparison)]


def test_every_source_has_its_own_weight(tmp_path: Path) -> None:
    first = jsonl(tmp_path / "a.jsonl", pairs(100))
    second = jsonl(tmp_path / "b.jsonl", [{**row, "prompt": "B " + row["prompt"]} for row in pairs(100)])
    ctx = context(tmp_path / "out", comparisons=[first, {"path": second, "weight": 3}])
    comparisons(ctx)
    train, _ = written(ctx)
    assert {train.count(text) for text in train if text.startswith("B")} == {3}
    assert {train.count(text) for text in train if not text.startswith("B")} == {1}


def test_a_row_that_one_source_leaves_out_still_comes_with_the_next(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", pairs(100))
    metrics = comparisons(context(tmp_path / "out", comparisons=[{"path": source, "weight": 0.2}, source]))
    assert metrics["train_prompts"] + metrics["heldout_prompts"] == 100
    assert metrics["train"] + metrics["heldout"] == 100
    assert metrics["thinned"] + metrics["duplicates"] == 100
    assert metrics["thinned"] > 50


def test_no_answer_to_a_held_out_prompt_is_trained_on_inside_a_longer_dialogue(tmp_path: Path) -> None:
    def dialogue(*texts: str) -> dict[str, Any]:
        roles = ("user", "assistant") * 2
        return {"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]}

    rows = [dialogue(f"q{i}", f"a{i}", *more) for i in range(100) for more in ((), ("more", "b"))]
    ctx = context(tmp_path / "out", demonstrations=jsonl(tmp_path / "a.jsonl", rows))
    metrics = demonstrations(ctx)
    train, heldout = (list(read_rows(ctx.out / f"{side}.jsonl", Demonstration)) for side in ("train", "heldout"))
    assert {row.messages[0] for row in heldout}.isdisjoint(row.messages[0] for row in train)
    assert (metrics["train_prompts"], metrics["heldout_prompts"]) == (len(train), len(heldout))


def test_weights_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", pairs(20))
    with pytest.raises(DataError, match="weights of the sources leave none of"):
        comparisons(context(tmp_path / "out", comparisons={"path": source, "weight": 1e-9}))


def test_records_and_the_rows_that_they_hold_are_counted_apart(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "responses": ["a", "b", "c"], "scores": [3, 2, 1]} for i in range(20)]
    ctx = context(tmp_path / "out", comparisons=jsonl(tmp_path / "a.jsonl", rows))
    metrics = comparisons(ctx)
    assert (metrics["rows_read"], metrics["rows"], metrics["train"] + metrics["heldout"]) == (20, 60, 60)
    assert (metrics["sources"][0]["rows_read"], metrics["sources"][0]["rows"]) == (20, 60)


def test_the_commit_of_a_hub_data_set_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Record(f"org/set/train:row {i}", "", row) for i, row in enumerate(pairs(30))]
    monkeypatch.setattr(sources, "open_hub", lambda wanted: (iter(rows), "abc"))
    ctx = context(tmp_path / "out", comparisons="org/set")
    comparisons(ctx)
    assert ctx.notes["dataset_revisions"] == {"org/set": "abc"}


def test_no_prompt_to_train_on_is_refused_with_a_fraction_that_works(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", pairs(4))
    with pytest.raises(DataError) as caught:
        prompts(context(tmp_path / "out", comparisons=source, eval_fraction=0.999))
    suggested = float(str(caught.value.hint).split()[3])
    metrics = prompts(context(tmp_path / "out", comparisons=source, eval_fraction=suggested))
    assert metrics["train"] > 0 < metrics["heldout"]


@pytest.mark.parametrize(("count", "fewest"), [(2, 1), (3, 2), (4, 2), (28, 2)])
def test_some_prompts_are_held_out_however_small_the_fraction(tmp_path: Path, count: int, fewest: int) -> None:
    rows = [{**row, "rejected": text} for row in pairs(count) for text in ("no", "never")]
    source = {"path": jsonl(tmp_path / "a.jsonl", rows), "weight": 2}
    ctx = context(tmp_path / "out", comparisons=[source], eval_fraction=0.0001)
    metrics = comparisons(ctx)
    train, heldout = (list(read_rows(ctx.out / f"{side}.jsonl", Comparison)) for side in ("train", "heldout"))
    assert (metrics["heldout_prompts"], metrics["train_prompts"]) == (fewest, count - fewest)
    assert (len(heldout), len(train)) == (2 * fewest, 4 * (count - fewest))  # held-out rows stand there once
    assert (metrics["heldout"], metrics["train"], metrics["repeated"]) == (len(heldout), len(train), len(train) // 2)
    shares = [{share_of(split_key(row.prompt)) for row in side} for side in (heldout, train)]
    assert max(shares[0]) < min(shares[1])  # as a larger fraction would have it


def test_the_same_prompts_are_held_out_of_every_kind(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", pairs(9))
    sides = []
    for stage, kind in ((demonstrations, Demonstration), (comparisons, Comparison), (prompts, Prompt)):
        ctx = context(tmp_path / stage.keywords["name"], comparisons=source, eval_fraction=0.0001)
        assert stage(ctx)["heldout_prompts"] == 2
        sides.append({split_key(prompt_of(row)) for row in read_rows(ctx.out / "heldout.jsonl", kind)})
    assert sides[0] == sides[1] == sides[2]


def test_what_one_small_file_holds_out_is_held_out_of_all(tmp_path: Path) -> None:
    many = pairs(30)
    lowest = sorted(many, key=lambda row: share_of(split_key((Message(role="user", content=row["prompt"]),))))
    data = {
        "comparisons": jsonl(tmp_path / "all.jsonl", many),
        "prompts": jsonl(tmp_path / "few.jsonl", [{"prompt": row["prompt"].upper()} for row in lowest[9:15]]),
        "eval_fraction": 0.0001,
    }
    sides = {}
    for stage, kind in ((demonstrations, Demonstration), (comparisons, Comparison), (prompts, Prompt)):
        ctx = context(tmp_path / stage.keywords["name"], **data)
        stage(ctx)
        sides[kind] = [
            {split_key(prompt_of(row)) for row in read_rows(ctx.out / f"{side}.jsonl", kind)}
            for side in ("train", "heldout")
        ]
    assert len(sides[Prompt][1]) == 2
    assert not sides[Prompt][1] & sides[Demonstration][0]
    assert not sides[Prompt][1] & sides[Comparison][0]
    assert len(sides[Demonstration][0]) == len(sides[Comparison][0]) == 30 - 4


def test_one_prompt_or_no_rows_are_refused(tmp_path: Path) -> None:
    one = jsonl(tmp_path / "a.jsonl", [{**pairs(1)[0], "rejected": text} for text in "abc"])
    with pytest.raises(DataError, match="begin with 1 different prompt;"):
        comparisons(context(tmp_path / "out", comparisons=one))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    alike = jsonl(tmp_path / "c.jsonl", [{"prompt": turns[:1]}, {"prompt": turns}])
    with pytest.raises(DataError, match="the prompts begin with 1 different prompt;"):
        prompts(context(tmp_path / "out", prompts=alike))
    equal = jsonl(tmp_path / "b.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "b"}])
    with pytest.raises(DataError, match="no comparisons are left of 1 rows read"):
        comparisons(context(tmp_path / "out", comparisons=equal))


def test_a_task_makes_its_rows_and_marks_the_simulated_ones(tmp_path: Path) -> None:
    data = {"task": {"demonstrations": 60, "comparisons": 50, "prompts": 40}}
    for stage, count in ((demonstrations, 60), (comparisons, 50), (prompts, 40)):
        ctx = context(tmp_path / stage.keywords["name"], **data)
        metrics = stage(ctx)
        assert metrics["rows_read"] == count
        assert ("simulated" in ctx.notes) is (stage is comparisons)
    assert metrics["train"] + metrics["heldout"] == 40


def test_a_big_file_shows_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_BIG_FILE", 1000)
    monkeypatch.setattr(read, "_MEGABYTE", 1000)
    advanced: list[int] = []

    class Task:
        def advance(self, steps: int = 1, **fields: float) -> None:
            advanced.append(steps)

    class Shown(SilentReporter):
        def task(self, label: str, total: int, done: int = 0) -> Any:
            import contextlib

            assert "a.jsonl" in label
            self.total = total
            return contextlib.nullcontext(Task())

    reporter = Shown()
    source = jsonl(tmp_path / "a.jsonl", pairs(100))
    ctx = context(tmp_path / "out", comparisons=source)
    comparisons(StageContext(ctx.config, ctx.out, {}, reporter))
    assert reporter.total - 1 <= sum(advanced) <= reporter.total


def test_canonical_rows_survive_the_disk(tmp_path: Path) -> None:
    rows = [
        Comparison(
            prompt=(Message(role="user", content="a\u2028b\n😀"),), chosen=" x", rejected="y", margin=1, source="z"
        ),
        Comparison(prompt=(Message(role="user", content="c"),), chosen="x", rejected="y"),
    ]
    path = tmp_path / "rows.jsonl"
    assert write_rows(path, rows) == 2
    assert list(read_rows(path, Comparison)) == rows
    with pytest.raises(ArtifactError, match="not a prompt"):
        list(read_rows(path, Prompt))
    with pytest.raises(ArtifactError):
        list(read_rows(tmp_path / "none.jsonl", Prompt))


def test_the_evaluation_needs_two_held_out_prompts_and_says_so_first(tmp_path: Path) -> None:
    two = context(tmp_path / "out", prompts=jsonl(tmp_path / "two.jsonl", [{"prompt": "a"}, {"prompt": "b"}]))
    with pytest.raises(DataError) as caught:
        prompts(two)
    assert caught.value.where == "data.prompts"
    without = two.config.model_copy(update={"eval": two.config.eval.model_copy(update={"enabled": False})})
    assert prompts(replace(two, config=without))["heldout_prompts"] == 1
