"""A comparison of runs as plain text, safe to print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from pipelines.overview.run_comparison import Against, Difference, RunComparison
from pipelines.overview.wording import STATES, number
from pipelines.report.estimates import Estimate, many
from pipelines.report.safe_text import one_line

NAME_WIDTH = 36
VALUE_WIDTH = 44
NOTHING = "-"
CAVEAT = "Each run is one training: an interval covers the choice of prompts, not what another seed would give."


def plain(comparison: RunComparison) -> str:
    """Lay out a comparison, one block for each part of it."""
    blocks = [list(block) for block in (_calls(comparison), _settings(comparison), _stages(comparison))]
    if any(policy is not None for policy in comparison.policies):
        blocks.append(list(_results(comparison)))
    blocks += [list(_against(entry, comparison)) for entry in comparison.against]
    if comparison.against:
        blocks.append([CAVEAT])
    elif len(comparison.names) > 1:
        blocks.append(["No difference is estimated: results of an evaluation are needed in the first run and another."])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _names(comparison: RunComparison) -> list[str]:
    return [one_line(name, NAME_WIDTH) for name in comparison.names]


def _calls(comparison: RunComparison) -> Iterator[str]:
    yield from aligned(zip(_names(comparison), (one_line(call, 80) for call in comparison.calls), strict=True))
    for name, stages in zip(_names(comparison), comparison.unfinished, strict=True):
        if stages:
            told = ", ".join(f"{stage} is {STATES.get(state, state)}" for stage, state in stages.items())
            yield f"in {name}, {told}"


def _settings(comparison: RunComparison) -> Iterator[str]:
    if not comparison.settings:
        yield "No setting differs."
        return
    rows = [
        (f"  {key}", *(one_line(NOTHING if value is None else _value(value), VALUE_WIDTH) for value in values))
        for key, values in comparison.settings.items()
    ]
    yield from aligned([("settings that differ", *_names(comparison)), *rows])


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _stages(comparison: RunComparison) -> Iterator[str]:
    """Say which stages left the same files in all runs; a run that lacks one is named."""
    same = [name for name, digests in comparison.stages.items() if len(set(digests)) == 1 and digests[0] is not None]
    lacking = [name for name, digests in comparison.stages.items() if None in digests]
    other = [name for name in comparison.stages if name not in same and name not in lacking]
    groups = (("with the same files in all runs", same), ("with other files", other), ("not complete in all", lacking))
    rows = [(f"  {title}", ", ".join(names)) for title, names in groups if names]
    if rows:
        yield "stages"
        yield from aligned(rows)


def _results(comparison: RunComparison) -> Iterator[str]:
    policies = ("  policy", *(policy or "no results" for policy in comparison.policies))
    rows = [
        (f"  {one_line(name, NAME_WIDTH)}", *(_estimate(estimate) for estimate in estimates))
        for name, estimates in comparison.measures.items()
    ]
    yield from aligned([("results", *_names(comparison)), policies, *rows])


def _against(entry: Against, comparison: RunComparison) -> Iterator[str]:
    names = _names(comparison)
    if not entry.shared:
        yield f"{names[entry.run]} and {names[0]} have answered no prompt in common, so no difference is estimated."
        return
    yield f"{names[entry.run]} minus {names[0]}, on {many(entry.shared, 'shared prompt')}"
    yield from aligned((f"  {one_line(of.measure, NAME_WIDTH)}", *_difference(of)) for of in entry.differences)


def _difference(entry: Difference) -> tuple[str, ...]:
    if entry.difference.value is None:
        return (f"not compared: {entry.difference.reason}",)
    cells = (_estimate(entry.difference, sign=True),)
    return cells if entry.wins is None else (*cells, f"higher on {entry.wins.text(percent=True)}")


def _estimate(estimate: Estimate | None, *, sign: bool = False) -> str:
    if estimate is None or estimate.value is None:
        return NOTHING
    value, low, high = (_signed(bound, sign=sign) for bound in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _signed(value: float | None, *, sign: bool) -> str:
    return f"{'+' if sign and value is not None and value > 0 else ''}{number(value)}"


def aligned(rows: Sequence[Sequence[str]] | Iterator[Sequence[str]]) -> list[str]:
    """Lay out rows of visible text in columns that are as wide as their widest cell; rows may have fewer cells."""
    cells = [list(row) for row in rows]
    columns = max((len(row) for row in cells), default=0)
    widths = [max(cell_len(row[column]) for row in cells if column < len(row)) for column in range(columns)]
    return [
        "  ".join(
            text + " " * (width - cell_len(text)) for text, width in zip(row, widths[: len(row)], strict=True)
        ).rstrip()
        for row in cells
    ]
