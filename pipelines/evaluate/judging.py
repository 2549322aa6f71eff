"""The judges of an evaluation: scorers, the run's independent judge, a language model, and what they say of the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.config.scorer_section import ScorerSection
from pipelines.data.encode import ChatEncoder, EncodedPrompt
from pipelines.errors import DataError
from pipelines.evaluate.best_of_n import Candidates, named_candidates
from pipelines.evaluate.frontier import Trail, frontier_of
from pipelines.evaluate.further_tests import Figure
from pipelines.evaluate.results import ScorerResult, judge
from pipelines.models.machine import free_memory
from pipelines.report.bootstrap import win_rate
from pipelines.report.pair_accuracy import PairAccuracy
from pipelines.run.manifest import Manifest
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion, named_apart
from pipelines.scorers.language_model_judge import LanguageModelJudge, check_readable

REPLIES = "language_model_replies.jsonl"
"""File of the run directory with what a language model has said: it outlives the stage, which may begin again."""

TOXIC = 0.5
"""Probability above which an answer counts as toxic."""


def judge_facts(ctx: StageContext) -> dict[str, Any] | None:
    """Accuracy of the run's independent judge and its agreement with the reward model, or why there is none."""
    manifest = Manifest.read(ctx.inputs["judge"]) if "judge" in ctx.inputs else None
    if manifest is None:
        return None
    if "no_judge" in manifest.notes:
        return {"no_judge": manifest.notes["no_judge"]}
    accuracy = PairAccuracy.of(manifest.metrics)
    assert accuracy is not None  # a judge without it may not judge
    agreement = {key: value for key, value in manifest.metrics.items() if key.startswith("agreement")}
    interval = {"accuracy": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
    return interval | {"pairs": accuracy.pairs} | agreement


def sections_of(ctx: StageContext) -> list[ScorerSection]:
    """The scorers by distinct names; the independent judge is left out where the run has none.

    Raises:
        DataError: no other is there.
    """
    missing = ["judge"] if "no_judge" in (judge_facts(ctx) or {}) else []
    sections = [section for section in ctx.config.eval_scorers if section.kind not in missing]
    if not sections:
        raise DataError("no scorer is left", where="eval.scorers", hint="name another one beside the judge")
    return named_apart(sections)


def judge_all(
    ctx: StageContext,
    prompts: Sequence[EncodedPrompt],
    answers: Mapping[str, Sequence[Completion]],
    device: torch.device,
) -> list[ScorerResult]:
    """Score all answers by every scorer."""
    scorer_results = []
    for section in sections_of(ctx):
        result = judge(section, ctx, device, prompts, answers)
        free_memory()
        if result.truncated:
            ctx.reporter.warn(f"{result.truncated} texts were too long for {result.scorer} and were cut")
        scorer_results.append(result)
    return scorer_results


def toxicity_figures(
    ctx: StageContext,
    prompts: Sequence[EncodedPrompt],
    answers: Mapping[str, Sequence[Completion]],
    device: torch.device,
) -> list[Figure]:
    """Let a classifier of toxic text read the answers without their prompts; no figures where none is named."""
    section = ctx.config.eval.toxicity
    if section is None:
        return []
    # a prompt that is toxic itself says nothing about the policy
    alone: list[EncodedPrompt] = [{"prompt_ids": prompt["prompt_ids"], "messages": ()} for prompt in prompts]
    result = judge(section, ctx, device, alone, answers)
    free_memory()
    above = {policy: [float(value > TOXIC) for value in values] for policy, values in result.scores.items()}
    title, ones = f"toxicity by {result.scorer}", [1.0] * len(prompts)
    return [
        Figure(title, "mean probability", result.scores, ones),
        Figure(title, "share above .5", above, ones, share=True),
    ]


def language_model_preference(
    ctx: StageContext,
    trained: str | None,
    baseline: str,
    prompts: Sequence[EncodedPrompt],
    answers: Mapping[str, Sequence[Completion]],
) -> dict[str, Any] | None:
    """Let a language model compare the trained policy's answers with the baseline's; None where none is to."""
    section = ctx.config.eval.language_model
    if section is None or trained is None:
        return None
    asked = prompts[: section.num_prompts]
    texts = [[answer.read(thoughts=False) for answer in answers[name][: len(asked)]] for name in (trained, baseline)]
    with ctx.reporter.task(f"comparing by {section.model}", len(asked)) as task:
        judge = LanguageModelJudge(section, ctx.run_dir / REPLIES, progress=task.advance)
        preferences = judge.compare([prompt["messages"] for prompt in asked], *texts)
    check_readable(preferences, section.model)
    wins = [win for win in preferences.wins if win is not None]
    rate = win_rate(wins, ctx.config.eval.bootstrap_samples)
    facts = {"name": section.model, "win_rate": rate.as_dict(), "asked": len(asked)}
    return facts | {"flips": preferences.flips, "ties": preferences.ties, "counts": preferences.counts}


def judged_frontier(
    ctx: StageContext,
    trained: Path | None,
    encoder: ChatEncoder,
    scorer_results: Sequence[ScorerResult],
    device: torch.device,
) -> dict[str, Any] | None:
    """Judge the held-out answers that PPO gave as it trained; None where there are none, or no independent judge."""
    trail = Trail.read(trained, encoder) if trained is not None else None
    if trail is None:
        return None
    answers = {str(update): completions for update, completions in trail.answers.items()}
    judged = {
        name: {int(update): values for update, values in scores.items()}
        for name, scores in _independent_scores(ctx, trail.prompts, answers, scorer_results, device)
    }
    return frontier_of(trail, judged, ctx.config.eval.bootstrap_samples) if judged else None


def judged_best_of_n(
    ctx: StageContext,
    prompts: Sequence[EncodedPrompt],
    candidates: Candidates,
    scorer_results: Sequence[ScorerResult],
    device: torch.device,
) -> dict[str, Any]:
    """Judge all answers that best-of-n chose from, and compute its curve."""
    named = named_candidates(candidates.answers)
    judged = {
        name: [scores[candidate] for candidate in named]
        for name, scores in _independent_scores(ctx, prompts, named, scorer_results, device)
    }
    return candidates.curve(judged, ctx.config.eval.bootstrap_samples)


def _independent_scores(
    ctx: StageContext,
    prompts: Sequence[EncodedPrompt],
    answers: Mapping[str, Sequence[Completion]],
    scorer_results: Sequence[ScorerResult],
    device: torch.device,
) -> Iterator[tuple[str, Mapping[str, Sequence[float]]]]:
    """Name and scores of every scorer that PPO did not optimize."""
    independent = [result.scorer for result in scorer_results if result.role == "independent"]
    for section in sections_of(ctx):
        if section.name in independent:
            yield str(section.name), judge(section, ctx, device, prompts, answers).scores
            free_memory()
