"""Examination of a scorer on comparisons: the rows and probes behind its report card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipelines.data.rows import Comparison
from pipelines.data.split import prompt_key
from pipelines.report.report_card import Probe, ScoredPair, report_card
from pipelines.scorers.probes import CHANGES, MOST_ROWS, changed_answers

Answer = tuple[Comparison, str]
"""A row, and an answer to its prompt."""


def examine(
    rows: Sequence[Comparison],
    chosen: Sequence[float],
    rejected: Sequence[float],
    score: Callable[[Sequence[Answer]], Sequence[float | None]],
) -> dict[str, Any] | None:
    """Make the report card of a scorer.

    Args:
        rows: comparisons that it was not trained on.
        chosen: scores of the chosen answers.
        rejected: scores of the rejected answers.
        score: scores further answers; None for one that the scorer cannot read, such as one that is too long.

    Returns:
        See `report_card`; None where no pair has a better answer.
    """
    keys = [(prompt_key(row.prompt), row.chosen, row.rejected) for row in rows]
    present = set(keys)
    decided = [place for place, (prompt, a, b) in enumerate(keys) if (prompt, b, a) not in present]
    if not decided:
        return None
    pairs = [
        ScoredPair(
            keys[place][0],
            ("\n".join(f"{turn.role}: {turn.content}" for turn in row.prompt), row.chosen, row.rejected),
            (chosen[place], rejected[place]),
            (len(row.chosen), len(row.rejected)),
            row.margin,
            row.source,
            row.annotator,
        )
        for place, row in ((place, rows[place]) for place in decided)
    ]
    return report_card(pairs, _probes([rows[place] for place in decided], score))


def _probes(rows: Sequence[Comparison], score: Callable[[Sequence[Answer]], Sequence[float | None]]) -> list[Probe]:
    """Score the changed answers and the chosen ones together: equal texts in equal batches get equal scores."""
    changed = changed_answers(rows)
    expected = {change.name: change.expected for change in CHANGES}
    flat = [answer for answers in changed.values() for answer in answers]
    unchanged = {id(row): number for number, row in enumerate(rows[:MOST_ROWS])}
    scores = score([*((row, row.chosen) for row in rows[:MOST_ROWS]), *flat])
    before, after = scores[: len(unchanged)], iter(scores[len(unchanged) :])
    probes = []
    for name, answers in changed.items():
        both = [(before[unchanged[id(row)]], next(after)) for row, _ in answers]
        read = [(a, b) for a, b in both if a is not None and b is not None]
        if read:
            probes.append(Probe(name, expected[name], [a for a, _ in read], [b for _, b in read]))
    return probes
