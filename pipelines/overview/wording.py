"""Figures of a run in words: durations, sizes, and what each kind of stage is remembered by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipelines.overview.run_facts import StageFacts

STATES = {
    "complete": "complete",
    "stale": "stale",
    "running": "running",
    "partial": "unfinished",
    "damaged": "damaged",
    "missing": "not run",
    "waiting": "waiting for people",
}
"""States of a stage, as the page says them."""


def duration(seconds: float) -> str:
    """Return ``0.2 s``, ``42 s``, ``3 min 12 s`` or ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Return a number of bytes as ``812 B``, ``1.4 MB`` or ``16 GB``, in powers of 1000."""
    units = ("B", "kB", "MB", "GB", "TB")
    place = 0
    while count >= 999.5 and place < len(units) - 1:
        count, place = count / 1000, place + 1
    return f"{count:.0f} {units[place]}" if place == 0 or count >= 99.5 else f"{count:.1f} {units[place]}"


def number(value: Any) -> str:
    """Return a number in up to four digits, ``n/a`` where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "n/a"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e9):
        return f"{int(value):,}".replace(",", "\u202f" if abs(value) >= 10_000 else "")
    return f"{value:.2e}" if abs(value) >= 1e6 or 0 < abs(value) < 1e-3 else f"{value:.4g}"


_REWARD = (("rows_used", "{} rows"), ("steps", "{} steps"), ("heldout_accuracy_after", "held-out accuracy {}"))
_DATA = (("train", "{} rows to train on"), ("heldout", "{} held out"))
_REMEMBERED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "data": _DATA,
    "pairs": _DATA,
    "sft": (("rows_used", "{} rows"), ("steps", "{} steps"), ("heldout_loss_after", "held-out loss {} nats per token")),
    "sample": (("completions", "{} answers"), ("prompts", "{} prompts"), ("mean_tokens", "{} tokens on average")),
    "labels": (("labels", "{} labels"), ("annotators", "{} annotators"), ("alpha", "alpha {}")),
    "reward": _REWARD,
    "judge": _REWARD,
    "dpo": _REWARD,
    "ppo": (("objective/scores", "score {} at the end"), ("objective/kl", "KL {} nats"), ("alarms", "{} alarms")),
    "eval": (("prompts", "{} prompts"),),
}


def outcome(stage: StageFacts) -> str:
    """Name the figures that a stage is remembered by; empty: it has none."""
    entries = _REMEMBERED.get(stage.kind.partition("/")[0], ())
    values = ((stage.metric(key), words) for key, words in entries)
    return ", ".join(words.format(number(value)) for value, words in values if value is not None)
