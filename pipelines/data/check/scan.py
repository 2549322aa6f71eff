"""One pass over a file: everything that is counted, in memory that a million rows do not fill.

Of every row a few 64-bit hashes and lengths stay (about 75 bytes), and of at most `SAMPLE_ROWS` rows the row itself.
"""

from __future__ import annotations

import random
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.config.data import Source
from pipelines.data.canonical import to_line
from pipelines.data.convert import can_serve, prompt_of
from pipelines.data.faults import SHOWN_PLACES, FaultLog
from pipelines.data.read import SourceReader, with_progress
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message, Prompt
from pipelines.data.split import plain, prompt_key
from pipelines.errors import DataError
from pipelines.progress import Reporter

SAMPLE_ROWS = 10_000
"""Rows that stay in memory for what is too slow to do on every row: tokens, near duplicates, languages."""

_NOT_WORDS = re.compile(r"[\W_]+")
_ASCII_LETTERS = {code: None for code in range(128) if not chr(code).isalnum()}
_ALL = 2**64 - 1
_EVEN = _ALL - 1


class Scan:
    """What one file holds; `read` fills it.

    Args:
        source: where it is.
        kind: what is needed; None: the richest rows that the file holds.
        examples: first rows to keep.

    Attributes:
        format: name of the format, and in `reason` why it is that; None where no row showed one.
        rows_read: rows of the file, bad ones among them.
        faults: the bad rows by kind.
        bad: place and fault of the first of them.
        error: why the file could not be read to its end.
        kinds: good rows by canonical kind.
        roles: turns by role, the answers included.
        texts: rows that are no dialogue but a text to be trained on as it is.
        turns: turns of each good row, the answer included.
        characters: [rows] of the whole row; prompt_characters and answer_characters of its parts, an entry an answer.
        rows, prompts, loose: [rows] hashes of the row, of its prompt, and of its prompt's letters and digits alone.
        pairs: a hash of prompt and both answers in either order; the lowest bit says which was chosen.
        labels: of judgements, true as 1.
        sample: a uniform sample of the good rows, in the order of the file where it holds all.
        first: place and row of the first good rows.
    """

    def __init__(self, source: Source, kind: type[Any] | None, examples: int) -> None:
        self.path = source.path
        self.format: str | None = None
        self.reason: str | None = None
        self._source, self._kind = source, kind
        self.rows_read = 0
        self.faults = FaultLog()
        self.bad: list[tuple[str, str]] = []
        self.error: DataError | None = None
        self.kinds: Counter[type[CanonicalRow]] = Counter()
        self.roles: Counter[str] = Counter()
        self.with_system = self.multi_turn = self.texts = 0
        self.turns = array("L")
        self.characters, self.prompt_characters, self.answer_characters = array("L"), array("L"), array("L")
        self.rows, self.prompts, self.loose, self.pairs = array("Q"), array("Q"), array("Q"), array("Q")
        self.equal_pairs = self.longer_chosen = self.unequal_lengths = 0
        self.labels = array("d")
        self.scaled_labels = False
        self.sample: list[CanonicalRow] = []
        self.first: list[tuple[str, CanonicalRow]] = []
        self._examples = examples
        self._random = random.Random(0)

    @property
    def good(self) -> int:
        """Rows that are a canonical row."""
        return len(self.rows)

    def serving(self, needed: type[CanonicalRow]) -> int:
        """Rows that can become `needed`."""
        count = sum(count for kind, count in self.kinds.items() if can_serve(kind, needed))
        return count - self.texts if needed is Prompt else count

    def read(self, reporter: Reporter) -> None:
        """Read the file to its end, or to where it cannot be read; `error` says so."""
        reader: SourceReader[Any] | None = None
        try:
            reader = SourceReader(self._source, self._kind)
            for outcome in with_progress(reader, reporter):
                self.rows_read += 1
                for row in outcome.rows:
                    self._take(outcome.record.place, row)
                if outcome.fault is not None:
                    self.faults.add(outcome.record.place, outcome.fault)
                    if len(self.bad) < SHOWN_PLACES:
                        self.bad.append((outcome.record.place, str(outcome.fault)))
        except DataError as error:
            self.error = error
        if reader is not None and reader.format is not None:
            self.format, self.reason = reader.format.name, reader.reason

    def _take(self, place: str, row: CanonicalRow) -> None:
        self.kinds[type(row)] += 1
        if len(self.first) < self._examples:
            self.first.append((place, row))
        self._keep_in_sample(row)
        prompt, answers = prompt_of(row), answers_of(row)
        roles = roles_of(row)
        self.texts += not roles
        self.roles.update(roles)
        self.turns.append(len(roles))
        self.with_system += "system" in roles
        self.multi_turn += roles.count("user") > 1
        key = prompt_key(prompt)
        self.rows.append(row_key(row, prompt))
        self.prompts.append(key)
        self.loose.append(loose_key(prompt))
        before = sum(len(message.content) for message in prompt)
        self.prompt_characters.append(before)
        self.answer_characters.extend(map(len, answers))
        self.characters.append(before + sum(map(len, answers)))
        if isinstance(row, Comparison):
            self._compare(key, row)
        elif isinstance(row, Judgement):
            self.labels.append(row.label)
            self.scaled_labels = self.scaled_labels or not isinstance(row.label, bool)

    def _compare(self, key: int, row: Comparison) -> None:
        chosen, rejected = plain(row.chosen), plain(row.rejected)
        if chosen == rejected:
            self.equal_pairs += 1
            return
        swapped = chosen > rejected
        low, high = (rejected, chosen) if swapped else (chosen, rejected)
        self.pairs.append(hash((key, low, high)) & _EVEN | swapped)
        if len(chosen) != len(rejected):
            self.unequal_lengths += 1
            self.longer_chosen += len(chosen) > len(rejected)

    def _keep_in_sample(self, row: CanonicalRow) -> None:
        """Algorithm R: at any time every row so far is in the sample with the same probability."""
        if len(self.sample) < SAMPLE_ROWS:
            self.sample.append(row)
            return
        place = int(self._random.random() * (self.good + 1))
        if place < SAMPLE_ROWS:
            self.sample[place] = row


