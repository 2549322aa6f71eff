"""Training of a reward model on its share of the rows, judged before and after, and published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pipelines.models.adapters import trainable_parameters
from pipelines.models.publish import publish_model
from pipelines.models.published_reward import PublishedReward
from pipelines.reward.assessment import write_golden
from pipelines.reward.card import write_report_card
from pipelines.reward.initial_model import InitialModel, Objective
from pipelines.reward.learning_curve import LearningCurve
from pipelines.reward.pairwise import Pairwise
from pipelines.reward.pointwise import Pointwise
from pipelines.reward.shares import Share
from pipelines.run.stage import StageContext
from pipelines.trainers.training import settings_kept, train


@dataclass(frozen=True)
class Fit:
    """A reward model after its training, still in memory.

    Attributes:
        objective: its rows, and what judges it.
        published: the model as it was published.
        metrics: figures of its rows, its training and its assessment.
    """

    objective: Objective
    published: PublishedReward
    metrics: dict[str, Any]


def fit_and_publish(ctx: StageContext, start: InitialModel, share: Share, device: torch.device) -> Fit:
    """Train a reward model on its share of the rows, judge it before and after, publish `model/` with golden scores.

    Args:
        ctx: the stage's; what the manifest should say is added to its notes.
        start: the model to train.
        share: the rows to train on.
        device: where the model is.

    Raises:
        DataError: no row is left to train or to judge on.
        TrainingError: training diverged.
    """
    config = ctx.config
    objective: Objective = (Pointwise if config.reward.objective == "pointwise" else Pairwise)(
        ctx, start, device, share
    )
    report, scorer = objective.report, start.scorer

    before = objective.judge()
    with settings_kept(start.model):
        trainer = objective.trainer()
        trained = trainable_parameters(start.model)
        curve = LearningCurve(ctx, objective, trainer.args)
        label = "judge" if share == "judge" else "reward model"
        result = train(trainer, ctx, config.reward, label, callbacks=[curve])
    after = objective.judge()
    objective.log_figures(after)

    published = PublishedReward(ctx.out, start.base, scorer.reads, config.reward.objective, objective.polarity)
    publish_model(
        start.model, start.tokenizer, ctx.out / "model", base=start.base, run_dir=ctx.run_dir, reads=scorer.reads
    )
    write_golden(ctx.out, scorer, objective.heldout_texts)
    write_report_card(ctx, scorer, objective, curve.finish(result.steps, after))
    ctx.notes.update(objective.notes | published.as_notes())
    ctx.notes["rows"] = {"used": report.used, "dropped": report.dropped, "cut": report.cut, "refused": report.refused}
    metrics = {
        **{f"{key}_before": value for key, value in before.items()},
        **{f"{key}_after": value for key, value in after.items()},
        "rows_used": report.used,
        "rows_dropped": report.dropped,
        "rows_cut": report.cut,
        "rows_refused": report.refused,
        "rows_heldout": objective.num_heldout,
        "train_loss": result.loss,
        "steps": result.steps,
        "tokens_per_second": round(objective.num_tokens * result.epochs / max(result.seconds, 1e-9), 1),
        "trainable_parameters": trained,
    }
    return Fit(objective, published, metrics)
