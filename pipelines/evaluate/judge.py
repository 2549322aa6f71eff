"""Every scorer judges every policy's answers; one scorer is in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from pipelines.config.scorer import ScorerSection
from pipelines.evaluate.answers import EvalPrompt
from pipelines.models.scale import describe_output
from pipelines.scorers import Completion, ScorerWithParts, load_scorer, scorer_name
from pipelines.stage import StageContext


@dataclass(frozen=True)
class Verdict:
    """What one scorer thinks of all answers. Scores are one a prompt, in the order of the prompts.

    Attributes:
        scorer: its name, unique among the scorers.
        kind: as in the configuration.
        scores: by policy.
        parts: by name of the part, then by policy; empty where the score has no parts.
        truncated: texts that were too long for it.
        note: what its score is, where a table should say so.
    """

    scorer: str
    kind: str
    scores: dict[str, list[float]]
    parts: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    truncated: int = 0
    note: str | None = None


def judge(
    section: ScorerSection,
    ctx: StageContext,
    device: torch.device,
    prompts: Sequence[EvalPrompt],
    answers: Mapping[str, Sequence[Completion]],
) -> Verdict:
    """Load a scorer and let it judge.

    Equal answers to one prompt are scored once: in two batches they could differ in the last digit, and a tie would
    count as a win.

    Args:
        answers: by policy, one a prompt.

    Raises:
        RlhfError: see `load_scorer` and the scorers.
    """
    places: dict[tuple[int, tuple[int, ...]], int] = {}
    pairs: list[tuple[EvalPrompt, Completion]] = []
    for given in answers.values():
        for row, (prompt, completion) in enumerate(zip(prompts, given, strict=True)):
            if places.setdefault((row, completion.ids), len(pairs)) == len(pairs):
                pairs.append((prompt, completion))

    dialogues, completions = [prompt.messages for prompt, _ in pairs], [completion for _, completion in pairs]
    with ctx.reporter.task(f"scoring by {scorer_name(section)}", len(pairs)) as task:
        scorer = load_scorer(section, ctx, device, progress=task.advance)
        parts: dict[str, list[float]] = {}
        if isinstance(scorer, ScorerWithParts):
            scores, parts = scorer.with_parts(dialogues, completions)
        else:
            scores = scorer(dialogues, completions)

    def by_policy(values: Sequence[float]) -> dict[str, list[float]]:
        return {
            policy: [values[places[row, completion.ids]] for row, completion in enumerate(given)]
            for policy, given in answers.items()
        }

    return Verdict(
        scorer=scorer.name,
        kind=section.kind,
        scores=by_policy(scores),
        parts={name: by_policy(values) for name, values in parts.items()},
        truncated=getattr(scorer, "truncated", 0),
        note=describe_output(ctx.inputs["reward"], section.output) if section.kind == "run" else None,
    )
