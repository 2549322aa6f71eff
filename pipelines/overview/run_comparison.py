"""Runs compared: settings and artifacts that differ, results side by side, and differences with intervals.

Differences are paired by prompt, and only made where two numbers mean the same: two reward models have two scales.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.evaluate.conclusion import name_of
from pipelines.overview.call import call_of
from pipelines.overview.run_facts import RunFacts, json_lines
from pipelines.report.bootstrap import differences, estimate, win_rate, wins
from pipelines.report.estimates import Estimate
from pipelines.run.directory import split_round
from pipelines.run.manifest import FileRecord, Manifest, digest_of
from pipelines.run.stage import is_source

ANSWERS = ("length", "finished", "repetition")
"""Measures of an answer that need no judge."""
FEWEST = 2
"""Number of prompts that two runs must share for an interval."""


@dataclass(frozen=True)
class Difference:
    """The difference of one measure between two runs.

    Attributes:
        measure: name of the measure.
        difference: mean over the shared prompts of the one run's value minus that of the reference; without a value it
            says why the two cannot be compared.
        wins: share of the shared prompts on which the value is higher, a tie being half; None for what is no score.
    """

    measure: str
    difference: Estimate
    wins: Estimate | None = None


@dataclass(frozen=True)
class Against:
    """A run against the reference.

    Attributes:
        run: place of the run among those compared.
        shared: number of prompts that both have answered.
        differences: one entry for every measure that both have.
    """

    run: int
    shared: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class RunComparison:
    """Several runs, the first of which is the reference.

    Attributes:
        names: names of the runs, as they were given.
        calls: few words on what each has shown.
        unfinished: state of every stage of each that is not complete, by name.
        policies: the policy of each that is compared; None: the run has no results.
        settings: values by key and run, of the keys that differ.
        stages: digests of the outputs without logs by stage and run, of all stages; None: not complete.
        measures: estimates by measure and run; None: the run has none.
        against: every later run against the first.
    """

    names: tuple[str, ...]
    calls: tuple[str, ...]
    unfinished: tuple[Mapping[str, str], ...]
    policies: tuple[str | None, ...]
    settings: Mapping[str, tuple[Any, ...]]
    stages: Mapping[str, tuple[str | None, ...]]
    measures: Mapping[str, tuple[Estimate | None, ...]]
    against: tuple[Against, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON holds it."""
        return {
            "runs": [
                {"run_dir": name, "call": call, "policy": policy, "unfinished": dict(unfinished)}
                for name, call, policy, unfinished in zip(
                    self.names, self.calls, self.policies, self.unfinished, strict=True
                )
            ],
            "settings": {key: list(values) for key, values in self.settings.items()},
            "stages": {stage: list(digests) for stage, digests in self.stages.items()},
            "measures": {
                measure: [None if estimate is None else estimate.as_dict() for estimate in estimates]
                for measure, estimates in self.measures.items()
            },
            "differences": [
                {
                    "run_dir": self.names[entry.run],
                    "reference": self.names[0],
                    "prompts": entry.shared,
                    "measures": {of.measure: _difference_as_dict(of) for of in entry.differences},
                }
                for entry in self.against
            ],
        }


def _difference_as_dict(entry: Difference) -> dict[str, Any]:
    if entry.difference.value is None:
        return {"not_compared": entry.difference.reason}
    return entry.difference.as_dict() | ({"wins": entry.wins.as_dict()} if entry.wins is not None else {})


class _Evaluated:
    """The evaluation of a run, as far as it can be read."""

    def __init__(self, run: RunFacts) -> None:
        self._run = run
        stage = run.stage("eval")
        self._manifest: Manifest | None = stage.manifest if stage is not None else None
        self.results = run.results

    @property
    def policy(self) -> str | None:
        """The policy that is compared: the last one of PPO, else the baseline."""
        policy = self.results.get("trained") or self.results.get("baseline")
        return policy if isinstance(policy, str) and self.measured(policy) else None

    def measured(self, policy: str) -> Mapping[str, Any]:
        """Return what results.json holds on a policy; empty: nothing."""
        measures = self.results.get("measures")
        entry = measures.get(policy) if isinstance(measures, Mapping) else None
        return entry if isinstance(entry, Mapping) else {}

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Estimates of the policy by measure."""
        measured = self.measured(self.policy) if self.policy is not None else {}
        found: dict[str, Any] = {}
        for group, title in (("mean", "score"), ("win_rate", "wins"), ("attribute", "attribute")):
            entries = measured.get(group)
            found |= {f"{title}/{key}": value for key, value in entries.items()} if isinstance(entries, Mapping) else {}
        found |= {name: measured[name] for name in ("kl", *ANSWERS, "perplexity") if name in measured}
        tests = measured.get("tests")
        for title, figures in tests.items() if isinstance(tests, Mapping) else ():
            found |= {f"{title}/{label}": entry for label, entry in figures.items()}
        estimates = {}
        for name, entry in found.items():
            try:
                estimates[name] = Estimate.of(entry)
            except (KeyError, TypeError, ValueError):
                continue
        return estimates

    @cached_property
    def answers(self) -> dict[str, dict[str, float]]:
        """Values of the policy's answers, by prompt and measure."""
        stage = self._run.stage("eval")
        if stage is None or stage.directory is None or self.policy is None:
            return {}
        answers: dict[str, dict[str, float]] = {}
        for row in json_lines(stage.directory / "answers.jsonl"):
            try:
                key = json.dumps([(turn["role"], turn["content"]) for turn in row["prompt"]])
                entry = row["answers"][self.policy]
                values = {f"score/{name}": float(score) for name, score in entry["scores"].items()}
                values |= {f"attribute/{name}": float(value) for name, value in entry["attributes"].items()}
                values |= {name: float(entry[name]) for name in ANSWERS if name in entry}
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
            answers.setdefault(key, values)
        return answers

    @cached_property
    def judges(self) -> dict[str, str]:
        """Descriptions of the scorers by name: two of one text give the same scores to the same answers."""
        entries, manifest = self.results.get("scorers"), self._manifest
        if not isinstance(entries, list) or manifest is None:
            return {}
        sections = manifest.section.get("scorers")
        judges = {}
        for entry, section in zip(entries, sections if isinstance(sections, list) else (), strict=False):
            told = json.dumps(section, sort_keys=True)
            identity: dict[str, Any] = {"section": section}
            if '"kind": "run"' in told:
                identity["reward"] = _contents(manifest, lambda name: split_round(name)[0] == "reward")
            if '"kind": "judge"' in told:
                identity["judge"] = _contents(manifest, lambda name: name == "judge")
            if '"kind": "function"' in told or '"kind": "constraints"' in told:
                identity["files"] = _contents(manifest, is_source)
            if '"kind": "gold"' in told:
                identity["task"] = self._run.config.data.task and self._run.config.data.task.name
            if isinstance(entry, Mapping):
                judges[str(entry.get("name"))] = json.dumps(identity, sort_keys=True)
        return judges

    def judge_of(self, measure: str) -> tuple[str, ...]:
        """Return the judges that a measure depends on, ``""`` for an unknown one; parts may come from any of them."""
        kind, _, name = measure.partition("/")
        if kind == "attribute":
            parted = [entry for entry in self.results["scorers"] if entry.get("parts")]
            return tuple(self.judges.get(str(entry["name"]), "") for entry in parted)
        return (self.judges.get(name, ""),) if name else ()


