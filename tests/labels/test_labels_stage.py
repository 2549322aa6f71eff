"""The stages `labels` and `pairs`: simulated or waiting for people; rows split like all others, carried over rounds."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.data.canonical import read_rows
from pipelines.data.rows import Comparison, Demonstration, Judgement, Message
from pipelines.data.split import is_held_out
from pipelines.errors import ArtifactError, ConflictError, DataError, PeopleNeeded, UsageError
from pipelines.labels import stage as labels_stage
from pipelines.labels.label_types import Answer, Label, LabelSet, Task
from pipelines.labels.pairs import stage as pairs_stage
from pipelines.labels.questions import questions_of
from pipelines.labels.stage import describe_wait
from pipelines.labels.store.records import Submission
from pipelines.labels.store.store import LabelStore
from pipelines.labels.tasks_file import read_tasks, write_tasks
from pipelines.run.directory import RunDir
from pipelines.run.stage import StageContext
from pipelines.tasks import load_task
from tests.recorders import Recorder

REPLIES = (
    "Thanks for writing. Your radio is late. Have a nice day!",
    "Your radio is late.",
    "We had cake at noon. It rains a lot here.",
    "Your drill is broken. We will call you on Friday.",
)


def made_tasks(count: int = 30, *, start: int = 0) -> list[Task]:
    prompts = list(load_task("support").prompts(start + count, 0))[start:]
    return [Task(row.prompt, tuple(Answer(text, "sft") for text in REPLIES), source="round-1") for row in prompts]


def context(root: Path, stage: str, feedback: dict[str, Any], inputs: dict[str, Path], **rest: Any) -> StageContext:
    config = Config.model_validate(
        {"data": {"task": {"name": "support"}, "eval_fraction": 0.3}, "feedback": feedback, **rest}
    )
    out = root / f"{stage}.partial"
    out.mkdir(parents=True, exist_ok=True)
    return StageContext(config, out, inputs, Recorder())


def labels_of(root: Path, feedback: dict[str, Any], tasks: list[Task], **rest: Any) -> StageContext:
    sample = root / "sample"
    sample.mkdir(parents=True, exist_ok=True)
    ctx = context(root, "labels", feedback, {"sample": sample}, **rest)
    questions = questions_of(ctx.config.feedback.label)
    write_tasks(sample / "tasks.jsonl", LabelSet(questions, {task.id: task for task in tasks}, []))
    return ctx


SIMULATED = {
    "source": "simulated",
    "label": {"overlap": 2},
    "simulated": {"annotators": 3, "noise": 0.02, "bias": 0.3},
}


def test_simulated_labels_are_complete_marked_and_the_same_every_time(tmp_path: Path) -> None:
    ctx = labels_of(tmp_path / "a", SIMULATED, made_tasks())
    metrics = labels_stage.labels(ctx)
    assert sorted(path.name for path in ctx.out.iterdir()) == ["agreement.json", "agreement.txt", "tasks.jsonl"]
    found = read_tasks(ctx.out / "tasks.jsonl")
    assert list(found.tasks.values()) == made_tasks()
    assert len(found.labels) == 60
    assert all(label.simulated and label.time is None for label in found.labels)
    assert {key: metrics[key] for key in ("labels", "tasks", "annotators", "controls", "skipped", "flagged")} == {
        "labels": 60,
        "tasks": 30,
        "annotators": 3,
        "controls": 0,
        "skipped": 0,
        "flagged": 0,
    }
    assert 0.6 < metrics["alpha_low"] < metrics["alpha"] < 1
    assert metrics["pairwise_agreement"] > 0.8
    assert metrics["median_seconds"] > 5
    assert metrics["control_accuracy"] is None
    assert metrics["suspicious"] == 0
    assert ctx.notes["simulated"]["annotators"] == 3
    assert ctx.notes["simulated"]["truth"] == "gold"
    plain = json.loads((ctx.out / "agreement.json").read_text())
    assert plain["simulated"] is True
    assert plain["questions"][0]["alpha"]["value"] == metrics["alpha"]
    assert "simulated" in (ctx.out / "agreement.txt").read_text()

    again = labels_of(tmp_path / "b", SIMULATED, made_tasks())
    labels_stage.labels(again)
    assert (again.out / "tasks.jsonl").read_bytes() == (ctx.out / "tasks.jsonl").read_bytes()
    other = labels_of(tmp_path / "c", SIMULATED, made_tasks(), run={"seed": 1})
    labels_stage.labels(other)
    assert (other.out / "tasks.jsonl").read_bytes() != (ctx.out / "tasks.jsonl").read_bytes()


def test_control_tasks_are_judged_and_exported_too(tmp_path: Path) -> None:
    rows = [Comparison(prompt=task.prompt, chosen=REPLIES[0], rejected=REPLIES[2]) for task in made_tasks(4, start=100)]
    controls = tmp_path / "controls.jsonl"
    controls.write_text("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))
    feedback = SIMULATED | {"label": {"overlap": 2, "controls": str(controls), "control_share": 0.3}}
    ctx = labels_of(tmp_path, feedback, made_tasks())
    metrics = labels_stage.labels(ctx)
    assert any("gold" in line for line in ctx.reporter.said)  # type: ignore[attr-defined]
    assert metrics["controls"] == 4
    assert metrics["tasks"] == 30
    assert metrics["labels"] == 60 + 3 * 4
    assert metrics["control_accuracy"] == 1.0
    made = context(tmp_path, "pairs", feedback, {"labels": ctx.out})
    assert pairs_stage.pairs(made)["dropped"]["control task"] == 4


def test_a_clicker_among_people_is_pointed_out(tmp_path: Path) -> None:
    ctx = labels_of(tmp_path, {"source": "human", "label": {"annotators": ["Ada"]}}, made_tasks())
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(ctx)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        answer(store, "Ada", seconds=0.5)
    assert labels_stage.labels(ctx)["suspicious"] > 0
    assert any("Ada" in warning for warning in ctx.reporter.warned)  # type: ignore[attr-defined]


def answer(store: LabelStore, name: str, most: int = 1000, *, seconds: float = 30.0, skip: bool = False) -> int:
    """Let somebody answer or skip what is open, the answers ranked as they stand in the task."""
    for number in range(most):
        given = store.next_task(name)
        if given is None:
            return number
        values = {"overall": tuple(range(1, len(given.task.answers) + 1))}
        store.submit(
            name,
            given.task.id,
            Submission({} if skip else values, seconds, skipped=skip, key=f"{name}{given.task.id}", version=0),
        )
    return most


HUMAN = {"source": "human", "label": {"annotators": ["Ada", "Ben"], "overlap": 2}}


def test_people_are_waited_for_and_the_same_call_goes_on(tmp_path: Path) -> None:
    ctx = labels_of(tmp_path, HUMAN, made_tasks(10))
    with pytest.raises(PeopleNeeded) as caught:
        labels_stage.labels(ctx)
    error = caught.value
    assert error.exit_code == 11
    assert error.where == str(tmp_path / "labels.sqlite")
    assert "20 of 20 answers are still needed, to 10 of 10 tasks" in error.message
    assert "Ada has done 0 and has 10 left; Ben has done 0 and has 10 left" in error.message
    assert f"`rlhf label --run-dir {tmp_path}`" in str(error.hint)
    assert "same command goes on" in str(error.hint)

    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        assert answer(store, "Ada") == 10
        answer(store, "Ben", 4)
        store.paused = True
    (tmp_path / "sample").mkdir(exist_ok=True)
    write_tasks(tmp_path / "sample" / "tasks.jsonl", read_tasks(ctx.inputs["sample"] / "tasks.jsonl"))
    told = describe_wait(ctx.config, RunDir(tmp_path), "labels")
    assert told.startswith("6 of 20 answers are still needed, to 6 of 10 tasks (Ada has done 10 and has 0 left; Ben")
    with pytest.raises(PeopleNeeded, match=r"6 of 20 answers are still needed, to 6 of 10 tasks .*paused the page"):
        labels_stage.labels(ctx)
    assert not (ctx.out / "tasks.jsonl").exists()

    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        store.paused = False
        answer(store, "Ben")
    assert describe_wait(ctx.config, RunDir(tmp_path), "labels") == "all answers are there: `rlhf all` goes on"
    metrics = labels_stage.labels(ctx)
    assert metrics["labels"] == 20
    assert metrics["annotators"] == 2
    assert metrics["alpha"] == 1.0
    assert "simulated" not in ctx.notes
    assert [task.id for task in made_tasks(10)] == list(read_tasks(ctx.out / "tasks.jsonl").tasks)


def test_an_open_page_is_named(tmp_path: Path) -> None:
    ctx = labels_of(tmp_path, HUMAN, made_tasks(2))
    note = {"pid": os.getpid(), "address": "http://127.0.0.1:8765/", "host": socket.gethostname()}
    (tmp_path / "labels.sqlite.server.json").write_text(json.dumps(note))
    with pytest.raises(PeopleNeeded) as caught:
        labels_stage.labels(ctx)
    assert "the label page is open at http://127.0.0.1:8765/" in str(caught.value.hint)


def test_more_people_are_asked_for_where_the_overlap_needs_them(tmp_path: Path) -> None:
    ctx = labels_of(tmp_path, {"source": "human", "label": {"overlap": 3}}, made_tasks(3))
    with pytest.raises(PeopleNeeded) as caught:
        labels_stage.labels(ctx)
    assert "--annotator NAME1 --annotator NAME2 --annotator NAME3`" in str(caught.value.hint)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        store.add_annotator("Ada")
        answer(store, "Ada", skip=True)
    with pytest.raises(PeopleNeeded, match="9 of 9 answers") as caught:  # that Ada skips all makes her no three people
        labels_stage.labels(ctx)
    assert "--annotator NAME1 --annotator NAME2`" in str(caught.value.hint)


def test_waiting_adds_nobody_but_those_who_are_named(tmp_path: Path) -> None:
    ctx = labels_of(tmp_path, {"source": "human"}, made_tasks(2))
    with pytest.raises(PeopleNeeded, match=r"2 of 2 answers are still needed.*nobody judges them yet") as caught:
        labels_stage.labels(ctx)
    assert f"`rlhf label --run-dir {tmp_path}`;" in str(caught.value.hint)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        assert store.annotators() == []
        store.add_annotator("Ada")
        answer(store, "Ada", skip=True)
    assert labels_stage.labels(ctx)["skipped"] == 2  # nobody else is there to be waited for


def test_the_title_that_the_page_was_given_stays(tmp_path: Path) -> None:
    ctx = labels_of(tmp_path / "shop", HUMAN, made_tasks(2))
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(ctx)
    with LabelStore.open(tmp_path / "shop" / "labels.sqlite") as store:
        settings = store.settings
    assert settings.title == "shop"
    LabelStore.create(tmp_path / "shop" / "labels.sqlite", replace(settings, title="Answers")).close()
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(ctx)
    with LabelStore.open(tmp_path / "shop" / "labels.sqlite") as store:
        assert store.settings.title == "Answers"


def controls_file(path: Path, count: int) -> Path:
    rows = [
        Comparison(prompt=task.prompt, chosen=REPLIES[0], rejected=REPLIES[2]) for task in made_tasks(count, start=100)
    ]
    path.write_text("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))
    return path


def test_a_round_that_is_collected_again_holds_no_control_of_a_later_one(tmp_path: Path) -> None:
    label = {"annotators": ["Ada"], "controls": str(controls_file(tmp_path / "c.jsonl", 6)), "control_share": 0.3}
    first = labels_of(tmp_path, {"source": "human", "label": label}, made_tasks(8))
    (tmp_path / "config.yaml").write_text("{}\n")
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(first)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        answer(store, "Ada")
    assert 0 < labels_stage.labels(first)["controls"] < 6
    before = {path.name: path.read_bytes() for path in first.out.iterdir()}

    second = labels_of(tmp_path / "rounds" / "02", {"source": "human", "label": label}, made_tasks(8, start=8))
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(second)
    time.sleep(1.1)  # times are whole seconds
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        answer(store, "Ada")
    metrics = labels_stage.labels(second)
    assert metrics["tasks"] == 8
    assert metrics["controls"] > len([line for line in before["tasks.jsonl"].splitlines() if b'"control"' in line]) / 2
    labels_stage.labels(first)
    assert {path.name: path.read_bytes() for path in first.out.iterdir()} == before


def test_controls_that_are_taken_away_are_not_handed_out_any_more(tmp_path: Path) -> None:
    label = {"annotators": ["Ada"], "controls": str(controls_file(tmp_path / "c.jsonl", 4)), "control_share": 0.3}
    ctx = labels_of(tmp_path, {"source": "human", "label": label}, made_tasks(20))
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(ctx)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        given = 0
        while not any(store.snapshot().tasks[one.task].control for one in store.snapshot().labels):
            given += answer(store, "Ada", 1)
    del label["controls"]
    ctx = labels_of(tmp_path, {"source": "human", "label": label}, made_tasks(20))
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(ctx)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        assert given + answer(store, "Ada") == 21
    assert labels_stage.labels(ctx)["controls"] == 1  # what was said of it stays


def test_what_everybody_skipped_is_not_waited_for(tmp_path: Path) -> None:
    ctx = labels_of(tmp_path, HUMAN, made_tasks(5))
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(ctx)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        answer(store, "Ada", 1, skip=True)
        answer(store, "Ada")
    with pytest.raises(PeopleNeeded, match="6 of 10 answers are still needed, to 5 of 5 tasks"):
        labels_stage.labels(ctx)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        answer(store, "Ben")
    metrics = labels_stage.labels(ctx)
    assert (metrics["labels"], metrics["skipped"]) == (9, 1)
    assert "1 tasks have fewer than 2 answers" in ctx.reporter.warned[0]  # type: ignore[attr-defined]


def test_a_later_round_waits_for_its_own_tasks_only(tmp_path: Path) -> None:
    first = labels_of(tmp_path, {"source": "human", "label": {"annotators": ["Ada"]}}, made_tasks(4))
    (tmp_path / "config.yaml").write_text("{}\n")
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(first)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        answer(store, "Ada")
    labels_stage.labels(first)

    second = labels_of(tmp_path / "rounds" / "02", first.config.feedback.model_dump(), made_tasks(3, start=4))
    with pytest.raises(PeopleNeeded, match="3 of 3 answers are still needed") as caught:
        labels_stage.labels(second)
    assert "`--rounds 1` ends without round 2" in str(caught.value.hint)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        answer(store, "Ada")
    assert labels_stage.labels(second)["labels"] == 3
    assert len(read_tasks(second.out / "tasks.jsonl").labels) == 3


def test_tasks_that_are_none_of_the_run_s_are_handed_out_no_more(tmp_path: Path) -> None:
    feedback = {"source": "human", "label": {"annotators": ["Ada"]}}
    first = labels_of(tmp_path, feedback, made_tasks(4))
    (tmp_path / "config.yaml").write_text("{}\n")
    with pytest.raises(PeopleNeeded):
        labels_stage.labels(first)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        answer(store, "Ada", 1)
        store.add_tasks(made_tasks(9, start=50))  # another project's
    anew = labels_of(tmp_path, feedback, made_tasks(3, start=10))  # `rlhf sample --force`
    (tmp_path / "rounds" / "02" / "sample").mkdir(parents=True)
    later = made_tasks(2, start=20)
    write_tasks(tmp_path / "rounds" / "02" / "sample" / "tasks.jsonl", LabelSet((), {one.id: one for one in later}, []))
    (tmp_path / "sample").mkdir(exist_ok=True)
    write_tasks(tmp_path / "sample" / "tasks.jsonl", read_tasks(anew.inputs["sample"] / "tasks.jsonl"))
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        store.add_tasks(later)
    with pytest.raises(PeopleNeeded, match=r"3 of 3 answers .*Ada has done 1 and has 5 left"):
        labels_stage.labels(anew)
    with LabelStore.open(tmp_path / "labels.sqlite") as store:
        assert (store.progress().tasks, store.progress().left) == (5, 5)
        assert answer(store, "Ada") == 5
        assert len(store.snapshot().labels) == 6, "what was said of others stays"
    assert labels_stage.labels(anew)["labels"] == 3


def test_labels_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no task to judge"):
        labels_stage.labels(labels_of(tmp_path / "a", SIMULATED, []))
    missing = {"source": "human", "label": {"guidelines": str(tmp_path / "none.md")}}
    with pytest.raises(UsageError, match="guidelines cannot be read"):
        labels_stage.labels(labels_of(tmp_path / "b", missing, made_tasks(1)))

    ctx = labels_of(tmp_path / "c", {"source": "human", "label": {"annotators": ["Ada"]}}, made_tasks(2))
    with pytest.raises(PeopleNeeded, match="Ada has done 0 and has 2 left"):
        labels_stage.labels(ctx)
    with LabelStore.open(tmp_path / "c" / "labels.sqlite") as store:
        answer(store, "Ada", 1)
    other = {"source": "human", "label": {"questions": [{"name": "other"}]}}
    with pytest.raises(ConflictError, match="answers to other questions"):
        labels_stage.labels(labels_of(tmp_path / "c", other, made_tasks(2)))


def test_the_side_is_that_of_the_whole_prompt_where_the_task_has_a_cut_one(tmp_path: Path) -> None:
    tasks = made_tasks(10)
    sides = {
        task.id: ("train", "heldout")[is_held_out(task.prompt, 0.3) is (number > 0)]
        for number, task in enumerate(tasks)
    }
    ctx = labels_of(tmp_path, SIMULATED, tasks)
    (tmp_path / "sample" / "sides.json").write_text(json.dumps(sides))
    labels_stage.labels(ctx)
    made = context(tmp_path, "pairs", SIMULATED, {"labels": ctx.out})
    pairs_stage.pairs(made)
    told = {task.prompt: sides[task.id] for task in tasks}
    for side in ("train", "heldout"):
        found = {row.prompt for row in read_rows(made.out / f"{side}.jsonl", Comparison)}
        assert found == {prompt for prompt, own in told.items() if own == side}
    (ctx.out / "sides.json").write_text('{"x": "left"}')
    with pytest.raises(ArtifactError, match="train or heldout"):
        pairs_stage.pairs(made)


def test_a_prompt_that_was_held_out_once_is_never_trained_on(tmp_path: Path) -> None:
    tasks = made_tasks(10)
    first = pairs_of(tmp_path / "1", [Label(tasks[0].id, "Ada", {"overall": (1, 2, 3, 4)})], tasks[:1])
    (tmp_path / "1" / "labels" / "sides.json").write_text(json.dumps({tasks[0].id: "heldout"}))
    pairs_stage.pairs(first)
    other = Task(tasks[0].prompt, (Answer("one"), Answer("two")))
    second = pairs_of(tmp_path / "2", [Label(other.id, "Ada", {"overall": (1, 2)})], [other], earlier=first.out)
    (tmp_path / "2" / "labels" / "sides.json").write_text(json.dumps({other.id: "train"}))
    metrics = pairs_stage.pairs(second)
    assert (metrics["train"], metrics["heldout"]) == (0, 7)


def pairs_of(
    root: Path,
    labels: list[Label],
    tasks: list[Task],
    feedback: dict[str, Any] | None = None,
    earlier: Path | None = None,
) -> StageContext:
    ctx = context(root, "pairs", feedback or {"source": "human"}, {"labels": root / "labels"})
    (root / "labels").mkdir(exist_ok=True)
    questions = questions_of(ctx.config.feedback.label)
    write_tasks(root / "labels" / "tasks.jsonl", LabelSet(questions, {task.id: task for task in tasks}, labels))
    inputs = {"labels": root / "labels"} | ({"pairs": earlier} if earlier else {})
    return StageContext(ctx.config, ctx.out, inputs, ctx.reporter)


def test_rankings_become_pairs_on_the_side_of_their_prompt(tmp_path: Path) -> None:
    tasks = made_tasks()
    ctx = pairs_of(tmp_path, [Label(task.id, "Ada", {"overall": (1, 2, 4, 3)}) for task in tasks], tasks)
    metrics = pairs_stage.pairs(ctx)
    train, heldout = (list(read_rows(ctx.out / f"{side}.jsonl", Comparison)) for side in ("train", "heldout"))
    assert len(train) + len(heldout) == 30 * 6
    assert len(train) == metrics["train"] > len(heldout) > 0
    assert not any(is_held_out(row.prompt, 0.3) for row in train)
    assert all(is_held_out(row.prompt, 0.3) for row in heldout)
    assert {(row.chosen, row.rejected) for row in train} == {
        (REPLIES[a], REPLIES[b]) for a, b in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (3, 2))
    }
    assert metrics["heldout"] == len(heldout)
    assert metrics["possible"] == metrics["made"] == 180
    assert {path.name for path in ctx.out.iterdir()} == {"train.jsonl", "heldout.jsonl"}


def test_ties_and_skips_are_counted_with_their_reason(tmp_path: Path) -> None:
    tasks = made_tasks(10)
    labels = [Label(task.id, "Ada", {"overall": (1, 1, 2, 3)}) for task in tasks[:8]]
    labels.append(Label(tasks[8].id, "Ada", {}, skipped=True))
    ctx = pairs_of(tmp_path, labels, tasks)
    metrics = pairs_stage.pairs(ctx)
    assert metrics["dropped"] == {"tie": 8, "skipped": 6, "no label": 6}
    assert metrics["train"] + metrics["heldout"] == metrics["made"] == 40
    assert "8 tie" in ctx.reporter.said[-1]  # type: ignore[attr-defined]


def test_pairs_of_earlier_rounds_are_carried_on_and_the_later_opinion_counts(tmp_path: Path) -> None:
    tasks = made_tasks()
    first = pairs_of(tmp_path / "1", [Label(task.id, "Ada", {"overall": (1, 2, 3, 4)}) for task in tasks], tasks)
    pairs_stage.pairs(first)
    new = made_tasks(5, start=30)
    judged = [Label(task.id, "Ben", {"overall": (1, 2, 3, 4)}) for task in (*tasks[:1], *new)]
    second = pairs_of(tmp_path / "2", judged, [*tasks[:1], *new], earlier=first.out)
    metrics = pairs_stage.pairs(second)
    rows = [row for side in ("train", "heldout") for row in read_rows(second.out / f"{side}.jsonl", Comparison)]
    assert len(rows) == metrics["train"] + metrics["heldout"] == 35 * 6
    assert metrics["made"] == 6 * 6
    assert {row.annotator for row in rows if row.prompt == tasks[0].prompt} == {"Ben"}
    assert sum(row.annotator == "Ada" for row in rows) == 29 * 6
    without = pairs_of(
        tmp_path / "3", judged, [*tasks[:1], *new], {"source": "human", "pairs": {"leave_out": ["Ben"]}}, first.out
    )
    metrics = pairs_stage.pairs(without)
    assert (metrics["made"], metrics["left_out"]) == (0, {"Ben": 6})
    assert metrics["train"] + metrics["heldout"] == 30 * 6, "an opinion that does not count replaces none"
    assert isinstance(without.reporter, Recorder)
    assert "pairs: 6 labels of Ben are left out" in without.reporter.said


@pytest.mark.parametrize(
    ("ties", "before", "after", "rows"),
    [
        ("drop", (1, 2), (2, 1), [("two", "one")]),
        ("drop", (1, 2), (1, 1), []),
        ("half", (1, 2), (1, 1), [("one", "two"), ("two", "one")]),
        ("half", (1, 1), (1, 2), [("one", "two")]),
        ("drop", (1, 2), None, [("one", "two")]),
    ],
)
def test_a_new_verdict_replaces_both_directions(
    tmp_path: Path, ties: str, before: tuple[int, int], after: tuple[int, int] | None, rows: list[tuple[str, str]]
) -> None:
    feedback = {"source": "human", "pairs": {"ties": ties}}
    extra, task = made_tasks(1)[0], Task(made_tasks(2)[1].prompt, (Answer("one"), Answer("two")))
    more = Label(extra.id, "Ada", {"overall": (1, 2, 3, 4)})
    first = pairs_of(tmp_path / "1", [Label(task.id, "Ada", {"overall": before}), more], [task, extra], feedback)
    pairs_stage.pairs(first)
    turned = Task(task.prompt, task.answers[::-1])  # sampled again they stand in another order
    verdict = {} if after is None else {"overall": after[::-1]}
    again = Label(turned.id, "Ada", verdict, skipped=after is None)
    second = pairs_of(tmp_path / "2", [again, more], [turned, extra], feedback, first.out)
    pairs_stage.pairs(second)
    found = [row for side in ("train", "heldout") for row in read_rows(second.out / f"{side}.jsonl", Comparison)]
    assert sorted((row.chosen, row.rejected) for row in found if row.prompt == task.prompt) == sorted(rows)
    assert sum(row.prompt == extra.prompt for row in found) == 6


@pytest.mark.parametrize(("kind", "value", "label"), [("binary", (1, 0, 0, 1), True), ("scale", (5, 1, 2, 4), 5.0)])
def test_judgements_have_files_of_their_own(
    tmp_path: Path, kind: str, value: tuple[int, ...], label: bool | float
) -> None:
    feedback = {"source": "human", "label": {"questions": [{"name": "good", "kind": kind}]}}
    tasks = made_tasks()
    ctx = pairs_of(tmp_path, [Label(task.id, "Ada", {"good": value}) for task in tasks], tasks, feedback)
    metrics = pairs_stage.pairs(ctx)
    train = list(read_rows(ctx.out / "judgements-train.jsonl", Judgement))
    heldout = list(read_rows(ctx.out / "judgements-heldout.jsonl", Judgement))
    assert len(train) + len(heldout) == 120
    assert (metrics["judgements-train"], metrics["judgements-heldout"]) == (len(train), len(heldout))
    assert {row.label for row in train if row.completion == REPLIES[0]} == {label}
    assert all(is_held_out(row.prompt, 0.3) for row in heldout)
    assert (ctx.out / "train.jsonl").read_text() == (ctx.out / "heldout.jsonl").read_text() == ""
    later = pairs_of(tmp_path / "2", [], [], feedback, earlier=ctx.out)
    assert pairs_stage.pairs(later)["judgements-train"] == len(train)


def test_written_answers_become_demonstrations(tmp_path: Path) -> None:
    feedback = {"source": "human", "label": {"questions": [{"name": "write", "kind": "demonstration"}]}}
    task = Task((Message(role="user", content="Who are you?"),), ())
    ctx = pairs_of(tmp_path, [Label(task.id, "Ada", {"write": "A clerk."})], [task], feedback)
    assert pairs_stage.pairs(ctx)["demonstrations"] == 1
    (row,) = read_rows(ctx.out / "demonstrations.jsonl", Demonstration)
    assert row.texts() == ("Who are you?", "A clerk.")
    assert not row.last_only
    before = (*row.messages, Message(role="user", content="And who am I?"))
    later = Task(before, ())
    ctx = pairs_of(tmp_path / "2", [Label(later.id, "Ada", {"write": "A guest."})], [later], feedback)
    pairs_stage.pairs(ctx)
    (row,) = read_rows(ctx.out / "demonstrations.jsonl", Demonstration)
    assert row == Demonstration(messages=(*before, Message(role="assistant", content="A guest.")), last_only=True)


def test_no_row_left_says_why(tmp_path: Path) -> None:
    tasks = made_tasks(3)
    ctx = pairs_of(tmp_path, [Label(task.id, "Ada", {"overall": (1, 1, 1, 1)}) for task in tasks], tasks)
    with pytest.raises(DataError, match="no row to train on; left out: 18 tie"):
        pairs_stage.pairs(ctx)
