"""The `judge` stage: a second reward model, of prompts that the first one never saw, to judge the answers by.

PPO finds the errors of the reward model that it optimizes, so that this model's opinion of the result is worth little
(Gao et al. 2022, arXiv:2210.10760). The judge has errors of its own: it is trained on other prompts, with another seed,
from the base and not from the SFT model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelines.report.pair_accuracy import ENOUGH_PAIRS, PairAccuracy
from pipelines.reward.shares import Withheld
from pipelines.run.manifest import Manifest
from pipelines.run.stage import StageContext

if TYPE_CHECKING:
    from pipelines.config import Config

SEED_OFFSET = 1_000_003
"""Added to `run.seed`: another head, another order of the rows."""


def run(ctx: StageContext) -> dict[str, Any]:
    """Train the judge where the rows suffice, and measure how far it agrees with the reward model.

    The notes say under ``no_judge`` why the run has none that may judge.

    Returns:
        The final metrics of the reward stage, and ``agreement`` with its interval; nothing without a judge.

    Raises:
        RlhfError: see the reward stage.
    """
    if (reason := _why_none(ctx)) is not None:
        ctx.notes["no_judge"] = reason
        ctx.reporter.warn(f"judge: the run has no independent judge: {reason}")
        return {}
    metrics = _train(replace(ctx, config=_of_judge(ctx.config)))
    accuracy = PairAccuracy.of(metrics)
    if accuracy is None:
        ctx.notes["no_judge"] = "no comparisons were held out, so nobody knows how good it is"
    elif accuracy.pairs < ENOUGH_PAIRS:
        ctx.notes["no_judge"] = f"{accuracy.pairs} held-out pairs cannot tell how good it is"
    elif accuracy.faults:
        ctx.notes["no_judge"] = f"it is not good enough: {accuracy}; {' and '.join(accuracy.faults)}"
    if "no_judge" in ctx.notes:
        ctx.reporter.warn(f"judge: the run has no independent judge: {ctx.notes['no_judge']}")
    return metrics


def _why_none(ctx: StageContext) -> str | None:
    """Why no judge can be trained; None: it can."""
    rewards = [path for role, path in ctx.inputs.items() if role.partition("-")[0] == "reward"]
    manifests = [Manifest.read(path) for path in rewards]
    if any(manifest is None or not manifest.metrics.get("rows_withheld") for manifest in manifests):
        too_few = Withheld.count(ctx.inputs, ctx.config).too_few
        return too_few or "the reward model was trained on all rows, so none was withheld from it"
    return None


def _of_judge(config: Config) -> Config:
    run = config.run.model_copy(update={"seed": config.run.seed + SEED_OFFSET})
    return config.model_copy(update={"run": run})


def _train(ctx: StageContext) -> dict[str, Any]:
    from transformers import set_seed

    from pipelines.models.base_model import check_4bit
    from pipelines.models.machine import choose_threads, free_memory, resolve_device
    from pipelines.models.policies import open_tokenizer
    from pipelines.models.published_reward import PublishedReward
    from pipelines.models.reward_model import open_reward_model
    from pipelines.reward.assessment import agreement, check_golden, scores_of_pairs
    from pipelines.reward.fit import fit_and_publish
    from pipelines.reward.initial_model import start_from_own_base, start_from_sft

    config, section = ctx.config, ctx.config.reward
    device = resolve_device(config.run)
    check_4bit(config.model, device)
    set_seed(config.run.seed)
    tokenizer = open_tokenizer(ctx.inputs.get("sft"), config.model)
    start = start_from_sft(ctx, None, tokenizer, device) if section.base is None else start_from_own_base(ctx, device)
    choose_threads(config.run, start.scorer.num_parameters, ctx.reporter)
    fit = fit_and_publish(ctx, start, "judge", device)
    pairs = fit.objective.heldout.pairs
    by_judge, published, metrics = fit.objective.pair_scores, fit.published, fit.metrics
    del start, fit
    free_memory()
    check_golden(published, config, device)
    optimized = PublishedReward.read(ctx.inputs["reward"])
    model = open_reward_model(optimized, config.model, device, batch_size=section.per_device_eval_batch_size)
    agreed = agreement(by_judge, scores_of_pairs(model, pairs))
    if agreed:
        ctx.reporter.info(
            f"judge: orders {agreed['agreement']:.3f} [{agreed['agreement_low']:.3f}, {agreed['agreement_high']:.3f}] "
            "of the held-out pairs as the reward model does"
        )
    return metrics | agreed
