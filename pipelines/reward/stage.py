"""The `reward` stage: a score of answers, trained on comparisons or judgements, judged, published and proven."""

from __future__ import annotations

from typing import Any

from transformers import set_seed

from pipelines.models.adapters import trainable_parameters
from pipelines.models.base_model import check_4bit
from pipelines.models.machine import free_memory, resolve_device
from pipelines.models.policies import open_tokenizer
from pipelines.models.publish import publish_model
from pipelines.models.published_reward import PublishedReward
from pipelines.reward.assessment import check_golden, probe, write_golden
from pipelines.reward.initial_model import Objective, on_its_own_base, on_the_sft_model
from pipelines.reward.pairwise import Pairwise
from pipelines.reward.pointwise import Pointwise
from pipelines.reward.score_scale import normalize, sft_responses
from pipelines.reward.training_rows import check_sides, heldout_prompts
from pipelines.run.stage import StageContext
from pipelines.trainers.arguments import train


def run(ctx: StageContext) -> dict[str, Any]:
    """Train on comparisons, judgements or both; publish `model/`, its normalization and golden scores.

    What there is among the inputs ``data/comparisons``, ``data/judgements`` and ``pairs`` is used together.

    Returns:
        The stage's final metrics.

    Raises:
        DataError: no row is left to train or to judge on.
        TrainingError: training diverged, or the published model does not give the scores of the trained one.
        UsageError, ArtifactError, HubError, EnvironmentProblem: the base cannot be loaded or trained as asked.
    """
    config, section = ctx.config, ctx.config.reward
    pointwise = section.objective == "pointwise"
    check_sides(ctx.inputs, judgements=pointwise)
    device = resolve_device(config.run)
    check_4bit(config.model, device)
    set_seed(config.run.seed)
    sft = ctx.inputs.get("sft")
    policy_tokenizer = open_tokenizer(sft, config.model)
    prompts = heldout_prompts(ctx.inputs, judgements=pointwise)
    responses = sft_responses(ctx, sft, policy_tokenizer, prompts, device)
    if section.base is None:
        start = on_the_sft_model(ctx, sft, policy_tokenizer, device)
    else:
        start = on_its_own_base(ctx, device)
    objective: Objective = (Pointwise if pointwise else Pairwise)(ctx, start, device)
    report, scorer = objective.report, start.scorer

    before = objective.judge()
    trainer = objective.trainer()
    trained = trainable_parameters(start.model)
    result = train(trainer, ctx, "reward model")
    after = objective.judge()
    objective.tell(after)
    probes = probe(scorer, config)

    published = PublishedReward(ctx.out, start.base, scorer.reads, section.objective, objective.polarity)
    publish_model(start.model, start.tokenizer, ctx.out / "model", base=start.base, run_dir=ctx.run_dir)
    normalization = normalize(ctx, scorer, responses, objective.outputs, published)["logit"]
    write_golden(ctx.out, scorer, objective.heldout_texts)
    ctx.notes.update(objective.notes | published.as_notes())
    ctx.notes["rows"] = {"used": report.used, "dropped": report.dropped, "cut": report.cut}
    num_heldout, num_tokens = objective.num_heldout, objective.num_tokens
    del start, scorer, trainer, objective
    free_memory()
    check_golden(published, config, device)

    return {
        **{f"{key}_before": value for key, value in before.items()},
        **{f"{key}_after": value for key, value in after.items()},
        **probes,
        "rows_used": report.used,
        "rows_dropped": report.dropped,
        "rows_cut": report.cut,
        "rows_heldout": num_heldout,
        "normalization_mean": normalization.mean,
        "normalization_std": normalization.std,
        "train_loss": result.loss,
        "steps": result.steps,
        "tokens_per_second": round(num_tokens * result.epochs / max(result.seconds, 1e-9), 1),
        "trainable_parameters": trained,
    }