def roles_of(row: CanonicalRow) -> list[str]:
    """Who speaks in each turn, the answer included; none in a text that is trained on as it is."""
    if isinstance(row, Demonstration):
        return [message.role for message in row.messages]
    return [*(message.role for message in row.prompt), *(["assistant"] if answers_of(row) else [])]


def answers_of(row: CanonicalRow) -> tuple[str, ...]:
    """The answers that follow the prompt: one, two of a comparison, none of a prompt."""
    if isinstance(row, Comparison):
        return row.chosen, row.rejected
    if isinstance(row, Judgement):
        return (row.completion,)
    if isinstance(row, Demonstration) and row.messages:
        return tuple(message.content for message in row.messages[len(prompt_of(row)) :])
    return ()


def text_of(row: CanonicalRow) -> str:
    """All words of a row."""
    return "\n".join([*(message.content for message in prompt_of(row)), *answers_of(row)])


def row_key(row: CanonicalRow, prompt: Sequence[Message]) -> int:
    """64 bits that stand for a row within this process; two rows of a million collide with a probability of 3e-8."""
    if any(message.tools or message.tool_calls for message in (*prompt, *getattr(row, "messages", ()))):
        return hash(to_line(row)) & _ALL  # the hash of a turn leaves tools out
    return hash(row) & _ALL


def loose(text: str) -> str:
    """Letters and digits alone, in lower case; a text without any stays as it is."""
    if text.isascii():
        return text.lower().translate(_ASCII_LETTERS) or text
    return _NOT_WORDS.sub("", unicodedata.normalize("NFKC", text).casefold()) or text


def loose_key(messages: Sequence[Message]) -> int:
    """64 bits that are equal for prompts that differ only in case, blanks and punctuation."""
    return hash(tuple([loose(message.content) for message in messages])) & _ALL
