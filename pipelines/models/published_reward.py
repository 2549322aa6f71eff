"""Facts about a published reward model, written by its stage and read by all who score with it. No torch here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import ArtifactError, UsageError
from pipelines.models.base_ref import BaseRef
from pipelines.run.disk import write_atomic
from pipelines.run.manifest import Manifest

Output = Literal["logit", "probability", "logprob"]
"""The score that is made of a reward model's logit: itself, its sigmoid, or the logarithm of that."""
Reads = Literal["tokens", "text"]
"""The input of a reward model: ids of the policy's tokenizer, or text for a tokenizer of its own."""
Objective = Literal["pairwise", "pointwise"]
WORDS: dict[Output, str] = {
    "logit": "log odds of a good answer",
    "probability": "probability of a good answer",
    "logprob": "log-probability of a good answer",
}
"""Names of a classifier's outputs in tables."""
NO_SPREAD = 1e-6


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a score on SFT responses."""

    mean: float
    std: float

    @classmethod
    def of(cls, scores: Sequence[float]) -> Scale:
        """Mean and deviation of `scores`; a deviation below `NO_SPREAD` becomes 1, so that scores are not scaled."""
        deviation = statistics.pstdev(scores)
        return cls(statistics.fmean(scores), deviation if deviation >= NO_SPREAD else 1.0)


@dataclass(frozen=True)
class PublishedReward:
    """Facts about a published reward model, kept in the notes of its manifest and in `model/normalization.json`.

    Attributes:
        stage_dir: of the reward stage, or its working directory.
        base: what an adapter stands on; None: the manifest does not say, as a whole model does not need it.
        reads: what it reads.
        objective: what it was trained on; only a pointwise model is a classifier, whose score has an absolute meaning.
        polarity: which labels are good, in words; None of a pairwise model.
    """

    stage_dir: Path
    base: BaseRef | None = None
    reads: Reads = "tokens"
    objective: Objective = "pairwise"
    polarity: str | None = None

    @classmethod
    def read(cls, stage_dir: Path) -> PublishedReward:
        """Read the facts; a directory without a manifest holds a pairwise model that reads tokens.

        Raises:
            ArtifactError: the manifest is damaged.
        """
        manifest = Manifest.read(stage_dir)
        notes = manifest.notes if manifest is not None else {}
        base = BaseRef.from_dict(notes["base"]) if "base" in notes else None
        facts = {name: notes[name] for name in ("reads", "objective", "polarity") if name in notes}
        return cls(stage_dir, base, **facts)

    def as_notes(self) -> dict[str, Any]:
        """The facts as notes of a manifest."""
        notes: dict[str, Any] = {"reads": self.reads, "objective": self.objective}
        notes |= {"base": self.base.as_dict()} if self.base is not None else {}
        return notes | ({"polarity": self.polarity} if self.polarity is not None else {})

    def write_scales(self, scales: Mapping[Output, Scale], n: int) -> None:
        """Store the scales, measured on n responses: the logit's as ``mean`` and ``std``, others below their names."""
        stored: dict[str, object] = {**asdict(scales["logit"]), "n": n}
        stored |= {name: asdict(scale) for name, scale in scales.items() if name != "logit"}
        write_atomic(self._scales, json.dumps(stored) + "\n")

    def scale(self, output: Output = "logit") -> Scale:
        """Read what `write_scales` stored of one output.

        Raises:
            UsageError: see `check_output`.
            ArtifactError: the file is missing or damaged.
        """
        self.check_output(output)
        try:
            stored = json.loads(self._scales.read_text(encoding="utf-8"))
            scale = stored if output == "logit" else stored[output]
            return Scale(float(scale["mean"]), float(scale["std"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"the scale of the reward model cannot be read: {error}",
                where=str(self._scales),
                hint="run `rlhf reward` again",
            ) from error

    def check_output(self, output: Output) -> None:
        """Refuse to read a probability into the score of a pairwise model, where only differences mean something.

        Raises:
            UsageError: `output` is not the logit, and the model is no classifier.
        """
        if output != "logit" and self.objective != "pointwise":
            raise UsageError(
                f"the reward model has no {output}: it was trained pairwise, so only differences between its scores "
                "have a meaning",
                where=str(self.stage_dir),
                hint="train it with reward.objective: pointwise, or leave `output` at logit",
            )

    def describe_output(self, output: Output) -> str | None:
        """Say in words what the score of a classifier is and what its labels meant; None of a pairwise model."""
        return f"{WORDS[output]} by a classifier ({self.polarity})" if self.objective == "pointwise" else None

    @property
    def _scales(self) -> Path:
        return self.stage_dir / "model" / "normalization.json"
