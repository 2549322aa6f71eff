"""What can be wrong with one annotator's request; the page turns each into an answer to the browser."""

from __future__ import annotations

from pipelines.feedback.types import Label


class Conflict(Exception):
    """What is sent is no answer to the label that stands: another tab was faster, or it was taken back.

    Attributes:
        label: what stands now; None: nothing, the earlier answer was taken back.
        version: the version to answer to.
        kept: the answer that was sent is in the history, though it does not stand; so its time counts already.
    """

    def __init__(self, label: Label | None, version: int, *, kept: bool = False) -> None:
        super().__init__("this task was answered somewhere else in the meantime")
        self.label = label
        self.version = version
        self.kept = kept


class Invalid(Exception):
    """The answer does not fit the task or its questions; the text says why, in words for the annotator."""


class NotAssigned(Exception):
    """There is no such task for this annotator, or no such annotator."""


class Paused(Exception):
    """Labelling is paused: no task is given and no answer taken."""
