"""`feedback`: who compares the answers."""

from __future__ import annotations

from pydantic import Field

from pipelines.config.base import Section


class FeedbackSection(Section):
    """The simulated annotators that compare the answers of a self-made task (`data.task`)."""

    annotators: int = Field(5, ge=1)
    noise: float = Field(0.3, ge=0, description="Deviation of an annotator's judgement from one answer to the next.")
    bias: float = Field(0.2, ge=0, description="Deviation of the annotators' weights from the common ones.")
