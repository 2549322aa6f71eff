"""Findings of a check: what must be looked at before anything is trained, the gravest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipelines.check.check_report import FileReport, Finding, Report
from pipelines.data.faults import remedies, shorten

FEW, MANY = 0.01, 0.05
"""Shares of rows from which what harms, and what only wastes, is worth a look."""
REFUSING = 0.02
LENGTH_BIAS = 0.65
"""Share of pairs whose longer answer was chosen that is a bias where all of its interval lies above it."""
ONE_SIDED = 0.95
"""Share of one label from which on there is next to nothing to learn from the other."""
SECOND_LANGUAGE = 0.1
FEW_ROWS = 20
"""Rows below which a share says little."""
_SENTENCE = 15
"""Characters from which on an answer is a sentence; shorter ones may be the names of classes."""
_Found = Iterator[tuple[str, str, str]]
"""Code, message and advice."""


def with_findings(report: Report) -> Report:
    """Return the report with its findings."""
    of_files = [
        Finding(code, file.path, message, advice)
        for file in report.files
        for rules in (_unusable, _judgements, _answers, _texts)
        for code, message, advice in rules(file)
    ]
    return replace(report, findings=of_files + [Finding(code, None, *words) for code, *words in _between(report)])


def _unusable(file: FileReport) -> _Found:
    """Rows that no stage will train on, or not whole."""
    if file.error:
        message = str(file.error["message"]).partition("\n")[0]
        yield "unreadable", f"not read{' further' * bool(file.rows_read)}: {message}", str(file.error["hint"] or "")
    if file.bad:
        kind, count = next(iter(file.bad_kinds.items()))
        most = f", {count:,} of them: {kind}" if count < file.bad else f": {kind}"
        yield (
            "bad_rows",
            f"{file.bad:,} of {file.rows_read:,} rows are bad{most}",
            "a run ends at them: correct them, or set data.on_bad_row: drop" + remedies(file.bad_kinds),
        )
    for stage, fit in file.fits.items():
        lost = fit.dropped + fit.refused
        if fit.refused or (fit.rows and lost + fit.cut >= MANY * fit.rows):
            yield (
                "length",
                f"{stage} leaves out {lost:,} and cuts {fit.cut:,} of {fit.rows:,} rows",
                fit.reason or f"its limit is {fit.limit:,} tokens: raise it, or shorten the rows",
            )


def _judgements(file: FileReport) -> _Found:
    """Signs that the judgements teach something else than quality, or nothing."""
    pairs, labels = file.preferences, file.labels or {}
    good, bad = labels.get("good", 0), labels.get("bad", 0)
    judged = pairs.pairs if pairs else good + bad
    if judged and file.repeats.contradictions >= FEW * judged:
        yield (
            "contradictions",
            f"the same answers are judged now this, now that way {file.repeats.contradictions:,} times",
            "nothing can be learned from them: settle them, or leave both out",
        )
    if pairs and pairs.equal >= FEW * pairs.pairs:
        yield (
            "equal_pairs",
            f"in {pairs.equal:,} of {pairs.pairs:,} pairs both answers are the same",
            "a run leaves them out; were the columns mixed up when the file was made?",
        )
    if pairs and pairs.share is not None and pairs.low is not None and pairs.high is not None:
        longer = pairs.low > LENGTH_BIAS
        if longer or pairs.high < 1 - LENGTH_BIAS:
            share = pairs.share if longer else 1 - pairs.share
            yield (
                "length_bias",
                f"the {'longer' if longer else 'shorter'} answer was chosen in {share:.1%} of the pairs",
                "a reward model may learn length instead of quality, and PPO would follow it: add pairs whose "
                f"{'shorter' if longer else 'longer'} answer is better, or balance the lengths",
            )
    if good + bad >= FEW_ROWS and max(good, bad) >= ONE_SIDED * (good + bad):
        yield (
            "one_sided_labels",
            f"{max(good, bad):,} of {good + bad:,} answers are judged {'good' if good > bad else 'bad'}",
            "a classifier that always says so is right as often: add answers of the other kind",
        )


def _answers(file: FileReport) -> _Found:
    """Signs that the preferred answers are not those that a model should give."""
    texts = file.contents
    side = "chosen answers" if file.preferences else "answers"
    if texts.refusals >= max(2, REFUSING * texts.answers):
        rejected = f"; of the rejected ones {texts.rejected_refusals:,}" if texts.rejected else ""
        yield (
            "refusals",
            f"{texts.refusals:,} of {texts.answers:,} {side} refuse{rejected}",
            "a model trained on them refuses as well: are all of these questions to be declined?",
        )
    if texts.repeated >= REFUSING * texts.answers and len(texts.commonest) >= _SENTENCE:
        yield (
            "repeated_answers",
            f"{texts.repeated:,} of {texts.answers:,} {side} stand for several prompts; the commonest for "
            f"{texts.commonest_prompts:,}: {shorten(texts.commonest)}",
            "a model learns to give them to any question: keep few of each",
        )


def _texts(file: FileReport) -> _Found:
    """Signs that the texts are not as they should be."""
    texts, good = file.contents, file.good
    if texts.html >= max(1, FEW * texts.rows):
        yield (
            "html",
            f"{texts.html:,} of {texts.rows:,} rows hold HTML, such as {shorten(texts.html_example)}",
            "a model learns to write tags: convert the texts, unless they are to be there",
        )
    if file.repeats.duplicates > MANY * good or file.near > MANY * file.sampled:
        yield (
            "duplicates",
            f"{file.repeats.duplicates:,} of {good:,} rows repeat an earlier one, and about {file.near:,} of "
            f"{file.sampled:,} nearly do",
            "a run leaves out exact repetitions only; near ones count several times",
        )
    guesses = list((file.languages or {}).items())
    total = sum(count for _, count in guesses)
    if total >= FEW_ROWS and len(guesses) > 1 and guesses[1][1] >= SECOND_LANGUAGE * total:
        shares = ", ".join(f"{code} {count / total:.0%}" for code, count in guesses[:3])
        yield (
            "languages",
            f"the rows are in several languages: {shares}",
            "is that meant? short texts are often misjudged",
        )


def _between(report: Report) -> _Found:
    """Signs that only show between the files, or between the sides of the split."""
    leaks = report.leaks
    if any(file.good for file in report.files) and not (leaks.train and leaks.heldout):
        yield (
            "split",
            f"the prompts are all on one side of the split: {leaks.train:,} to train on, {leaks.heldout:,} held out",
            "a run needs prompts of both sides: add rows with other prompts",
        )
    if report.shared_rows:
        yield (
            "shared_rows",
            f"{report.shared_rows:,} whole rows stand in more than one file",
            "is one of the files a test set? what was trained on cannot measure anything",
        )
    if leaks.near > FEW * leaks.heldout:
        yield (
            "leaks",
            f"{leaks.near:,} of {leaks.heldout:,} held-out prompts nearly stand among the training prompts",
            "held-out figures look better than they are: make such prompts the same, so that the split sees it",
        )
