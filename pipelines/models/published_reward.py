"""How the scores of a published reward model spread on SFT responses, and what it may be asked for. No torch here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipelines.errors import ArtifactError, UsageError
from pipelines.run.disk import write_atomic
from pipelines.run.manifest import Manifest

Output = Literal["logit", "probability", "logprob"]
"""What of a reward model's logit is the score: itself, its sigmoid, or the logarithm of that."""
WORDS: dict[Output, str] = {
    "logit": "log odds of a good answer",
    "probability": "probability of a good answer",
    "logprob": "log-probability of a good answer",
}
"""What the outputs of a classifier are called in tables."""
NO_SPREAD = 1e-6


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a score on SFT responses."""

    mean: float
    std: float

    @classmethod
    def of(cls, scores: Sequence[float]) -> Scale:
        """Measured; a deviation of nothing becomes 1, so that scores are not scaled."""
        deviation = statistics.pstdev(scores)
        return cls(statistics.fmean(scores), deviation if deviation >= NO_SPREAD else 1.0)


def write_scales(stage_dir: Path, scales: Mapping[Output, Scale], n: int) -> None:
    """Store them as `model/normalization.json`: those of the logit as ``mean`` and ``std``, others below their names.

    Args:
        stage_dir: of the reward stage, or its working directory.
        scales: that of the logit, and of every other output that the model has.
        n: responses that they were measured on.
    """
    logit = scales["logit"]
    stored: dict[str, object] = {**asdict(logit), "n": n}
    stored |= {name: asdict(scale) for name, scale in scales.items() if name != "logit"}
    write_atomic(_file(stage_dir), json.dumps(stored) + "\n")


def read_scale(stage_dir: Path, output: Output = "logit") -> Scale:
    """What `write_scales` stored of one output.

    Raises:
        UsageError: the model was trained pairwise and has its logit alone.
        ArtifactError: the file is missing or damaged.
    """
    check_output(stage_dir, output)
    try:
        stored = json.loads(_file(stage_dir).read_text(encoding="utf-8"))
        found = stored if output == "logit" else stored[output]
        return Scale(float(found["mean"]), float(found["std"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"the scale of the reward model cannot be read: {error}", where=str(_file(stage_dir))
        ) from error


def check_output(stage_dir: Path, output: Output) -> None:
    """Refuse to read a probability into the score of a pairwise model, where only differences mean something.

    Raises:
        UsageError: `output` is not the logit, and the model is no classifier.
    """
    if output == "logit":
        return
    manifest = Manifest.read(stage_dir)
    if manifest is None or manifest.notes.get("objective") != "pointwise":
        raise UsageError(
            f"the reward model has no {output}: it was trained pairwise, so that only differences of scores mean "
            "something",
            where=str(stage_dir),
            hint="train it with reward.objective: pointwise, or leave `output` at logit",
        )


def describe_output(stage_dir: Path, output: Output) -> str | None:
    """What the score of a classifier is and what its labels meant, in words; None of a pairwise model."""
    manifest = Manifest.read(stage_dir)
    if manifest is None or manifest.notes.get("objective") != "pointwise":
        return None
    return f"{WORDS[output]} by a classifier ({manifest.notes['polarity']})"


def _file(stage_dir: Path) -> Path:
    return stage_dir / "model" / "normalization.json"
