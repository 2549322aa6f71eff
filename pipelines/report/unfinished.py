"""Answers that are cut at the length limit, in words."""

from __future__ import annotations

FEW_FINISHED = 0.8
"""Share of finished answers below which the limit, or a model that does not end them, is worth a word."""


def unfinished(finished: float, limit: int, answers: str) -> str | None:
    """Say that answers do not end by themselves; None: at least `FEW_FINISHED` of them do.

    Args:
        finished: share of answers that ended on EOS or another stop token.
        limit: tokens at which the others were cut.
        answers: whose, in the plural.
    """
    if finished == 0:
        return (
            f"none of {answers} ends within {limit} tokens: the model has not learned to stop, or the limit is too low"
        )
    if finished < FEW_FINISHED:
        return f"{1 - finished:.0%} of {answers} are cut at {limit} tokens"
    return None
