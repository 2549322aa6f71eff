"""An agreement report for people: blocks of figures and tables, as plain text or Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from pipelines.labels.agreement.agreement_report import AgreementReport, Contradicted, Disputed
from pipelines.labels.agreement.annotator_figures import AnnotatorFigures
from pipelines.report.estimates import Estimate, many
from pipelines.report.safe_text import literal, one_line, wrap

WIDTH = 120
NAME_WIDTH = 20
TEXT_WIDTH = 60
MOST_PAIRS = 15
MOST_CONTROLS = 10
NOTHING = "-"
_COLUMNS = ("annotator", "labels", "skipped", "flagged", "rest", "controls", "first", "longer", "seconds", "chars/s")
_MEANING = (
    "In %, with 95 % intervals: rest, agreement with the other annotators of the same tasks (for a scale, the "
    "correlation with them); controls, accuracy on control tasks; first, how often the answer shown first is the best "
    "(by chance); longer, how often the longer of two answers wins. seconds: median per task. chars/s: new characters "
    "to read per second; above 50, nobody reads them all."
)


@dataclass(frozen=True)
class Block:
    """A titled part of the report: rows, whose first cell is a label, under a header, if it has one, and notes below.

    Text in it is visible characters only, on one line each.
    """

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


def blocks(report: AgreementReport) -> Iterator[Block]:
    """The parts of the report; those with nothing in them are left out."""
    yield _figures(report)
    people = [one for one in report.annotators if one.labels or one.skipped or one.flagged]
    if people:
        yield Block("Annotators", _COLUMNS, tuple(_person(one, report.kind) for one in people), (_MEANING,))
    if report.suspicious:
        notes = tuple(one_line(pattern, 10_000) for pattern in report.suspicious)
        yield Block("Worth a look (facts, not judgements)", notes=notes)
    if report.contradicted:
        yield _contradicted(report.contradicted)
    if report.pairs:
        yield _pairs(report)
    if report.disputed:
        yield Block("Most disagreement (values in the order of the file)", notes=tuple(map(_dispute, report.disputed)))
    if report.flagged:
        rows = tuple(
            f"{one.task}  {_name(one.annotator)}: {one_line(one.comment, TEXT_WIDTH) or 'no comment'}  "
            f"[{one_line(one.prompt, TEXT_WIDTH)}]"
            for one in report.flagged
        )
        yield Block("Flagged", notes=rows)


def fitted(block: Block, width: int) -> Block:
    """Return the block, without intervals if its table would be wider than `width` columns."""
    if not block.header or max(map(cell_len, aligned(block))) <= width:
        return block
    rows = tuple(tuple(re.sub(r" \[[^]]*\]$| \[[^]]*\](?= \()", "", cell) for cell in row) for row in block.rows)
    return replace(block, rows=rows, notes=(*block.notes, "The intervals do not fit here; --json and --out have them."))


def plain(reports: Sequence[AgreementReport]) -> str:
    """Return the reports as plain text that is safe to print."""
    lines: list[str] = []
    for report in reports:
        for block in (fitted(block, WIDTH - 2) for block in blocks(report)):
            lines += [block.title, *(f"  {line}" for line in aligned(block))]
            for note in block.notes:
                lines += wrap(note, WIDTH, first="  ", indent="    ")
            lines.append("")
    return "\n".join([*lines, *_reader_notes(reports)]).rstrip("\n") + "\n"


def markdown(reports: Sequence[AgreementReport]) -> str:
    """Return the reports as Markdown, with all foreign text escaped."""
    lines = ["# Agreement", ""]
    for report in reports:
        for number, block in enumerate(blocks(report)):
            lines += [f"{'###' if number else '##'} {literal(block.title)}", ""]
            if block.rows:
                header = block.header or ("", *("" for _ in block.rows[0][1:]))
                lines += [_md(header), "|---|" + "---:|" * (len(header) - 1), *map(_md, block.rows), ""]
            lines += [*(f"- {literal(note)}" for note in block.notes), ""] if block.notes else []
    return "\n".join([*lines, *(f"- {literal(note)}" for note in _reader_notes(reports))]).rstrip("\n") + "\n"


def _md(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(literal, cells)) + " |"


def _reader_notes(reports: Sequence[AgreementReport]) -> list[str]:
    notes = reports[0].notes if reports else {}
    return [f"{count} {one_line(what, 10_000)}" for what, count in notes.items() if count]


def aligned(block: Block) -> Iterator[str]:
    """Yield the rows as aligned lines: the label to the left, figures to the right."""
    rows = [block.header, *block.rows] if block.header else list(block.rows)
    if not rows:
        return
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        label = row[0] + " " * (widths[0] - cell_len(row[0]))
        if not block.header:
            yield "  ".join([label, *row[1:]]).rstrip()
            continue
        cells = (" " * (width - cell_len(cell)) + cell for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join([label, *cells]).rstrip()


def _figures(report: AgreementReport) -> Block:
    overlap = f"{report.overlapping} of them by two or more"
    counts = f"{many(report.labels, 'label')}, {report.who}, {many(report.tasks, 'task')}"
    title = f"{report.question} ({report.kind}): {counts}, "
    chance = f", by chance {100 * report.chance:.0f} %" if report.chance is not None else ""
    rows = [(f"Krippendorff's alpha, {report.level}", report.alpha.text())]
    if report.kind in ("ranking", "pairwise"):
        rows.append(("Kendall's tau-b, mean", report.tau.text()))
    rows.append(("pairwise agreement", report.pairwise.text(percent=True) + chance))
    rows.append(("the longer answer wins", report.longer_wins.text(percent=True)))
    notes = [f"Simulated: {report.whose}."] if report.simulated else []
    if report.unknown_labels:
        unknown = f"{many(report.unknown_labels, 'label')} of {report.labels} without a known annotator"
        notes.append(f"{unknown}: counted for agreement, and not for any person.")
    return Block(title + overlap, rows=tuple(rows), notes=tuple(notes))


def _person(one: AnnotatorFigures, kind: str) -> tuple[str, ...]:
    first = _share(one.first_shown)
    if one.first_expected is not None:
        first += f" ({100 * one.first_expected:.0f})"
    return (
        _name(one.name) + (" (simulated)" if one.simulated else ""),
        str(one.labels),
        str(one.skipped),
        str(one.flagged),
        # of a scale it is a correlation
        _share(one.rest) if kind != "scale" or one.rest.value is None else one.rest.text(),
        _share(one.controls),
        first,
        _share(one.longer_wins),
        NOTHING if one.seconds is None else f"{one.seconds:.1f}",
        NOTHING if one.characters_per_second is None else f"{one.characters_per_second:.0f}",
    )


def _share(figure: Estimate) -> str:
    return NOTHING if figure.value is None else figure.text(percent=True).replace(" %", "")


def _pairs(report: AgreementReport) -> Block:
    lowest = sorted(report.pairs, key=lambda pair: pair.agreement.value or 0.0)
    rows = tuple(
        (f"{_name(pair.first)} and {_name(pair.second)}", str(pair.tasks), _share(pair.agreement))
        for pair in lowest[:MOST_PAIRS]
    )
    rest = len(report.pairs) - len(rows)
    notes = (_more(rest),) if rest else ()
    return Block("Pairs of annotators, the lowest agreement first", ("", "tasks", "agreement, %"), rows, notes)


def _dispute(one: Disputed) -> str:
    return f"{one.task}  spread {one.spread:.2f}  {_values(one.values)}  [{one_line(one.prompt, TEXT_WIDTH)}]"


def _contradicted(tasks: Sequence[Contradicted]) -> Block:
    rest = len(tasks) - MOST_CONTROLS
    notes = [*map(_contradiction, tasks[:MOST_CONTROLS]), *([_more(rest)] if rest > 0 else [])]
    return Block("Controls whose key most people contradict (ignored for everybody)", notes=tuple(notes))


def _more(rest: int) -> str:
    return f"and {rest} more; all of them with --json"


def _contradiction(one: Contradicted) -> str:
    key = " ".join(map(str, one.key))
    return f"{one.task}  key {key}  {_values(one.values)}  [{one_line(one.prompt, TEXT_WIDTH)}]"


def _values(values: Mapping[str, tuple[int, ...]]) -> str:
    return "  ".join(f"{_name(name)} {' '.join(map(str, value))}" for name, value in values.items())


def _name(name: str) -> str:
    return one_line(name, NAME_WIDTH)
