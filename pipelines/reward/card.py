"""The report card that the reward stage writes beside its model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.data.rows import Comparison
from pipelines.errors import DataError
from pipelines.models.reward_model import RewardModel
from pipelines.models.text_classifier import EncodedText
from pipelines.report.report_card import markdown_card
from pipelines.reward.initial_model import Objective
from pipelines.run.disk import write_atomic
from pipelines.run.stage import StageContext
from pipelines.scorers.examine import examine


def write_report_card(
    ctx: StageContext, model: RewardModel, objective: Objective, learning_curve: Sequence[Mapping[str, Any]]
) -> None:
    """Write `report_card.json` and `report_card.md`, where comparisons were held out; they are not scored again."""

    def score(answers: Sequence[tuple[Comparison, str]]) -> list[float | None]:
        read: dict[int, EncodedText] = {}
        for number, (row, text) in enumerate(answers):
            with contextlib.suppress(DataError):  # a text that the model cannot read, such as one with its EOS
                read[number] = model.row(row.prompt, text)
        fitting = {n: text for n, text in read.items() if text.length <= ctx.config.reward.max_length}
        scores = dict(zip(fitting, model.scores(list(fitting.values())), strict=True))
        return [scores.get(number) for number in range(len(answers))]

    if not objective.heldout.rows:
        return
    card = examine(objective.heldout.rows, *objective.pair_scores, score)
    if card is not None:
        card["learning_curve"] = learning_curve
        write_atomic(ctx.out / "report_card.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")
        write_atomic(ctx.out / "report_card.md", markdown_card(card, f"Report card of {ctx.label}/"))
