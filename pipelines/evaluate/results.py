"""Numbers of an evaluation, made of scores and lengths: results.json and the flat metrics of the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pipelines.config import Config
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.encode import EncodedPrompt
from pipelines.data.prompts import PromptCounts
from pipelines.evaluate.conclusion import Role, name_of, role_of, verdict_of
from pipelines.evaluate.further_tests import Figure
from pipelines.evaluate.text_measures import DISTINCT, distinct, perplexity, repetition
from pipelines.models.published_reward import PublishedReward
from pipelines.report.bootstrap import BOOTSTRAP_SEED, CONFIDENCE, differences, estimate, win_rate, wins
from pipelines.report.estimates import Estimate
from pipelines.report.length_control import length_controlled_win_rate
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion, ScorerWithParts, load_scorer, scorer_name


@dataclass(frozen=True)
class ScorerResult:
    """Scores of all answers by one scorer, one a prompt, in the order of the prompts.

    Attributes:
        scorer: its name, unique among the scorers.
        kind: its kind in the configuration.
        role: its relation to what PPO optimized.
        scores: scores by policy.
        parts: scores by name of the part, then by policy; empty where the score has no parts.
        truncated: number of texts that were too long for it.
        note: meaning of its score, for tables; None where the name says it.
    """

    scorer: str
    kind: str
    role: Role
    scores: dict[str, list[float]]
    parts: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    truncated: int = 0
    note: str | None = None


def judge(
    section: ScorerSection,
    ctx: StageContext,
    device: torch.device,
    prompts: Sequence[EncodedPrompt],
    answers: Mapping[str, Sequence[Completion]],
) -> ScorerResult:
    """Load a scorer and score all answers.

    Equal answers to one prompt are scored once: in two batches they could differ in the last digit, and a tie would
    count as a win.

    Args:
        answers: by policy, one a prompt.

    Raises:
        RlhfError: see `load_scorer` and the scorers.
    """
    places: dict[tuple[int, tuple[int, ...]], int] = {}
    pairs: list[tuple[EncodedPrompt, Completion]] = []
    for completions in answers.values():
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            if places.setdefault((row, completion.ids), len(pairs)) == len(pairs):
                pairs.append((prompt, completion))

    dialogues, distinct = [prompt["messages"] for prompt, _ in pairs], [completion for _, completion in pairs]
    with ctx.reporter.task(f"scoring by {scorer_name(section)}", len(pairs)) as task:
        scorer = load_scorer(section, ctx, device, progress=task.advance)
        parts: dict[str, list[float]] = {}
        if isinstance(scorer, ScorerWithParts):
            scores, parts = scorer.with_parts(dialogues, distinct)
        else:
            scores = scorer(dialogues, distinct)

    def by_policy(values: Sequence[float]) -> dict[str, list[float]]:
        return {
            policy: [values[places[row, completion.ids]] for row, completion in enumerate(completions)]
            for policy, completions in answers.items()
        }

    return ScorerResult(
        scorer=scorer.name,
        kind=section.kind,
        role=role_of(section, ctx.config.ppo.reward),
        scores=by_policy(scores),
        parts={name: by_policy(values) for name, values in parts.items()},
        truncated=getattr(scorer, "truncated", 0),
        note=_note(section, ctx),
    )


def _note(section: ScorerSection, ctx: StageContext) -> str | None:
    if section.kind not in ("run", "judge"):
        return None
    stage = "reward" if section.kind == "run" else "judge"
    return PublishedReward.read(ctx.inputs[stage]).describe_output(section.output)


SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured. Lists hold one entry a prompt.

    Attributes:
        baseline: name of the policy that the others are compared with, and that KL is measured from.
        counts: counts of the held-out prompts.
        prompts: the prompts, in order.
        answers: by policy.
        kl: by policy, the baseline left out: log-probability of the whole answer under the policy minus that under the
            baseline, in nats. Its mean estimates the KL divergence per answer; a single one may be negative.
        unlike: by policy, the baseline left out: 1 where the baseline gives the answer less probability by token than
            nearly all answers of its own, else 0.
        logprobs: log-probability of the whole answer under the baseline by policy, in nats.
        scorer_results: one entry a scorer.
        simulated: stages behind the policies whose labels came from no human.
        judge: figures of the run's independent judge, or ``no_judge`` with the reason why there is none; None: the run
            was not to have one.
        language_model: name, win rate and counts of a language model that compared the answers; None: none did.
        best_of_n: see `Candidates.curve`; None: best-of-n is not among the policies.
        frontier: see `frontier_of`; None: PPO left no answers on its way, or nobody independent judges.
        figures: measures of further tests, each of the policies that took it.
        notes: remarks on these, for people.
    """

    baseline: str
    counts: PromptCounts
    prompts: Sequence[EncodedPrompt]
    answers: Mapping[str, Sequence[Completion]]
    kl: Mapping[str, Sequence[float]]
    unlike: Mapping[str, Sequence[float]]
    logprobs: Mapping[str, Sequence[float]]
    scorer_results: Sequence[ScorerResult]
    simulated: Sequence[str] = ()
    judge: Mapping[str, Any] | None = None
    frontier: Mapping[str, Any] | None = None
    language_model: Mapping[str, Any] | None = None
    best_of_n: Mapping[str, Any] | None = None
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()

    @property
    def trained(self) -> str | None:
        """The policy whose gain is the question: the last one that was trained by PPO."""
        return next((name for name in reversed(list(self.answers)) if name.partition("-")[0] == "ppo"), None)


