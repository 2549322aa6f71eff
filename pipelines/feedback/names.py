"""The names of annotators: nobody's, and pseudonyms; who people are stays with whoever collected the labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from pipelines.feedback.types import LabelSet

UNKNOWN = "unknown-"
"""What the name of a label's annotator begins with where the file does not tell who it was; a number follows.

The numbers keep the labels of one task apart: the same number at two tasks need not be the same person.
"""


def is_unknown(annotator: str) -> bool:
    """Whether nobody knows who it was, so that no figures of a person can be given."""
    return re.fullmatch(f"{UNKNOWN}[0-9]+", annotator) is not None


def with_pseudonyms(found: LabelSet, annotators: Iterable[str] | None = None) -> LabelSet:
    """The same labels by annotator-01, annotator-02 and so on; those of unknown people keep their names.

    Args:
        found: the labels.
        annotators: the names in the order in which they are numbered; None: in that of their first labels.
    """
    named = dict.fromkeys(annotators if annotators is not None else (label.annotator for label in found.labels))
    known = [name for name in named if not is_unknown(name)]
    names = {name: name for name in named} | {name: f"annotator-{number:02d}" for number, name in enumerate(known, 1)}
    return replace(found, labels=[replace(label, annotator=names[label.annotator]) for label in found.labels])
