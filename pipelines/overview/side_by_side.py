"""Answers side by side: the biggest wins and losses of PPO, and prompts that nobody chose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.evaluate.conclusion import name_of
from pipelines.overview.run_facts import RunFacts, json_lines

EXTREMES = 5
"""Number of wins and of losses that are shown."""
PROMPTS = 20
"""Number of prompts that are shown in all."""


@dataclass(frozen=True)
class ShownAnswer:
    """An answer of one policy.

    Attributes:
        policy: name of the policy, for display.
        text: the answer as it was written.
        finished: whether it ended by itself.
        scores: score by scorer.
    """

    policy: str
    text: str
    finished: bool
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """A prompt with the answers of the baseline and of PPO.

    Attributes:
        number: place of the prompt in answers.jsonl, from 1.
        turns: role and text of each message of the prompt.
        answers: the baseline's, then PPO's.
        difference: score of PPO's answer minus that of the baseline's, by the judge.
    """

    number: int
    turns: tuple[tuple[str, str], ...]
    answers: tuple[ShownAnswer, ShownAnswer]
    difference: float


@dataclass(frozen=True)
class SideBySide:
    """Answers that the report shows.

    Attributes:
        judge: scorer by which wins and losses are chosen.
        wins: biggest differences first, all above zero.
        losses: lowest differences first, all below zero.
        others: further prompts in the order of the file, which is that of their hashes.
        compared: number of prompts with both answers.
        better: number of those on which PPO's answer scores higher.
        worse: number of those on which it scores lower.
    """

    judge: str
    wins: tuple[Comparison, ...]
    losses: tuple[Comparison, ...]
    others: tuple[Comparison, ...]
    compared: int
    better: int
    worse: int


def side_by_side(run: RunFacts) -> SideBySide | None:
    """Choose the prompts that are shown; None: there are no answers of two policies to compare."""
    results, stage = run.results, run.stage("eval")
    baseline, trained = results.get("baseline"), results.get("trained")
    judge = judge_of(results)
    if stage is None or stage.directory is None or judge is None or trained in (None, baseline):
        return None
    path, pair = stage.directory / "answers.jsonl", (str(baseline), str(trained))

    def comparisons() -> Iterable[Comparison]:
        for number, row in enumerate(json_lines(path), 1):
            if (comparison := _comparison(number, row, pair, judge)) is not None:
                yield comparison

    differences = [(shown.difference, shown.number) for shown in comparisons()]  # the texts of all may be many
    wins = sorted((pair for pair in differences if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))
    losses = sorted(pair for pair in differences if pair[0] < 0)
    best, worst = ([number for _, number in group[:EXTREMES]] for group in (wins, losses))
    rest = [number for _, number in differences if number not in {*best, *worst}]
    rest = rest[: PROMPTS - len(best) - len(worst)]
    wanted = {*best, *worst, *rest}
    by_number = {shown.number: shown for shown in comparisons() if shown.number in wanted}

    def chosen(numbers: Sequence[int]) -> tuple[Comparison, ...]:
        return tuple(by_number[number] for number in numbers)

    if not differences:
        return None
    return SideBySide(judge, chosen(best), chosen(worst), chosen(rest), len(differences), len(wins), len(losses))


def judge_of(results: Mapping[str, Any]) -> str | None:
    """Name the scorer that wins and losses go by: the gold scorer of a self-made task, else the first one.

    None: results.json names no scorer.
    """
    scorers = results.get("scorers")
    named = [
        entry
        for entry in (scorers if isinstance(scorers, list) else ())
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)
    ]
    gold = [entry for entry in named if entry.get("simulated")]
    return str((gold or named)[0]["name"]) if named else None


def _comparison(number: int, row: Mapping[str, Any], pair: tuple[str, str], judge: str) -> Comparison | None:
    """Read a row of answers.jsonl; None: it has another form."""
    try:
        turns = tuple((str(turn["role"]), str(turn["content"])) for turn in row["prompt"])
        baseline, trained = (_answer(name, row["answers"][name]) for name in pair)
        difference = trained.scores[judge] - baseline.scores[judge]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return Comparison(number, turns, (baseline, trained), difference) if math.isfinite(difference) else None


def _answer(policy: str, entry: Mapping[str, Any]) -> ShownAnswer:
    scores = {str(scorer): float(score) for scorer, score in entry["scores"].items()}
    return ShownAnswer(name_of(policy), str(entry["text"]), bool(entry["finished"]), scores)
