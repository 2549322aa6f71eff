"""What the two objectives have in common, as the stage sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from transformers import Trainer

from pipelines.data.encode import LengthReport
from pipelines.models.scale import Output
from pipelines.models.text_classifier import EncodedText


class Objective(Protocol):
    """A reward model's rows, its training and its judging.

    Attributes:
        report: what the length limit did to the rows to train on.
        num_heldout: rows to judge by.
        num_tokens: of all rows to train on.
        heldout_texts: of the first rows to judge by, at least two.
        outputs: what PPO may ask the model for.
    """

    report: LengthReport
    num_heldout: int
    num_tokens: int
    heldout_texts: Sequence[EncodedText]
    outputs: Sequence[Output]

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the manifest should say of the rows and of the model as it is now."""

    def judge(self) -> dict[str, float | None]:
        """Figures of the model as it is now, on the held-out rows; their names begin with ``heldout_``."""

    def trainer(self) -> Trainer:
        """What trains the model."""

    def tell(self, figures: Mapping[str, float | None]) -> None:
        """Say in words what `judge` found after the training, where it is worth a word."""
