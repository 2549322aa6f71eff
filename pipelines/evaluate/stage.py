"""The `eval` stage: base, SFT and PPO answer the same held-out prompts, and every scorer judges the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.config import Config
from pipelines.data.encode import ChatEncoder, EncodedPrompt
from pipelines.data.prompts import evaluation_prompts
from pipelines.data.refusals import RefusedRows
from pipelines.evaluate.best_of_n import Candidates, best_of_n_kl, named_candidates
from pipelines.evaluate.bias_test import BiasTest
from pipelines.evaluate.constraint_test import ConstraintTest
from pipelines.evaluate.further_tests import FurtherTest
from pipelines.evaluate.judging import (
    judge_all,
    judge_facts,
    judged_best_of_n,
    judged_frontier,
    language_model_preference,
    toxicity_figures,
)
from pipelines.evaluate.results import Evaluation, answer_rows, judge, metrics_of, results_of
from pipelines.evaluate.results_table import markdown, plain
from pipelines.models.base_model import prompt_limit
from pipelines.models.forward import TokenBatch, in_groups, response_logprobs
from pipelines.models.generate import end_token_ids, sample
from pipelines.models.machine import autocast, choose_threads, free_memory, resolve_device
from pipelines.models.policies import open_config, open_frozen_policy, open_tokenizer
from pipelines.models.short_forward import shorten
from pipelines.report.bootstrap import differences
from pipelines.run.disk import write_atomic
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion, sampled_completion

RARE = 0.01
"""Share of the baseline's own answers that are less probable by token, under itself, than an answer called unlike them.
"""
BEST_OF_N = "bon"
FEW_PROMPTS = 30
"""Number of prompts below which a bootstrap over them is unreliable."""


def run(ctx: StageContext) -> dict[str, float]:
    """Compare the policies; write results.json, answers.jsonl, table.md, table.txt and, with tests, tests.jsonl.

    Returns:
        The flat metrics of `metrics_of`.

    Raises:
        DataError: fewer than 2 prompts are left, or a score is not a finite number.
        RlhfError: a model or a scorer cannot be loaded.
    """
    config = ctx.config
    device = resolve_device(config.run)
    policies = Policies(config, ctx.inputs, device)
    tokenizer = policies.tokenizer()
    limit = prompt_limit(config.ppo, open_config(ctx.inputs.get("sft"), config.model), ctx.reporter)
    prompts, counts = evaluation_prompts(
        ctx.inputs["data/prompts"] / "heldout.jsonl", ChatEncoder(tokenizer), config, limit, RefusedRows(ctx)
    )
    if counts.used < FEW_PROMPTS:
        ctx.reporter.warn(f"only {counts.used} held-out prompts: the intervals are wide, and still too narrow")
    if counts.too_long:
        ctx.reporter.warn(f"{counts.too_long} held-out prompts are too long, or cannot be encoded, and were left out")

    tests = _tests(config, ChatEncoder(tokenizer), limit)
    sampled = _all_answers(ctx, policies, tokenizer, prompts, tests, device)
    answers, candidates = sampled.answers, sampled.candidates
    scorer_results = judge_all(ctx, prompts, answers, device)
    simulated = ctx.notes.get("simulated_inputs", [])
    language_model = language_model_preference(ctx, policies.trained, policies.baseline, prompts, answers)
    trained = ctx.inputs[policies.trained] if policies.trained else None
    figures = [figure for test, given in sampled.of_tests(tests) for figure in test.figures(ctx, given, device)]
    evaluation = Evaluation(
        policies.baseline,
        counts,
        prompts,
        answers,
        sampled.kl,
        sampled.unlike,
        sampled.logprobs,
        scorer_results,
        simulated,
        judge=judge_facts(ctx),
        frontier=judged_frontier(ctx, trained, ChatEncoder(tokenizer), scorer_results, device),
        language_model=language_model,
        best_of_n=judged_best_of_n(ctx, prompts, candidates, scorer_results, device) if candidates else None,
        figures=figures + toxicity_figures(ctx, prompts, answers, device),
        notes=[note for test in tests for note in test.notes()],
    )
    results, rows = results_of(evaluation, config), answer_rows(evaluation)
    _write(ctx, results, rows)
    if tests:
        _write_lines(
            ctx.out / "tests.jsonl", [row for test, given in sampled.of_tests(tests) for row in test.rows(given)]
        )
    ctx.notes.update(baseline=policies.baseline, prompts=results["prompts"], verdict=results["verdict"])
    if any(scorer["simulated"] for scorer in results["scorers"]):
        ctx.notes["simulated"] = "the gold scorer is the task's own hidden utility"
    return metrics_of(results)


def _tests(config: Config, encoder: ChatEncoder, limit: int) -> list[FurtherTest]:
    """Make the tests that are asked for beside the held-out prompts."""
    tests: list[FurtherTest] = []
    if config.eval.constraints is not None:
        tests.append(ConstraintTest(config.eval.constraints, encoder, limit))
    if (bias := config.eval.bias) is not False:
        tests.append(BiasTest(None if bias is True else bias, encoder, limit))
    return tests


class Policies:
    """The policies of a run by name: ``base``, ``sft``, ``ppo``, ``ppo-2`` ... of later rounds, and the baselines."""

    def __init__(self, config: Config, inputs: Mapping[str, Path], device: torch.device) -> None:
        self._config = config
        self._inputs = inputs
        self._device = device

    @property
    def names(self) -> tuple[str, ...]:
        """The requested policies that exist, and always the baseline, in the order of training."""
        trained = [name for name in self._inputs if name.partition("-")[0] == "ppo"]
        compared = [name for name in ("dpo", "rloo", "grpo") if name in self._inputs]
        existing = ["base", *(["sft"] if "sft" in self._inputs else []), *trained, *compared, BEST_OF_N]
        requested = {*self._config.eval.policies, self.baseline}
        return tuple(name for name in existing if name.partition("-")[0] in requested)

    @property
    def trained(self) -> str | None:
        """Name of the last policy that PPO trained; None: it is not among the policies."""
        return next((name for name in reversed(self.names) if name.partition("-")[0] == "ppo"), None)

    @property
    def baseline(self) -> str:
        """The policy that others are compared with, and the reference of the KL: SFT, or base where SFT is off."""
        return "sft" if "sft" in self._inputs else "base"

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Open the one tokenizer of the run, with its chat template."""
        return open_tokenizer(self._inputs.get("sft"), self._config.model)

    def open(self, name: str) -> PreTrainedModel | PeftModel:
        """Open a policy; see `open_frozen_policy`."""
        config, stage_dir = self._config, self._inputs[name] if name != "base" else None
        return open_frozen_policy(stage_dir, config.model, self._device, self.tokenizer(), config.run.seed)


