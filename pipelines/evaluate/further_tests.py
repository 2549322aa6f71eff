"""Tests of the policies beside the held-out prompts: prompts of their own, and figures made of the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from pipelines.data.encode import ChatEncoder, EncodedPrompt, fit_prompt
from pipelines.data.faults import BadRow
from pipelines.data.rows import Message
from pipelines.errors import DataError
from pipelines.report.bootstrap import differences, ratio
from pipelines.report.estimates import Estimate
from pipelines.report.statistics import wilson
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion

ByPolicy = Mapping[str, Sequence[Completion]]


@dataclass(frozen=True)
class Figure:
    """One measure of the policies, a ratio of sums over independent units such as prompts.

    Attributes:
        title: title of the group of figures that it belongs to.
        label: name within the group.
        values: numerators of the N units, by policy.
        weights: denominators of the N units, above 0; the same for all policies.
        share: whether it is a share, which has an interval even where it is 0 or 1 of every unit.
    """

    title: str
    label: str
    values: Mapping[str, Sequence[float]]
    weights: Sequence[float]
    share: bool = False

    def estimate(self, policy: str, samples: int) -> Estimate:
        """Estimate the measure of a policy; a share that is 0 or 1 everywhere has Wilson's interval."""
        estimated = ratio(self.values[policy], self.weights, samples)
        if not self.share or estimated.value not in (0.0, 1.0):
            return estimated
        low, high = wilson(estimated.value * estimated.n, estimated.n)
        return replace(estimated, low=low, high=high)

    def difference(self, policy: str, baseline: str, samples: int) -> Estimate:
        """Estimate the measure of a policy minus that of the baseline, paired by unit."""
        return ratio(differences(self.values[policy], self.values[baseline]), self.weights, samples)


class FurtherTest(Protocol):
    """A test with prompts of its own.

    Attributes:
        prompts: prompts that every policy answers.
    """

    prompts: Sequence[EncodedPrompt]

    def figures(self, ctx: StageContext, answers: ByPolicy, device: torch.device) -> list[Figure]:
        """Measure the answers, one a prompt by policy."""

    def notes(self) -> list[str]:
        """Say what the figures mean, for under the table."""

    def rows(self, answers: ByPolicy) -> list[dict[str, Any]]:
        """Give prompts, answers and what was seen in each, for a file."""


def encode(texts: Sequence[str], encoder: ChatEncoder, limit: int, where: str) -> dict[int, EncodedPrompt]:
    """Encode texts of one user message each by their place; those that are too long or refused are left out.

    Raises:
        DataError: none is left.
    """
    encoded = {}
    for place, text in enumerate(texts):
        try:
            prompt = fit_prompt((Message(role="user", content=text),), encoder, limit)
        except BadRow:
            continue
        if prompt is not None:
            encoded[place] = prompt
    if not encoded:
        raise DataError(
            f"none of the {len(texts)} prompts has at most {limit} tokens and can be encoded",
            where=where,
            hint="raise ppo.max_prompt_length",
        )
    return encoded


def answer_cells(answers: ByPolicy, place: int) -> dict[str, dict[str, Any]]:
    """Give text and end of the answers to one prompt, by policy."""
    return {
        policy: {"text": completions[place].read(thoughts=True), "finished": completions[place].finished}
        for policy, completions in answers.items()
    }
