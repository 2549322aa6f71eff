"""What stands more than once, counted from sorted hashes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Repeats:
    """What stands more than once in a file.

    Attributes:
        duplicates: rows that are exactly the same as an earlier one.
        prompts: different prompts.
        contradictions: as `contradictions` says.
    """

    duplicates: int
    prompts: int
    contradictions: int


@dataclass(frozen=True)
class Leaks:
    """The split into training and held-out prompts, by their hashes.

    Attributes:
        train: different prompts to train on.
        heldout: different prompts held out.
        near: held-out prompts that begin as a training prompt does but for case, blanks or punctuation.
    """

    train: int
    heldout: int
    near: int


def repeats(rows: array[int], prompts: array[int], pairs: array[int]) -> Repeats:
    """Count repeats.

    Args:
        rows: [rows] hashes of whole rows.
        prompts: [rows] hashes of prompts.
        pairs: as for `contradictions`.
    """
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
    """Which prompts the split parts although they are nearly the same.

    Args:
        prompts: [rows] keys of `prompt_key`.
        sides: [rows] keys of `split_key`.
        loose: [rows] hashes of what `split_key` goes by, without case, blanks and punctuation.
        fraction: of the prompts that is held out.
    """
    import numpy as np

    _, index = np.unique(_hashes(prompts), return_index=True)
    # the same arithmetic as split.share_of, on all keys at once
    held_out = (_hashes(sides)[index] >> np.uint64(11)).astype(np.float64) / 2**53 < fraction
    words = _hashes(loose)[index]
    near = int(np.isin(words[held_out], words[~held_out]).sum())
    return Leaks(train=int((~held_out).sum()), heldout=int(held_out.sum()), near=near)


def in_several(files: Sequence[array[int]]) -> int:
    """How many different hashes stand in more than one file."""
    import numpy as np

    _, counts = np.unique(np.concatenate([np.unique(_hashes(hashes)) for hashes in files]), return_counts=True)
    return int((counts > 1).sum())


def _hashes(values: array[int]) -> Any:
    import numpy as np

    return np.frombuffer(values, dtype=np.uint64) if values else np.empty(0, dtype=np.uint64)
