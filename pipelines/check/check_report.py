"""All figures of a check, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from pipelines.check.duplicates import Leaks, Repeats
from pipelines.check.scan import answers_of
from pipelines.check.text_figures import Contents
from pipelines.check.token_lengths import Fit
from pipelines.data.faults import remedies
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Message
from pipelines.errors import DataError, RlhfError
from pipelines.report.statistics import Spread


@dataclass(frozen=True)
class Piece:
    """A part of an example; `trained` where the model learns from it: by imitation, or as an answer that is scored."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Example:
    """One row: where it stands, and by name what it is shown as: the dialogue, or the chosen and the rejected one."""

    place: str
    parts: dict[str, tuple[Piece, ...]]


def as_dialogue(place: str, row: CanonicalRow) -> Example:
    """The turns as they are, each with its role."""
    if isinstance(row, Demonstration):
        shown = row.text if row.text is not None else _turns(row.messages)
        return Example(place, {"text" if row.text is not None else "dialogue": (Piece(shown, False),)})
    prompt = _turns(row.prompt)
    return Example(place, {name: (Piece(f"{prompt}{end}", False),) for name, end in _endings(row)})


def as_model_input(place: str, row: CanonicalRow, encoder: Any, tokenizer: Any, train_on: Any) -> Example:
    """The tokens as text, through the chat template of a ChatEncoder and its tokenizer.

    Raises:
        DataError: the row cannot be encoded.
    """
    if isinstance(row, Demonstration):
        ids, labels = encoder.demonstration(row, train_on)
        marks = [label >= 0 for label in labels]
        return Example(place, {"dialogue": _pieces(tokenizer, ids, marks)})
    prompt = encoder.prompt(row.prompt)
    names = ("chosen", "rejected") if isinstance(row, Comparison) else ("answer",)
    parts = {}
    for name, answer in zip(names, answers_of(row), strict=False):
        ids = encoder.answer(row.prompt, answer)
        parts[name] = _pieces(tokenizer, prompt + ids, [False] * len(prompt) + [True] * len(ids))
    return Example(place, parts or {"prompt": _pieces(tokenizer, prompt, [False] * len(prompt))})


def _endings(row: CanonicalRow) -> list[tuple[str, str]]:
    """Return the answers that follow the prompt, by their names in the report."""
    names = ("chosen", "rejected") if isinstance(row, Comparison) else ("dialogue",)
    return [(name, f"\nassistant: {answer}") for name, answer in zip(names, answers_of(row), strict=False)] or [
        ("prompt", "")
    ]


def _turns(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def _pieces(tokenizer: Any, ids: Sequence[int], marks: Sequence[bool]) -> tuple[Piece, ...]:
    """Neighboring tokens that are alike in one piece."""
    return tuple(
        Piece(tokenizer.decode([token for token, _ in group], clean_up_tokenization_spaces=False), marked)
        for marked, group in groupby(zip(ids, marks, strict=True), key=lambda pair: pair[1])
    )


@dataclass(frozen=True)
class Preferences:
    """Figures of comparisons: pairs, those that are equal or of unequal length, and how often the longer was chosen.

    `share` is that of the unequal ones, with the bounds of its 95 % interval; None without such pairs.
    """

    pairs: int
    equal: int
    unequal: int
    longer_chosen: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class FileReport:
    """One file.

    Attributes:
        stage: which one it was read for; None: for whatever it serves.
        ties: rows whose answers are all tied, so that none is preferred; they give no row.
        bad: bad rows; `bad_kinds` counts them by kind, `bad_places` holds the first ones.
        error: the error as a run would print it, where the file could not be read to its end.
        serves: rows that each stage could use.
        system_share: of the rows with a system turn; `multi_turn_share`: of those with several user turns.
        languages: of some sampled rows; None where the extra is not installed.
        near: sampled rows that nearly repeat an earlier one.
        labels: of judgements: the share of good ones where they are true or false, else their spread.
        sampled: rows that `fits`, `near` and `contents` were measured on; equal to the good rows where all were.
        fits: how the rows fit each stage, in tokens; empty without a model.
    """

    path: str
    stage: str | None
    format: str | None
    reason: str | None
    rows_read: int
    ties: int
    bad: int
    bad_kinds: dict[str, int]
    bad_places: list[tuple[str, str]]
    error: dict[str, Any] | None
    kinds: dict[str, int]
    serves: dict[str, int]
    turns: Spread | None
    roles: dict[str, int]
    system_share: float
    multi_turn_share: float
    languages: dict[str, int] | None
    characters: Spread | None
    prompt_characters: Spread | None
    answer_characters: Spread | None
    repeats: Repeats
    near: int
    contents: Contents
    preferences: Preferences | None
    labels: dict[str, Any] | None
    sampled: int
    fits: Mapping[str, Fit]
    examples: list[Example]

    @property
    def good(self) -> int:
        """Rows that can be used."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Finding:
    """Something that must be looked at: its kind, the file (None: something between them), figures, and what to do."""

    code: str
    path: str | None
    message: str
    advice: str


@dataclass(frozen=True)
class Report:
    """All files, and what only shows between them: what stands in several files, leaks of the split, and findings.

    `model` is the one whose tokens were counted; `contradictions` counts those of all files together.
    """

    files: list[FileReport]
    model: str | None
    eval_fraction: float
    leaks: Leaks
    shared_prompts: int
    shared_rows: int
    contradictions: int
    findings: list[Finding] = field(default_factory=list)

    def problem(self) -> RlhfError | None:
        """Return the error that keeps the files from being used: a file that cannot be read, or bad rows.

        Rows that a stage would use and the model's chat template refuses are bad as well.
        """
        error = next((file.error for file in self.files if file.error), None)
        if error:
            return RlhfError.from_dict(error)
        bad = [file for file in self.files if file.bad]
        if not bad:
            return self._refused()
        rows = sum(file.rows_read for file in self.files)
        return DataError(
            f"{sum(file.bad for file in bad)} of {rows} rows are bad",
            where=bad[0].bad_places[0][0],
            hint="correct the rows, or set data.on_bad_row: drop to leave them out of a run"
            + remedies(kind for file in bad for kind in file.bad_kinds),
        )

    def _refused(self) -> RlhfError | None:
        fits = [fit for file in self.files for stage, fit in file.fits.items() if file.stage in (None, stage)]
        worst = max(fits, key=lambda fit: fit.refused, default=None)
        if worst is None or not worst.refused:
            return None
        return DataError(
            f"{worst.refused} of {worst.rows} rows cannot be encoded for {self.model}: {worst.reason}",
            where=worst.place,
            hint="correct the rows, set data.on_bad_row: drop to leave them out of a run, or change the template: "
            "model.chat_template, or model.merge_system_turn: true where it refuses system turns",
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return asdict(self)