def _contents(manifest: Manifest, wanted: Callable[[str], bool]) -> list[str]:
    """Digests of what an artifact was made from, of the inputs whose names are wanted."""
    return sorted(_product(files) for name, files in manifest.inputs.items() if wanted(name))


LOG = "metrics.jsonl"
"""File of a training that tells times, and so is never the same twice."""


def _product(files: Iterable[FileRecord]) -> str:
    """Hash what a stage has made, without its log: the same training gives the same hash on the same machine."""
    return digest_of([record for record in files if record.path != LOG])


def compare(runs: Sequence[RunFacts], names: Sequence[str]) -> RunComparison:
    """Compare runs with the first of them.

    Args:
        runs: two or more; what is missing in one is left out and said.
        names: name of each for display.
    """
    evaluated = [_Evaluated(run) for run in runs]
    measures = dict.fromkeys(measure for one in evaluated for measure in one.estimates)
    stages = dict.fromkeys(stage.name for run in runs for stage in run.stages)
    return RunComparison(
        names=tuple(names),
        calls=tuple(call_of(run).call for run in runs),
        unfinished=tuple(
            {stage.name: stage.state for stage in run.stages if stage.state != "complete"} for run in runs
        ),
        policies=tuple(None if one.policy is None else name_of(one.policy) for one in evaluated),
        settings=_settings(runs),
        stages={name: tuple(_digest(run, name) for run in runs) for name in stages},
        measures={name: tuple(one.estimates.get(name) for one in evaluated) for name in measures},
        against=tuple(
            _against(place, one, evaluated[0], runs[0].config.eval.bootstrap_samples)
            for place, one in enumerate(evaluated)
            if place and one.answers and evaluated[0].answers
        ),
    )


def _settings(runs: Sequence[RunFacts]) -> dict[str, tuple[Any, ...]]:
    """Values of the keys that are not the same in all runs; the directory of a run is no difference."""
    flat = [_flat(run.config.model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values if key != "run.dir")
    rows = {key: tuple(values.get(key) for values in flat) for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a tree by their dotted keys; a list is a leaf."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _digest(run: RunFacts, name: str) -> str | None:
    stage = run.stage(name)
    return _product(stage.manifest.outputs) if stage is not None and stage.manifest is not None else None


def _against(place: int, one: _Evaluated, reference: _Evaluated, samples: int) -> Against:
    shared = [key for key in reference.answers if key in one.answers]
    entries = []
    for measure in one.estimates:
        pairs = [(one.answers[key].get(measure), reference.answers[key].get(measure)) for key in shared]
        numbers = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
        if measure not in reference.estimates or not any(measure in one.answers[key] for key in shared):
            continue  # of the prompts as a whole, as a KL, or of one run alone
        judges = one.judge_of(measure)
        if "" in judges or "" in reference.judge_of(measure):
            entries.append(Difference(measure, Estimate.none("the manifest does not record the judge")))
        elif judges != reference.judge_of(measure):
            entries.append(Difference(measure, Estimate.none("the judges differ, so the scales may differ")))
        elif len(numbers) < FEWEST:
            entries.append(Difference(measure, Estimate.none("fewer than two prompts are shared")))
        else:
            mine, others = ([pair[side] for pair in numbers] for side in (0, 1))
            score = measure.startswith("score/")
            won = win_rate(wins(mine, others), samples) if score else None
            entries.append(Difference(measure, estimate(differences(mine, others), samples), won))
    return Against(place, len(shared), tuple(entries))
