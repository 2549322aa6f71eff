"""People who compare the answers of an evaluation: what they are asked, and what their answers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ArtifactError, UsageError
from pipelines.labels.blind import QUESTION, blind_tasks, people_of
from pipelines.labels.store.fill import StoreChanges, fill
from pipelines.labels.store.records import Submission
from pipelines.labels.store.store import LabelStore
from pipelines.report.bootstrap import win_rate
from pipelines.run.directory import RunDir

RESULTS: dict[str, Any] = {"baseline": "sft", "trained": "ppo", "measures": {"base": {}, "sft": {}, "ppo": {}}}


def evaluated(root: Path, prompts: int = 4) -> RunDir:
    """A run whose last prompt has two equal answers; the judge finds PPO's better on the even ones."""
    run = RunDir(root)
    run.stage("eval").mkdir(parents=True)
    rows = []
    for number in range(prompts):
        texts = {"base": "x", "sft": f"old {number}", "ppo": f"new {number}"}
        texts["ppo"] = texts["sft"] if number == prompts - 1 else texts["ppo"]
        scores = {"base": 0.0, "sft": 0.5, "ppo": 1.0 if number % 2 == 0 else 0.0}
        answers = {name: {"text": text, "scores": {"judge": scores[name]}} for name, text in texts.items()}
        rows.append({"prompt": [{"role": "user", "content": f"q {number}"}], "answers": answers})
    (run.stage("eval") / "results.json").write_text(json.dumps(RESULTS))
    (run.stage("eval") / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def compare(run: RunDir, preferred: dict[str, dict[str, str]], overlap: int) -> None:
    """Let people prefer, by annotator and prompt: ``old``, ``new`` or neither."""
    tasks = blind_tasks(run)
    with LabelStore.open(run.blind_store, make=True) as store:
        fill(store, tasks, StoreChanges(overlap=overlap, annotators=tuple(preferred), own=frozenset(tasks.tasks)))
        for name, choices in preferred.items():
            while (assignment := store.next_task(name)) is not None:
                choice = choices[assignment.task.prompt[0].content]
                ranks = tuple(1 if choice in ("tie", answer.text[:3]) else 2 for answer in assignment.task.answers)
                key = f"{name}-{assignment.task.id}"
                values = {QUESTION.name: ranks}
                store.submit(
                    name, assignment.task.id, Submission(values, seconds=2.0, key=key, version=assignment.version)
                )


def test_a_task_holds_two_different_answers_and_tells_nobody_whose(tmp_path: Path):
    tasks = blind_tasks(evaluated(tmp_path / "run"))
    assert [[answer.text for answer in task.answers] for task in tasks.tasks.values()] == [
        [f"old {number}", f"new {number}"] for number in range(3)
    ]
    run = evaluated(tmp_path / "many", 40)
    tasks = blind_tasks(run)
    with LabelStore.open(run.blind_store, make=True) as store:
        fill(store, tasks, StoreChanges(annotators=("ann",)))
        places = set()
        for _ in range(20):
            assignment = store.next_task("ann")
            assert assignment is not None
            places.add(tuple(assignment.order))
            values = {QUESTION.name: (1, 2)}
            key = f"key-{assignment.task.id}"
            store.submit(
                "ann", assignment.task.id, Submission(values, seconds=1.0, key=key, version=assignment.version)
            )
    assert places == {(0, 1), (1, 0)}, "the place on the page gives no policy away"


def test_their_preference_and_their_agreement_with_the_judge(tmp_path: Path):
    run = evaluated(tmp_path / "run")
    assert people_of(run, RESULTS, 100) is None
    compare(
        run,
        {
            "ann": {"q 0": "new", "q 1": "old", "q 2": "old"},
            "bo": {"q 0": "new", "q 1": "tie", "q 2": "new"},
        },
        overlap=2,
    )
    people = people_of(run, RESULTS, 100)
    assert people is not None
    assert (people["annotators"], people["labels"], people["asked"]) == (2, 6, 3)
    # both prefer PPO; one prefers SFT and one neither; one each
    assert people["win_rate"] == win_rate([1.0, 0.25, 0.5], 100).as_dict()
    # the judge prefers PPO, SFT, PPO; people have no preference on the last prompt
    assert people["agreement"]["judge"]["value"] == 1.0
    assert people["agreement"]["judge"]["n"] == 2


def test_answers_of_another_evaluation_do_not_count(tmp_path: Path):
    run = evaluated(tmp_path / "run")
    compare(run, {"ann": {"q 0": "new", "q 1": "new", "q 2": "new"}}, overlap=1)
    path = run.stage("eval") / "answers.jsonl"
    path.write_text(path.read_text().replace("new 0", "newer 0"))
    people = people_of(run, RESULTS, 100)
    assert people is not None
    assert people["labels"] == 2
    path.write_text(path.read_text().replace("old", "older"))
    assert people_of(run, RESULTS, 100) is None


def test_runs_without_two_policies_or_with_damaged_answers_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no answers of PPO"):
        blind_tasks(RunDir(tmp_path / "nothing"))
    run = evaluated(tmp_path / "run")
    (run.stage("eval") / "answers.jsonl").write_text('{"prompt": []}\n')
    with pytest.raises(ArtifactError, match="cannot be read"):
        blind_tasks(run)
    run.blind_store.write_text("no database")
    assert people_of(run, RESULTS, 100) is None
