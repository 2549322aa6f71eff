"""The report as text, for somebody who sees such figures for the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pipelines.check.check_report import FileReport, Report
from pipelines.check.text_figures import SEVERAL
from pipelines.check.token_lengths import Fit
from pipelines.report.safe_text import visible
from pipelines.report.statistics import Spread

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH = 22


def lines(report: Report, mark: Callable[[str], str]) -> Iterator[str]:
    """The report line by line, what must be looked at first; `mark` sets off text that the model learns from."""
    yield from _findings(report)
    for file in report.files:
        yield from _file_lines(file, report, mark)
        yield ""
    if not any(file.good for file in report.files):
        return
    yield "the split" if len(report.files) == 1 else "all files together"
    if len(report.files) > 1:
        shared = f"{_count(report.shared_prompts, 'prompt')}, {_count(report.shared_rows, 'whole row')}"
        yield _line("in several files", shared)
        if any(file.preferences or file.labels for file in report.files):
            yield _line("contradictions", f"{_n(report.contradictions)}: within the files and between them")
    leaks = report.leaks
    yield _line(
        "prompts",
        f"{_n(leaks.train)} to train on, {_n(leaks.heldout)} held out (data.eval_fraction {report.eval_fraction:g})",
    )
    yield _line(
        "nearly on both sides",
        f"{_count(leaks.near, 'held-out prompt')} {'differs' if leaks.near == 1 else 'differ'} from a training prompt "
        "only in case, blanks or punctuation",
    )


def _findings(report: Report) -> Iterator[str]:
    if not report.findings:
        return
    yield "look at this first"
    several = len(report.files) > 1
    for finding in report.findings:
        where = f"{finding.path}: " if several and finding.path else ""
        yield f"  {visible(f'{where}{finding.message}')}"
        if finding.advice:
            yield f"    {visible(finding.advice)}"
    yield ""


def _file_lines(file: FileReport, report: Report, mark: Callable[[str], str]) -> Iterator[str]:
    yield visible(f"{file.path} (for {file.stage})" if file.stage else file.path)
    if file.format:
        yield _line("format", f"{file.format} ({file.reason})")
    ties = f", {_n(file.ties)} without a preference: their answers are tied" if file.ties else ""
    if file.rows_read:
        yield _line("rows", f"{_n(file.rows_read)} read, {_n(file.bad)} bad{ties}")
    for name, count in file.bad_kinds.items():
        yield _line("", visible(f"{_n(count)} x {name}"))
    for place, fault in file.bad_places:
        yield _line("", visible(f"{place}: {fault}"))
    if file.bad > len(file.bad_places):
        yield _line("", f"... and {_n(file.bad - len(file.bad_places))} more")
    if file.error:
        message = str(file.error["message"]).partition("\n")[0]
        what = "not read further" if file.rows_read else "not read"
        yield _line(what, visible(f"{file.error['where']}: {message}" if file.error["where"] else message))
    if not file.good:
        return
    yield _line("they hold", ", ".join(_count(count, kind) for kind, count in file.kinds.items()))
    yield _line("can train", ", ".join(f"{name} {_n(count)}" for name, count in file.serves.items()))
    yield from _dialogue_lines(file)
    yield from map(visible, _length_lines(file, report))
    yield from _repeat_lines(file)
    yield from _content_lines(file)
    yield from _feedback_lines(file)
    for example in file.examples:
        for name, pieces in example.parts.items():
            yield visible(f"  {example.place}, {name}:")
            texts = [(visible(piece.text), piece.trained) for piece in pieces]
            shown = "".join(mark(text) if trained else text for text, trained in texts)
            yield from (f"    {line}" for line in shown.split("\n"))


def _dialogue_lines(file: FileReport) -> Iterator[str]:
    if file.roles:
        yield _line("turns", _spread(file.turns, "a row"))
        yield _line("roles", ", ".join(f"{role} {_n(count)}" for role, count in file.roles.items()))
        yield _line(
            "share of rows",
            f"{file.system_share:.1%} with a system turn, {file.multi_turn_share:.1%} with several user turns",
        )
    if file.languages is None:
        yield _line("languages", "n/a: pip install 'rlhf[check]'")
    else:
        total = sum(file.languages.values())
        guessed = ", ".join(f"{code} {count / total:.0%}" for code, count in list(file.languages.items())[:8])
        yield _line("languages", f"{guessed} (guessed from {_count(total, 'row')})")


def _length_lines(file: FileReport, report: Report) -> Iterator[str]:
    yield _line("characters", _spread(file.characters, "a row"))
    for name, lengths in (("prompt", file.prompt_characters), ("answer", file.answer_characters)):
        if lengths is not None:
            yield _line(f"  {name}", _spread(lengths, ""))
    if report.model is None:
        yield _line("tokens", "n/a: give --model to count them and to see what is too long")
        return
    measured = "all rows" if file.sampled == file.good else f"{_count(file.sampled, 'row')} drawn at random"
    yield _line("tokens", f"of {report.model}, on {measured}")
    yield from _fit_lines(file.fits)


def _fit_lines(fits: Mapping[str, Fit]) -> Iterator[str]:
    for stage, fit in fits.items():
        yield _line(f"  {stage}", _spread(fit.tokens, ""))
        outcome = f"{_n(fit.dropped)} of {_count(fit.rows, 'row')} left out, {_n(fit.cut)} cut"
        yield _line("", f"at {_n(fit.limit)} tokens: {outcome}")
        if fit.refused:
            yield _line("", f"{_count(fit.refused, 'row')} cannot be encoded, the first {fit.place}: {fit.reason}")


def _repeat_lines(file: FileReport) -> Iterator[str]:
    repeats = file.repeats
    yield _line("prompts", f"{_n(repeats.prompts)} different")
    yield _line("exact duplicates", f"{_repeating(repeats.duplicates)} an earlier one")
    measured = "" if file.sampled == file.good else f"; among {_count(file.sampled, 'row')} drawn at random"
    yield _line("near duplicates", f"about {_repeating(file.near)} an earlier one with small changes{measured}")


def _content_lines(file: FileReport) -> Iterator[str]:
    texts = file.contents
    yield _line("HTML", f"{_count(texts.html, 'row')} with tags or entities outside code")
    if not texts.answers:
        return
    rejected = f", of the rejected {_n(texts.rejected_refusals)}" if texts.rejected else ""
    yield _line("refusals", f"{_n(texts.refusals)} of {_count(texts.answers, 'answer')} to be learned{rejected}")
    yield _line("repeated answers", f"{_n(texts.repeated)} stand for {SEVERAL} prompts or more")


def _feedback_lines(file: FileReport) -> Iterator[str]:
    told = file.preferences
    if told is not None:
        yield _line("equal pairs", f"{_n(told.equal)}: both answers are the same, so they teach nothing")
        yield _line(
            "contradictions",
            f"{_n(file.repeats.contradictions)}: the same two answers to a prompt, chosen now this, now that way",
        )
        if told.share is not None:
            pairs = f"{_count(told.unequal, 'pair')} of unequal length"
            yield _line("longer answer chosen", f"{told.share:.1%} [{told.low:.1%}, {told.high:.1%}] of {pairs}")
    if file.labels is not None:
        if "scores" in file.labels:
            yield _line("scores", _spread(file.labels["scores"], ""))
        else:
            good, bad = file.labels["good"], file.labels["bad"]
            yield _line("labels", f"{_n(good)} good, {_n(bad)} bad ({good / (good + bad):.1%} good)")
            yield _line(
                "contradictions", f"{_n(file.repeats.contradictions)}: the same answer to a prompt, now good, now bad"
            )


def _line(label: str, text: str) -> str:
    return f"  {label:{_WIDTH}}{text}".rstrip()


def _spread(lengths: Spread | None, unit: str) -> str:
    if lengths is None:
        return "none"
    figures = f"5 % up to {_n(lengths.low)}, half up to {_n(lengths.median)}, 95 % up to {_n(lengths.high)}"
    return f"{_bars(lengths.bars)}  {figures}, most {_n(lengths.most)} {unit}".rstrip()


def _bars(counts: tuple[int, ...]) -> str:
    """A histogram one character high; what is there at all can be seen."""
    top = max(counts)
    return "".join(_BLOCKS[-(-count * (len(_BLOCKS) - 1) // top)] for count in counts)


def _n(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.4g}"


def _count(number: int, noun: str) -> str:
    return f"{_n(number)} {noun}" if number == 1 else f"{_n(number)} {noun}s"


def _repeating(rows: int) -> str:
    return "1 row repeats" if rows == 1 else f"{_n(rows)} rows repeat"
