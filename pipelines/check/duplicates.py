"""Duplicates, leaks across the split, contradictions, and near duplicates by MinHash on a sample.

One hash a piece and the smallest in each of 128 equal ranges of hashes (one-permutation hashing, Li, Owen and Zhang
2012; an empty range borrows from the next, Shrivastava and Li 2014). The share of ranges that agree estimates the share
of pieces that agree. Texts that agree in one of 16 bands of 8 ranges are compared, each with the last such text only,
so the time grows with the number of texts, not with its square.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.data.split import threshold
from pipelines.run.reporting import Reporter


@dataclass(frozen=True)
class Repeats:
    """Counts of exact duplicates of earlier rows, of different prompts and of `contradictions` in a file."""

    duplicates: int
    prompts: int
    contradictions: int


@dataclass(frozen=True)
class Leaks:
    """Different prompts on the sides of the split, by their hashes.

    `near`: held-out ones that begin as a training prompt does but for case, blanks or punctuation.
    """

    train: int
    heldout: int
    near: int


def repeats(rows: array[int], prompts: array[int], pairs: array[int]) -> Repeats:
    """Count repeats by the [rows] hashes of whole rows and of prompts, and `pairs` as for `contradictions`."""
    import numpy as np

    return Repeats(
        duplicates=len(rows) - len(np.unique(_hashes(rows))),
        prompts=len(np.unique(_hashes(prompts))),
        contradictions=contradictions([pairs]),
    )


def contradictions(files: Sequence[array[int]]) -> int:
    """Pairs of answers to one prompt of which now the one, now the other was chosen, and answers judged good and bad.

    Args:
        files: hashes of prompt and answers for each file, the lowest bit the direction.
    """
    import numpy as np

    either_way = np.unique(np.concatenate([_hashes(pairs) for pairs in files])) >> np.uint64(1)
    return len(either_way) - len(np.unique(either_way))


def leaks(prompts: array[int], sides: array[int], loose: array[int], fraction: float) -> Leaks:
    """Count prompts on both sides of the split that are nearly the same.

    Args:
        prompts: [rows] keys of `prompt_key`.
        sides: [rows] keys of `split_key`.
        loose: [rows] hashes of what `split_key` goes by, without case, blanks and punctuation.
        fraction: `data.eval_fraction`.
    """
    import numpy as np

    _, index = np.unique(_hashes(prompts), return_index=True)
    # the same arithmetic as split.share_of, on all keys at once
    shares = (_hashes(sides)[index] >> np.uint64(11)).astype(np.float64) / 2**53
    held_out = shares < threshold(shares.tolist(), fraction)
    words = _hashes(loose)[index]
    near = int(np.isin(words[held_out], words[~held_out]).sum())
    return Leaks(train=int((~held_out).sum()), heldout=int(held_out.sum()), near=near)


def in_several(files: Sequence[array[int]]) -> int:
    """Count the hashes that occur in more than one file."""
    import numpy as np

    _, counts = np.unique(np.concatenate([np.unique(_hashes(hashes)) for hashes in files]), return_counts=True)
    return int((counts > 1).sum())


def _hashes(values: array[int]) -> Any:
    import numpy as np

    return np.frombuffer(values, dtype=np.uint64) if values else np.empty(0, dtype=np.uint64)


RANGES, BAND = 128, 8
PIECE = 5
NEAR = 0.8
MOST_CHARACTERS = 20_000
_AT_ONCE = 50_000
"""Characters that are hashed in one go: enough that calls of NumPy cost little, and few megabytes."""
_NONE = 2**64 - 1


def near_duplicates(texts: Sequence[str], reporter: Reporter) -> int:
    """Count the texts that are similar or equal to an earlier one.

    Args:
        texts: lower case without blanks and punctuation; of each the first 20,000 characters count.
        reporter: shows the progress.
    """
    buckets: dict[tuple[int, bytes], Any] = {}
    count = 0
    with reporter.task("comparing (rows)", len(texts)) as task:
        for group in _groups(texts):
            count += sum([_joins(buckets, signature) for signature in signatures(group)])
            task.advance(len(group))
    return count


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts, cut to their length, as many at a time as are hashed in one go."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text[:MOST_CHARACTERS])
        size += len(group[-1]) + PIECE
        if size >= _AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _joins(buckets: dict[tuple[int, bytes], Any], signature: Any) -> bool:
    """Put a signature into its buckets; whether it is near to one that is there already."""
    is_near = False
    whole, size = signature.tobytes(), BAND * signature.itemsize
    for start in range(0, len(whole), size):
        band = (start, whole[start : start + size])
        other = buckets.get(band)
        is_near = is_near or (other is not None and bool((signature == other).mean() >= NEAR))
        buckets[band] = signature
    return is_near


def signatures(texts: Sequence[str]) -> Any:
    """[texts, 128] the smallest hash of each text's pieces in each range of hashes."""
    import numpy as np

    padded = [text.ljust(PIECE, "\0") for text in texts]
    letters = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    pieces = np.zeros(len(letters) - PIECE + 1, dtype=np.uint64)
    for offset in range(PIECE):
        pieces = pieces * np.uint64(0x9E3779B97F4A7C15) + letters[offset : offset + len(pieces)]
    # the finalizer of MurmurHash3: every bit of a piece moves the highest bits, by which the ranges are told apart
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        pieces = (pieces ^ (pieces >> np.uint64(33))) * np.uint64(factor)
    pieces ^= pieces >> np.uint64(33)
    lengths = np.array([len(text) for text in padded])
    owner = np.repeat(np.arange(len(texts)), lengths)
    inside = owner[: len(pieces)] == owner[PIECE - 1 :]  # a piece that begins at a text's end goes on into the next
    pieces, owner = pieces[inside], owner[: len(pieces)][inside]
    ranges = (pieces >> np.uint64(64 - RANGES.bit_length() + 1)).astype(np.int64)
    smallest = np.full(len(texts) * RANGES, _NONE, dtype=np.uint64)
    np.minimum.at(smallest, owner * RANGES + ranges, pieces)
    return _borrowed(smallest.reshape(len(texts), RANGES))


def _borrowed(smallest: Any) -> Any:
    """The same with every empty range filled from the next one that is not, the first one following the last."""
    import numpy as np

    places = np.where(smallest == _NONE, 2 * RANGES, np.arange(RANGES))
    twice = np.concatenate([places, np.where(places < RANGES, places + RANGES, places)], axis=1)
    following = np.minimum.accumulate(twice[:, ::-1], axis=1)[:, ::-1][:, :RANGES]
    return np.take_along_axis(smallest, following % RANGES, axis=1)
