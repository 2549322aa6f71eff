"""People as judges of an evaluation: its answers as tasks that do not tell who wrote which, and what people prefer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.data.rows import Message
from pipelines.errors import ArtifactError, RlhfError, UsageError
from pipelines.labels.label_types import Answer, LabelSet, Task
from pipelines.labels.questions import default_question
from pipelines.labels.store.store import LabelStore
from pipelines.report.bootstrap import estimate, win_rate
from pipelines.run.directory import RunDir
from pipelines.run.disk import read_json

QUESTION = default_question("overall", "pairwise")
_MESSAGES = TypeAdapter(tuple[Message, ...])


def blind_tasks(run: RunDir) -> LabelSet:
    """Make a task of every held-out prompt that the trained policy and the baseline answered differently.

    The label page gives each annotator an order of answers of their own and never says which model wrote which.

    Raises:
        UsageError: the run has no evaluation of two policies.
        ArtifactError: its answers cannot be read.
    """
    directory = run.stage("eval")
    results = read_json(directory / "results.json")
    pair = _pair(results)
    if pair is None:
        raise UsageError(
            "this run has no answers of PPO and of a baseline to compare",
            where=str(run.root),
            hint=f"`rlhf eval --run-dir {run.root}` makes them",
        )
    try:
        tasks = {task.id: task for task, _ in _compared(directory / "answers.jsonl", *pair)}
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(f"the answers cannot be read: {error}", where=str(directory / "answers.jsonl")) from error
    if not tasks:
        raise UsageError("the two policies gave the same answer to every prompt", where=str(directory))
    return LabelSet((QUESTION,), tasks, [])


def people_of(run: RunDir, results: Mapping[str, Any], samples: int) -> dict[str, Any] | None:
    """Measure the preference of people for the trained policy's answers, and how far they agree with the scorers.

    Args:
        run: the run, whose `RunDir.blind_store` may hold their labels.
        results: the content of results.json.
        samples: number of bootstrap resamples.

    Returns:
        ``annotators``, ``labels``, ``win_rate`` by prompt (several labels of one are averaged, a tie counts half), and
        ``agreement`` by scorer: share of the prompts on which both prefer an answer that it is the same. None: nobody
        has compared the present answers, or the files cannot be read.
    """
    pair = _pair(results)
    if pair is None or not run.blind_store.is_file():
        return None
    try:
        with LabelStore.open(run.blind_store) as store:
            labels = store.snapshot()
        compared = {task.id: (task, scores) for task, scores in _compared(run.stage("eval") / "answers.jsonl", *pair)}
    except (RlhfError, OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    said: dict[str, list[float]] = {}
    annotators = set()
    for task, label, value in labels.answered(QUESTION.name):
        if task.id in compared and not isinstance(value, str):
            baseline, trained = value  # ranks, 1 is best
            said.setdefault(task.id, []).append(0.5 if baseline == trained else float(trained < baseline))
            annotators.add(label.annotator)
    if not said:
        return None
    means = {task: sum(values) / len(values) for task, values in said.items()}
    agreement: dict[str, dict[str, Any]] = {}
    for scorer in compared[next(iter(said))][1]:
        both = [(mean - 0.5, compared[task][1][scorer]) for task, mean in means.items()]
        same = [float((preference > 0) == (gain > 0)) for preference, gain in both if preference and gain]
        if same:
            agreement[scorer] = estimate(same, samples).as_dict()
    return {
        "annotators": len(annotators),
        "labels": sum(map(len, said.values())),
        "asked": len(compared),
        "simulated": labels.simulated,
        "win_rate": win_rate(list(means.values()), samples).as_dict(),
        "agreement": agreement,
    }


def _pair(results: Mapping[str, Any]) -> tuple[str, str] | None:
    """Names of the baseline and of the trained policy; None: there are not two that were evaluated."""
    baseline, trained, measures = (results.get(key) for key in ("baseline", "trained", "measures"))
    if not isinstance(baseline, str) or not isinstance(trained, str) or baseline == trained:
        return None
    return (baseline, trained) if isinstance(measures, Mapping) and {baseline, trained} <= measures.keys() else None


def _compared(path: Path, baseline: str, trained: str) -> Iterator[tuple[Task, dict[str, float]]]:
    """Tasks of two different answers, the baseline's first, with the gain of the trained policy by scorer."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        first, second = (row["answers"][name] for name in (baseline, trained))
        if first["text"] != second["text"]:
            answers = (Answer(first["text"], baseline), Answer(second["text"], trained))
            gains = {name: float(second["scores"][name]) - float(score) for name, score in first["scores"].items()}
            yield Task(_MESSAGES.validate_python(row["prompt"], strict=False), answers, source="eval"), gains
