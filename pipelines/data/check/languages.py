"""The languages of a sample, guessed from letters by py3langid (an extra package)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

GUESSED_ROWS = 200
_CHARACTERS = 1000


def languages(texts: Sequence[str]) -> Counter[str] | None:
    """ISO 639-1 codes of the first 200 texts; None where the package is not installed."""
    try:
        import py3langid
    except ImportError:
        return None
    return Counter(py3langid.classify(text[:_CHARACTERS])[0] for text in texts[:GUESSED_ROWS])
