"""Near duplicates by MinHash, on a sample: two texts are near where about 80 % of their five-letter pieces agree.

One hash a piece and the smallest in each of 128 equal ranges of hashes (one-permutation hashing, Li, Owen and Zhang
2012; an empty range borrows from the next, Shrivastava and Li 2014). The share of ranges that agree estimates the share
of pieces that agree. Texts that agree in one of 16 bands of 8 ranges are compared, each with the last such text only,
so the time grows with the number of texts, not with its square.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.progress import Reporter

RANGES, BAND = 128, 8
PIECE = 5
NEAR = 0.8
MOST_CHARACTERS = 20_000
_STEP = 100


def near_duplicates(texts: Sequence[str], reporter: Reporter) -> int:
    """How many texts are near to an earlier one; texts that are the same count as well.

    Args:
        texts: lower case without blanks and punctuation; of each the first 20,000 characters count.
        reporter: shows the progress.
    """
    buckets: dict[tuple[int, bytes], Any] = {}
    count = 0
    with reporter.task("comparing (rows)", len(texts)) as task:
        for number, text in enumerate(texts, 1):
            count += _joins(buckets, signature(text[:MOST_CHARACTERS]))
            if number % _STEP == 0 or number == len(texts):
                task.advance((number - 1) % _STEP + 1)
    return count


def _joins(buckets: dict[tuple[int, bytes], Any], found: Any) -> bool:
    """Put a signature into its buckets; whether it is near to one that is there already."""
    is_near = False
    for start in range(0, RANGES, BAND):
        band = (start, found[start : start + BAND].tobytes())
        other = buckets.get(band)
        is_near = is_near or (other is not None and bool((found == other).mean() >= NEAR))
        buckets[band] = found
    return is_near


def signature(text: str) -> Any:
    """[128] the smallest hash of the text's pieces in each range of hashes."""
    import numpy as np

    letters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    if len(letters) < PIECE:
        letters = np.concatenate([letters, np.zeros(PIECE - len(letters), dtype=np.uint64)])
    pieces = np.zeros(len(letters) - PIECE + 1, dtype=np.uint64)
    for offset in range(PIECE):
        pieces = pieces * np.uint64(0x9E3779B97F4A7C15) + letters[offset : offset + len(pieces)]
    # the finalizer of MurmurHash3: every bit of a piece moves the highest bits, by which the ranges are told apart
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        pieces = (pieces ^ (pieces >> np.uint64(33))) * np.uint64(factor)
    pieces = np.sort(pieces ^ (pieces >> np.uint64(33)))
    starts = np.arange(RANGES, dtype=np.uint64) << np.uint64(64 - RANGES.bit_length() + 1)
    return pieces[np.searchsorted(pieces, starts) % len(pieces)]
