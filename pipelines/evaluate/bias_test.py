"""Bias by counterfactual prompts: score and refusals of answers to prompts that differ only in the person."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.data.counterfactuals import counterfactuals
from pipelines.data.declining import is_refusal
from pipelines.data.encode import ChatEncoder, EncodedPrompt
from pipelines.evaluate.conclusion import name_of, role_of
from pipelines.evaluate.further_tests import ByPolicy, Figure, answer_cells, encode
from pipelines.evaluate.judging import sections_of
from pipelines.evaluate.results import judge
from pipelines.evaluate.results_table import BIAS
from pipelines.models.machine import free_memory
from pipelines.run.stage import StageContext

REFUSALS = f"{BIAS}refusals"


class BiasTest:
    """Differences between groups of persons, by axis; see `counterfactuals`.

    Of two groups the difference is that of the first to the second, of several that of each to the mean of the others.
    Templates are the independent units: the interval is clustered by them.

    Args:
        path: file of further axes; None: the program's own ones alone.
        encoder: encoder of the policies.
        limit: most tokens of a prompt.
    """

    def __init__(self, path: Path | None, encoder: ChatEncoder, limit: int) -> None:
        entries = counterfactuals(path)
        texts = [text for entry in entries for text in entry.prompts.values()]
        encoded = encode(texts, encoder, limit, "eval.bias")
        self.prompts: Sequence[EncodedPrompt] = list(encoded.values())
        place_of = {place: number for number, place in enumerate(encoded)}
        self._sets: list[tuple[str, str, dict[str, int]]] = []  # axis, template, and place of the prompt by group
        start = 0
        for entry in entries:
            places = {group: start + number for number, group in enumerate(entry.prompts)}
            start += len(places)
            if encoded.keys() >= set(places.values()):  # with a group too few there is nothing to compare
                self._sets.append(
                    (entry.axis, entry.template, {group: place_of[place] for group, place in places.items()})
                )
        self._scores: dict[str, Mapping[str, Sequence[float]]] = {}
        self._refused: dict[str, int] = {}

    def figures(self, ctx: StageContext, answers: ByPolicy, device: torch.device) -> list[Figure]:
        """Measure refusals, and the score of every scorer that is neither a rule nor made for a task's own prompts."""
        refused = {
            policy: [float(is_refusal(completion.text)) for completion in completions]
            for policy, completions in answers.items()
        }
        self._refused = {policy: int(sum(values)) for policy, values in refused.items()}
        if any(self._refused.values()):
            self._scores[REFUSALS] = refused
        for section in sections_of(ctx):
            bound = section.uses("gold") or section.uses("constraints")  # to prompts of their own
            if not bound and role_of(section, ctx.config.ppo.reward) != "rule":
                result = judge(section, ctx, device, self.prompts, answers)
                free_memory()
                self._scores[f"{BIAS}{result.scorer}"] = result.scores
        return [figure for title, scores in self._scores.items() for figure in self._differences(title, scores)]

    def _differences(self, title: str, scores: Mapping[str, Sequence[float]]) -> list[Figure]:
        figures = []
        for axis in dict.fromkeys(axis for axis, _, _ in self._sets):
            sets = [places for name, _, places in self._sets if name == axis]
            groups = list(sets[0])
            for group in groups if len(groups) > 2 else groups[:1]:
                label = f"{group} - {groups[1] if len(groups) == 2 else 'others'}"
                apart = {
                    policy: [_apart(values, places, group) for places in sets] for policy, values in scores.items()
                }
                figures.append(Figure(title, label, apart, [1.0] * len(sets)))
        return figures

    def notes(self) -> list[str]:
        """Say what the differences are, and how to read many of them."""
        refused = ", ".join(f"{name_of(policy)} {count}" for policy, count in self._refused.items() if count)
        templates = len({template for _, template, _ in self._sets})
        return [
            f"bias: answers to {len(self.prompts)} prompts of {templates} templates that differ only in the person; "
            "one group minus another, intervals by template. The table has the differences whose interval excludes 0 "
            "for a trained policy, as one in twenty does by chance; the report has all. Refused: "
            f"{refused or 'none'}."
        ]

    def rows(self, answers: ByPolicy) -> list[dict[str, Any]]:
        """Give each prompt with its axis, template and group, and by policy the answer with what it was measured by."""
        rows = []
        for axis, template, places in self._sets:
            for group, place in places.items():
                cells = answer_cells(answers, place)
                for policy, cell in cells.items():
                    cell["scores"] = {
                        title.removeprefix(BIAS): scores[policy][place] for title, scores in self._scores.items()
                    }
                text = self.prompts[place]["messages"][0].content
                told = {"test": "bias", "axis": axis, "template": template, "group": group, "prompt": text}
                rows.append(told | {"answers": cells})
        return rows


def _apart(values: Sequence[float], places: Mapping[str, int], group: str) -> float:
    """Value of a group's answer minus the mean of the other groups' answers to the same template."""
    return values[places[group]] - statistics.fmean(values[place] for name, place in places.items() if name != group)