def results_of(evaluation: Evaluation, config: Config) -> dict[str, Any]:
    """The content of results.json as plain data; every mean with its interval."""
    results = {
        "schema_version": SCHEMA_VERSION,
        "baseline": evaluation.baseline,
        "reference": evaluation.baseline,
        "trained": evaluation.trained,
        "policies": list(evaluation.answers),
        "trained_on_simulated": list(evaluation.simulated),
        "prompts": asdict(evaluation.counts),
        "settings": {
            "temperature": config.eval_temperature,
            "response_length": config.ppo.response_length,
            "max_prompt_length": config.ppo.max_prompt_length,
            "seed": config.run.seed,
            "confidence": CONFIDENCE,
            "bootstrap_samples": config.eval.bootstrap_samples,
            "bootstrap_seed": BOOTSTRAP_SEED,
        },
        "scorers": [
            {
                "name": result.scorer,
                "kind": result.kind,
                "role": result.role,
                "simulated": result.kind == "gold",
                "parts": list(result.parts),
                "truncated_texts": result.truncated,
                **({"note": result.note} if result.note else {}),
            }
            for result in evaluation.scorer_results
        ],
        "measures": {policy: _measures(policy, evaluation, config) for policy in evaluation.answers},
        "judge": evaluation.judge,
        "frontier": evaluation.frontier,
        "language_model": evaluation.language_model,
        "best_of_n": evaluation.best_of_n,
        "notes": list(evaluation.notes),
    }
    return results | {"verdict": verdict_of(results, {policy: name_of(policy) for policy in evaluation.answers})}


def metrics_of(results: Mapping[str, Any]) -> dict[str, float]:
    """Flat figures of the manifest: means of every policy, and comparisons of the last PPO with the baseline."""
    metrics: dict[str, float] = {"prompts": results["prompts"]["used"]}
    for policy, measures in results["measures"].items():
        for scorer, estimated in measures["mean"].items():
            metrics[f"mean/{policy}/{scorer}"] = estimated["value"]
        for attribute, estimated in measures["attribute"].items():
            metrics[f"attribute/{policy}/{attribute}"] = estimated["value"]
        for name in ("kl", "unlike", "length", "finished", "repetition", "perplexity"):
            if name in measures and measures[name]["value"] is not None:
                metrics[f"{name}/{policy}"] = measures[name]["value"]
    trained = results["measures"].get(results["trained"], {})
    compared = {
        "win_rate": trained.get("win_rate", {}),
        "difference": trained.get("difference", {}).get("attribute", {}),
    }
    for what, group in compared.items():
        for name, estimated in group.items():
            metrics |= {
                f"{what}/{name}": estimated["value"],
                f"{what}/{name}/low": estimated["low"],
                f"{what}/{name}/high": estimated["high"],
            }
    return metrics


