"""The frontier of a PPO training: what each step away from the reference gained, by the reward and by the judges.

Over-optimization shows as a turn: the reward that PPO optimizes still rises with the KL divergence, and a judge's score
falls (Gao et al. 2022, arXiv:2210.10760, who plot both against the square root of the KL).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pipelines.data.encode import ChatEncoder, EncodedPrompt
from pipelines.data.rows import Message
from pipelines.report.bootstrap import CONFIDENCE, differences, estimate
from pipelines.run.manifest import Manifest
from pipelines.scorers import Completion, sampled_completion

FILE = "heldout_answers.jsonl"
LEAST_LOSS = 0.1
"""Share of what a judge's score had gained that must be lost again for a turn: a smaller loss changes no decision, and
of four good runs of the quickstart one lost a twentieth by chance."""


@dataclass(frozen=True)
class Trail:
    """Answers to the held-out prompts of a training, as it went along.

    Attributes:
        prompts: the prompts.
        answers: by update, one a prompt.
        optimized: scores of the reward that PPO optimizes, likewise.
        kl: to the reference in nats, likewise.
        published: the update whose policy the training published.
    """

    prompts: list[EncodedPrompt]
    answers: dict[int, list[Completion]]
    optimized: dict[int, list[float]]
    kl: dict[int, list[float]]
    published: int

    @classmethod
    def read(cls, stage_dir: Path, encoder: ChatEncoder) -> Trail | None:
        """Read what PPO wrote; None of an earlier version's training, and where fewer than two updates have answers."""
        path = stage_dir / FILE
        if not path.is_file():
            return None
        by_update: dict[int, list[Mapping[str, Any]]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            by_update.setdefault(row["update"], []).append(row)
        if len(by_update) < 2:
            return None
        prompts: list[EncodedPrompt] = []
        for row in next(iter(by_update.values())):
            messages = tuple(Message.model_validate(turn) for turn in row["prompt"])
            prompts.append({"messages": messages, "prompt_ids": encoder.prompt(messages)})

        def of_rows(key: str) -> dict[int, list[float]]:
            return {update: [float(row[key]) for row in rows] for update, rows in by_update.items()}

        answers = {
            update: [
                sampled_completion(encoder, prompt["prompt_ids"], row["ids"], finished=row["finished"])
                for prompt, row in zip(prompts, rows, strict=True)
            ]
            for update, rows in by_update.items()
        }
        manifest = Manifest.read(stage_dir)
        published = manifest.notes.get("published_update") if manifest is not None else None
        last = max(answers)
        return cls(prompts, answers, of_rows("score"), of_rows("kl"), published if published in answers else last)


Judged = Mapping[str, Mapping[int, Sequence[float]]]
"""Scores by the name of the judge, then by update, one a prompt."""


def frontier_of(trail: Trail, judged: Judged, samples: int) -> dict[str, Any]:
    """Compute the frontier, and where a judge's score turned down.

    Args:
        trail: the answers with their scores and KL.
        judged: scores of the same answers by judges that PPO did not optimize.
        samples: number of bootstrap samples.

    Returns:
        ``prompts``, their number; ``published``, the update whose policy was published; ``points``, one an
        update, with ``kl``, ``optimized`` and the ``judged`` means and their 95 % intervals by prompt; ``turns``, see
        `turn_of`, by the name of the judge.
    """

    def mean(values: Sequence[float]) -> dict[str, Any]:
        return estimate(values, samples).as_dict()

    points = [
        {
            "update": update,
            "kl": mean(trail.kl[update]),
            "optimized": mean(trail.optimized[update]),
            "judged": {name: mean(scores[update]) for name, scores in judged.items()},
        }
        for update in trail.answers
    ]
    turns = {name: turn_of(trail.published, trail.optimized, scores, samples) for name, scores in judged.items()}
    return {
        "prompts": len(trail.prompts),
        "published": trail.published,
        "points": points,
        "turns": {name: turn for name, turn in turns.items() if turn is not None},
    }


def turn_of(
    published: int, optimized: Mapping[int, Sequence[float]], judged: Mapping[int, Sequence[float]], samples: int
) -> dict[str, Any] | None:
    """Find the update since which the judged score has fallen while the optimized one rose; None: there is none.

    The published policy is compared with the earlier one of the highest judged score. As that is the best of many, the
    interval of the difference is widened to 95 % for all comparisons together (Bonferroni). A turn loses at least
    `LEAST_LOSS` of what had been gained since the start.

    Args:
        published: update of the published policy.
        optimized: scores by update, in order, one a prompt.
        judged: the same by a judge.
        samples: number of bootstrap samples.

    Returns:
        ``update``, after which to stop, and ``difference``, the published policy's judged score minus that one's.
    """
    earlier = [update for update in judged if update < published]
    if not earlier:
        return None
    peak = max(earlier, key=lambda update: fmean(judged[update]))
    difference = estimate(
        differences(judged[published], judged[peak]), samples, confidence=1 - (1 - CONFIDENCE) / len(earlier)
    )
    gained = fmean(judged[peak]) - fmean(judged[min(judged)])
    lost = fmean(judged[peak]) - fmean(judged[published])
    fell = difference.high is not None and difference.high < 0 and lost >= LEAST_LOSS * gained
    if not fell or fmean(optimized[published]) <= fmean(optimized[peak]):
        return None
    return {"update": peak, "difference": difference.as_dict()}
