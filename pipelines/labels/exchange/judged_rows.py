"""Rows of public preference data, several answers with verdicts, as tasks and labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.config.data_section import Source
from pipelines.data.canonical import prompt_of
from pipelines.data.formats.verdict import TwoAnswers
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison
from pipelines.errors import DataError
from pipelines.labels.exchange.foreign_task import ForeignTask
from pipelines.labels.exchange.gather import LabelCollection, ReadingOptions
from pipelines.labels.exchange.verdicts import Verdict
from pipelines.labels.label_types import Answer, LabelSet, Task

QUESTION = "overall"
COLUMNS = ("verdict", "verdicts", "strength", "annotator", "source")
"""Columns that may have another name, beside those of all files of labels."""
GRADED = "verdicts with a score or a strength (read as which answer is better)"


def is_judged_row(row: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    """Whether the row, its columns renamed to ours, has answers and a verdict on them."""
    return TwoAnswers.likeness({**row, **{ours: row[theirs] for ours, theirs in columns.items() if theirs in row}}) > 0


def read_judged_rows(path: Path, reading: ReadingOptions) -> LabelSet:
    """Read a task of each row, and a label of each annotator, or the one of the row.

    A row that nobody could train on, or that nobody has judged, is left out and counted.

    Raises:
        DataError: the file cannot be read, a verdict does not say which answer it means, or no row is left.
        UsageError: there is no such column.
    """
    collection = LabelCollection(reading)
    source = Source(
        path=str(path), format=TwoAnswers.name, columns=dict(reading.columns), verdicts=dict(reading.choices)
    )
    for outcome in SourceReader(source, Comparison):
        place, row = outcome.record.place, outcome.fitted
        if outcome.fault is not None and outcome.fault.field:
            told = str(outcome.fault).replace("`--verdicts", f"`rlhf labels convert {path.name} --to tasks --value")
            raise DataError(told, where=place)
        if not isinstance(row, TwoAnswers):
            collection.leave_out(str(outcome.fault), place)
            continue
        _, answers = row.task()
        texts = tuple(Answer(answer.text, answer.model) for answer in answers)
        # nothing tells in which order the annotators saw the answers
        foreign = ForeignTask(
            Task(prompt_of(*row.prompts()), texts, source=row.source), tuple(map(str, range(1, len(texts) + 1))), ()
        )
        foreign = collection.add_task(foreign)
        for opinion in row.opinions(answers):
            collection.notes[GRADED] += opinion.measured
            levels = sorted(set(opinion.worth), reverse=True)
            verdict = Verdict(foreign, opinion.annotator or collection.nobody(foreign), place, collection.notes)
            ranks = tuple(levels.index(worth) + 1 for worth in opinion.worth)
            verdict.values[QUESTION] = ("pairwise" if len(texts) == 2 else "ranking", ranks)
            collection.verdicts.append(verdict)
    return collection.finish(str(path))