def answer_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The rows of answers.jsonl: a prompt, and the answer of each policy with its scores."""
    attributes = attributes_of(evaluation.scorer_results)
    repeated = {policy: repetition(completions) for policy, completions in evaluation.answers.items()}
    rows = []
    for place, prompt in enumerate(evaluation.prompts):
        answers: dict[str, Any] = {}
        for policy, completions in evaluation.answers.items():
            completion = completions[place]
            answers[policy] = {
                "text": completion.read(thoughts=True),
                "finished": completion.finished,
                "length": len(completion.ids),
                "repetition": repeated[policy][place],
                "scores": {result.scorer: result.scores[policy][place] for result in evaluation.scorer_results},
                "attributes": {name: values[policy][place] for name, values in attributes.items()},
            }
            if policy in evaluation.kl:
                answers[policy]["log_ratio"] = evaluation.kl[policy][place]
        rows.append({"prompt": [message.model_dump() for message in prompt["messages"]], "answers": answers})
    return rows


def attributes_of(scorer_results: Sequence[ScorerResult]) -> dict[str, dict[str, list[float]]]:
    """Parts of scores by name, then policy; named ``scorer/part`` where several scorers have parts."""
    with_parts = [result for result in scorer_results if result.parts]
    return {
        name if len(with_parts) == 1 else f"{result.scorer}/{name}": values
        for result in with_parts
        for name, values in result.parts.items()
    }


def _measures(policy: str, evaluation: Evaluation, config: Config) -> dict[str, Any]:
    def mean(values: Sequence[float]) -> dict[str, float | int | None]:
        return estimate(values, config.eval.bootstrap_samples).as_dict()

    scores = {result.scorer: result.scores for result in evaluation.scorer_results}
    attributes = attributes_of(evaluation.scorer_results)
    answers = evaluation.answers[policy]
    measures: dict[str, Any] = {
        "mean": {name: mean(values[policy]) for name, values in scores.items()},
        "attribute": {name: mean(values[policy]) for name, values in attributes.items()},
        "length": mean([float(len(answer.ids)) for answer in answers]),
        "finished": mean([float(answer.finished) for answer in answers]),
        "repetition": mean(repetition(answers)),
        "distinct": {str(n): distinct(answers, n).as_dict() for n in DISTINCT},
        "perplexity": perplexity(evaluation.logprobs[policy], answers, config.eval.bootstrap_samples).as_dict(),
    }
    figures = [figure for figure in evaluation.figures if policy in figure.values]
    samples = config.eval.bootstrap_samples
    measures["tests"] = _grouped((figure, figure.estimate(policy, samples)) for figure in figures)
    if policy == evaluation.baseline:
        return measures

    def gain(values: Mapping[str, Sequence[float]]) -> dict[str, float | int | None]:
        return mean(differences(values[policy], values[evaluation.baseline]))

    measures["win_rate"] = {
        name: win_rate(wins(values[policy], values[evaluation.baseline]), config.eval.bootstrap_samples).as_dict()
        for name, values in scores.items()
    }
    if policy != "base":
        measures["length_controlled_win_rate"] = _at_equal_length(policy, evaluation, config.eval.bootstrap_samples)
    measures["difference"] = {
        "mean": {name: gain(values) for name, values in scores.items()},
        "attribute": {name: gain(values) for name, values in attributes.items()},
        "repetition": gain({name: repetition(evaluation.answers[name]) for name in (policy, evaluation.baseline)}),
        "tests": _grouped((figure, figure.difference(policy, evaluation.baseline, samples)) for figure in figures),
    }
    measures["kl"] = mean(evaluation.kl[policy])
    measures["unlike"] = mean(evaluation.unlike[policy])
    return measures


def _grouped(estimates: Iterable[tuple[Figure, Estimate]]) -> dict[str, dict[str, Any]]:
    """Estimates as plain data by title and label of their figures."""
    groups: dict[str, dict[str, Any]] = {}
    for figure, estimated in estimates:
        groups.setdefault(figure.title, {})[figure.label] = estimated.as_dict()
    return groups


def _at_equal_length(policy: str, evaluation: Evaluation, samples: int) -> dict[str, Any]:
    """Length-controlled win rates by scorer; without those that are not defined."""
    of_policy, of_baseline = (
        [float(len(answer.ids)) for answer in evaluation.answers[name]] for name in (policy, evaluation.baseline)
    )
    rates = {
        result.scorer: length_controlled_win_rate(
            wins(result.scores[policy], result.scores[evaluation.baseline]), of_policy, of_baseline, samples
        )
        for result in evaluation.scorer_results
    }
    return {name: rate.as_dict() for name, rate in rates.items() if rate.value is not None}
