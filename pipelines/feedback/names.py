"""Annotators by pseudonyms: who they are stays with whoever collected the labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipelines.feedback.types import LabelSet


def with_pseudonyms(found: LabelSet, annotators: Iterable[str] | None = None) -> LabelSet:
    """The same labels by annotator-01, annotator-02 and so on.

    Args:
        found: the labels.
        annotators: the names in the order in which they are numbered; None: in that of their first labels.
    """
    named = dict.fromkeys(annotators if annotators is not None else (label.annotator for label in found.labels))
    names = {name: f"annotator-{number:02d}" for number, name in enumerate(named, 1)}
    return replace(found, labels=[replace(label, annotator=names[label.annotator]) for label in found.labels])
