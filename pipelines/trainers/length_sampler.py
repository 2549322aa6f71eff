"""Sampler of training rows whose batches hold rows of similar length, so that few pads are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

WINDOW = 50
"""Batches that are drawn at random before their rows are sorted by length."""


class LengthSampler(Sampler[int]):
    """Draws all rows in an order that depends on seed and epoch alone, so that a resumed epoch goes on in it.

    The sampler of transformers leaves the batches sorted: a training would end on its shortest rows.

    Args:
        lengths: of all rows.
        batch_size: rows that are padded to the same length.
        seed: of the run.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._size, self._seed, self._epoch = lengths, batch_size, seed, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        numbers = torch.Generator().manual_seed((self._seed * 2**20 + self._epoch) % 2**63)
        rows = torch.randperm(len(self._lengths), generator=numbers).tolist()
        # an incomplete batch stays the last one
        end = len(rows) // self._size * self._size
        whole, rest = rows[:end], rows[end:]
        batches: list[list[int]] = []
        # few rows are sorted in four parts, or every epoch would have the same batches
        step = self._size * max(1, min(WINDOW, len(whole) // (4 * self._size)))
        for start in range(0, len(whole), step):
            window = sorted(whole[start : start + step], key=self._lengths.__getitem__)
            batches += [window[place : place + self._size] for place in range(0, len(window), self._size)]
        for index in torch.randperm(len(batches), generator=numbers).tolist():
            yield from batches[index]
        yield from rest