def answer(
    model: nn.Module,
    prompts: Sequence[EncodedPrompt],
    encoder: ChatEncoder,
    eos_token_id: Sequence[int],
    config: Config,
    on_batch: Callable[[int], None],
    *,
    seed: int | None = None,
) -> list[Completion]:
    """Sample one answer to each prompt; with `seed: None` every policy gets the run's."""
    with autocast(config.model, next(model.parameters()).device):
        responses = sample(
            model,
            [prompt["prompt_ids"] for prompt in prompts],
            max_new_tokens=config.ppo.response_length,
            temperature=config.eval_temperature,
            top_k=config.ppo.top_k,
            top_p=config.ppo.top_p,
            eos_token_id=eos_token_id,
            batch_size=config.eval.batch_size,
            seed=config.run.seed if seed is None else seed,
            on_batch=on_batch,
        )
    return [
        sampled_completion(encoder, prompt["prompt_ids"], ids, finished=ids[-1] in eos_token_id)
        for prompt, ids in zip(prompts, responses, strict=True)
    ]


def sequence_logprobs(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    eos_token_id: Sequence[int],
    config: Config,
    on_batch: Callable[[int], None],
) -> list[float]:
    """Log-probability of each whole answer in nats, under the tempered policy that was sampled from.

    The mean over answers of a policy's own value minus the reference's is an unbiased estimate of the KL divergence
    between the two, per answer (k1 summed over the tokens; the EOS counts).
    """
    device = next(model.parameters()).device
    batch = TokenBatch.of(
        [prompt["prompt_ids"] for prompt in prompts], [answer.ids for answer in completions], eos_token_id
    )

    def batch_logprobs(part: TokenBatch) -> Tensor:
        logprobs = response_logprobs(model, part.to(device), config.eval_temperature).logprobs.cpu()
        on_batch(len(part))
        return logprobs

    with autocast(config.model, device):
        tokens = in_groups(batch, config.eval.batch_size, batch_logprobs)
    totals: list[float] = torch.where(batch.response_mask, tokens.double(), 0.0).sum(-1).tolist()
    return totals


