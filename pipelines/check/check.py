"""Checking data sources: from sources to a report."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.check.check_report import Example, FileReport, Preferences, Report, as_dialogue, as_model_input
from pipelines.check.duplicates import contradictions, in_several, leaks, near_duplicates, repeats
from pipelines.check.findings import with_findings
from pipelines.check.scan import Scan, loose, text_of
from pipelines.check.text_figures import contents_of
from pipelines.check.token_lengths import Measure
from pipelines.config import Config
from pipelines.config.data_section import Source
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Prompt
from pipelines.errors import DataError
from pipelines.report.statistics import spread, wilson
from pipelines.run.reporting import Reporter

GUESSED_ROWS = 200
_CHARACTERS = 1000


def languages(texts: Sequence[str]) -> Counter[str] | None:
    """ISO 639-1 codes of 200 texts from everywhere among these; None where the package is not installed."""
    try:
        import py3langid
    except ImportError:
        return None
    drawn = texts if len(texts) <= GUESSED_ROWS else random.Random(0).sample(texts, GUESSED_ROWS)
    return Counter(py3langid.classify(text[:_CHARACTERS])[0] for text in drawn)


STAGES: dict[str, type[Demonstration] | type[Comparison] | type[Judgement] | type[Prompt]] = {
    "sft": Demonstration,
    "reward": Comparison,
    "pointwise": Judgement,
    "ppo": Prompt,
}
"""What each stage is trained on; pointwise: the reward stage with that objective."""


def check(
    sources: Sequence[Source],
    config: Config,
    reporter: Reporter,
    *,
    stage: str | Sequence[str] | None = None,
    with_model: bool = False,
    examples: int = 3,
) -> Report:
    """Look at data files. Bad rows and unreadable files are part of the report.

    Args:
        stage: read them as sft, reward, pointwise or ppo would, or each as its own of them; None: as the richest rows
            that they hold.
        with_model: count tokens with the model's tokenizer.
        examples: rows of each file to show.

    Raises:
        ArtifactError, HubError: the tokenizer cannot be had.
    """
    measure = Measure(config) if with_model else None
    stages = [stage] * len(sources) if stage is None or isinstance(stage, str) else list(stage)
    scans, files = [], []
    for source, name in zip(sources, stages, strict=True):
        scan = Scan(source, STAGES[name] if name is not None else None, examples, config.data.split_by)
        scan.read(reporter)
        scans.append(scan)
        files.append(_file_report(scan, name, config, measure, reporter))
        scan.sample.clear()
        scan.places.clear()
    prompts, sides, words = array("Q"), array("Q"), array("Q")
    for scan in scans:
        prompts.extend(scan.prompts)
        sides.extend(scan.sides)
        words.extend(scan.loose)
    report = Report(
        files=files,
        model=config.model.name_or_path if with_model else None,
        eval_fraction=config.data.eval_fraction,
        leaks=leaks(prompts, sides, words, config.data.eval_fraction),
        shared_prompts=in_several([scan.prompts for scan in scans]),
        shared_rows=in_several([scan.rows for scan in scans]),
        contradictions=contradictions([scan.pairs for scan in scans]),
    )
    return with_findings(report)


def _file_report(
    scan: Scan, stage: str | None, config: Config, measure: Measure | None, reporter: Reporter
) -> FileReport:
    texts = [text_of(row) for row in scan.sample]
    guesses = languages(texts)
    good = max(scan.good, 1)
    return FileReport(
        path=scan.path,
        stage=stage,
        format=scan.format,
        reason=scan.reason,
        rows_read=scan.rows_read,
        ties=scan.ties,
        bad=scan.faults.count,
        bad_kinds=dict(scan.faults.kinds.most_common()),
        bad_places=scan.bad,
        error=scan.error.as_dict() if scan.error else None,
        kinds={kind.__name__.lower(): count for kind, count in scan.kinds.most_common()},
        serves={name: scan.serving(kind) for name, kind in STAGES.items()},
        turns=spread(scan.turns),
        roles=dict(scan.roles.most_common()),
        system_share=scan.with_system / good,
        multi_turn_share=scan.multi_turn / good,
        languages=dict(guesses.most_common()) if guesses is not None else None,
        characters=spread(scan.characters),
        prompt_characters=spread(scan.prompt_characters),
        answer_characters=spread(scan.answer_characters),
        repeats=repeats(scan.rows, scan.prompts, scan.pairs),
        near=near_duplicates([loose(text) for text in dict.fromkeys(texts)], reporter),
        contents=contents_of(scan.sample),
        preferences=_preferences(scan),
        labels=_labels(scan),
        sampled=len(scan.sample),
        fits=measure.fits(scan.sample, scan.places, reporter) if measure else {},
        examples=[_example(place, row, measure, config) for place, row in scan.first],
    )


def _preferences(scan: Scan) -> Preferences | None:
    pairs = scan.kinds[Comparison]
    if not pairs:
        return None
    longer, unequal = scan.longer_chosen, scan.unequal_lengths
    low, high = wilson(longer, unequal) if unequal else (None, None)
    return Preferences(pairs, scan.equal_pairs, unequal, longer, longer / unequal if unequal else None, low, high)


def _labels(scan: Scan) -> dict[str, Any] | None:
    if not scan.kinds[Judgement]:
        return None
    if scan.scaled_labels:
        return {"scores": spread(scan.labels)}
    return {"good": int(sum(scan.labels)), "bad": len(scan.labels) - int(sum(scan.labels))}


def _example(place: str, row: CanonicalRow, measure: Measure | None, config: Config) -> Example:
    if measure is None:
        return as_dialogue(place, row)
    try:
        return as_model_input(place, row, measure.encoder, measure.tokenizer, config.sft.train_on)
    except DataError:  # counted and explained with the lengths
        return as_dialogue(place, row)