@dataclass(frozen=True)
class Sampled:
    """Answers of all policies.

    Attributes:
        answers: to the held-out prompts, by policy.
        kl: see `Evaluation`.
        unlike: see `Evaluation`.
        logprobs: see `Evaluation`.
        to_tests: answers to the prompts of each further test, by policy.
        candidates: what best-of-n chose from; None: it is not among the policies.
    """

    answers: dict[str, list[Completion]]
    kl: dict[str, list[float]]
    unlike: dict[str, list[float]]
    logprobs: dict[str, list[float]]
    to_tests: list[dict[str, list[Completion]]]
    candidates: Candidates | None

    def of_tests(self, tests: Sequence[FurtherTest]) -> Iterator[tuple[FurtherTest, dict[str, list[Completion]]]]:
        """Pair each test with the answers to its prompts."""
        return zip(tests, self.to_tests, strict=True)


def _all_answers(
    ctx: StageContext,
    policies: Policies,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[EncodedPrompt],
    tests: Sequence[FurtherTest],
    device: torch.device,
) -> Sampled:
    """Let every policy answer, and measure how its answers differ from the baseline's.

    One model is in memory at a time. The baseline comes last: while it is loaded it also scores the others' answers.
    """
    config, encoder, baseline = ctx.config, ChatEncoder(tokenizer), policies.baseline
    answers: dict[str, list[Completion]] = {}
    own: dict[str, list[float]] = {}
    logprobs: dict[str, list[float]] = {}
    to_tests: list[dict[str, list[Completion]]] = [{} for _ in tests]
    candidates = _candidates(ctx, policies, tokenizer, prompts, device) if BEST_OF_N in policies.names else None
    if candidates is not None:
        answers[BEST_OF_N] = candidates.best()
    for name in (*(name for name in policies.names if name not in (baseline, BEST_OF_N)), baseline):
        to_score = dict(answers) if name == baseline else {}
        steps = len(prompts) * (2 + len(to_score)) + sum(len(test.prompts) for test in tests)
        with ctx.reporter.task(f"{name} answers", steps) as task:
            model = policies.open(name)
            shorten(model)
            if not answers:
                choose_threads(config.run, sum(p.numel() for p in model.parameters()), ctx.reporter)
            ends = end_token_ids(model, tokenizer, config.ppo.stop_tokens)
            answers[name] = answer(model, prompts, encoder, ends, config, task.advance)
            to_score[name] = answers[name]
            for test, given in zip(tests, to_tests, strict=True):
                given[name] = answer(model, test.prompts, encoder, ends, config, task.advance)
            logprobs = {
                policy: sequence_logprobs(model, prompts, completions, ends, config, task.advance)
                for policy, completions in to_score.items()
            }
        own[name] = logprobs[name]
        del model
        free_memory()
    kl = {name: differences(own[name], logprobs[name]) for name in own if name != baseline}
    if candidates is not None:
        kl[BEST_OF_N] = [best_of_n_kl(config.eval.best_of_n)] * len(prompts)
    by_token = {
        name: [total / max(len(answer.ids), 1) for total, answer in zip(logprobs[name], answers[name], strict=True)]
        for name in answers
    }
    floor = sorted(by_token[baseline])[int(RARE * len(prompts))]
    unlike = {name: [float(value < floor) for value in by_token[name]] for name in kl}
    in_order = [name for name in policies.names if name != BEST_OF_N]
    return Sampled(
        {name: answers[name] for name in policies.names},
        kl,
        unlike,
        logprobs,
        [{name: given[name] for name in in_order} for given in to_tests],
        candidates,
    )


def _candidates(
    ctx: StageContext,
    policies: Policies,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[EncodedPrompt],
    device: torch.device,
) -> Candidates:
    """Answers of the baseline to choose from, scored by the reward of PPO."""
    config, encoder = ctx.config, ChatEncoder(tokenizer)
    number = config.eval.best_of_n
    with ctx.reporter.task("best of n answers", len(prompts) * number) as task:
        model = policies.open(policies.baseline)
        choose_threads(config.run, sum(p.numel() for p in model.parameters()), ctx.reporter)
        ends = end_token_ids(model, tokenizer, config.ppo.stop_tokens)
        # all at once: equal prompts of a batch are read once
        repeated = [prompt for prompt in prompts for _ in range(number)]
        answers = answer(model, repeated, encoder, ends, config, task.advance, seed=config.run.seed + 1)
        drawn = [answers[place::number] for place in range(number)]
    del model
    free_memory()
    named = named_candidates(drawn)
    scores = judge(config.ppo.reward, ctx, device, prompts, named).scores
    free_memory()
    return Candidates(drawn, [scores[name] for name in named])


def _write(ctx: StageContext, results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    samples = rows[: ctx.config.eval.side_by_side]
    write_atomic(ctx.out / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    _write_lines(ctx.out / "answers.jsonl", rows)
    write_atomic(ctx.out / "table.md", markdown(results, samples))
    write_atomic(ctx.out / "table.txt", plain(results, samples))


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
