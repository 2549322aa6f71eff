"""One pass over a file that counts everything, in little memory even for a million rows.

Of every row a few 64-bit hashes and lengths stay (about 80 bytes), and of at most `SAMPLE_ROWS` rows the row itself.
"""

from __future__ import annotations

import random
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipelines.config.data_section import Source, SplitBy
from pipelines.data.canonical import can_serve, prompt_of, to_line
from pipelines.data.faults import SHOWN_PLACES, FaultLog
from pipelines.data.read import SourceReader, with_progress
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message, Prompt
from pipelines.data.split import plain, prompt_key, question, split_key
from pipelines.errors import RlhfError
from pipelines.run.reporting import Reporter

SAMPLE_ROWS = 10_000
"""Rows that stay in memory for what is too slow to do on every row: tokens, near duplicates, languages."""

_NOT_WORDS = re.compile(r"[\W_]+")
_LOWER = bytes(range(256)).lower()
_NOT_LETTERS = bytes(code for code in range(128) if not chr(code).isalnum())
_SHORT = 4
"""Rows of up to so many turns are counted by who speaks in them: few orders, so most rows cost one look-up."""
_ALL = 2**64 - 1
_EVEN = _ALL - 1
_ANSWERER: dict[type[CanonicalRow], tuple[str, ...]] = {
    Comparison: ("assistant",),
    Judgement: ("assistant",),
    Prompt: (),
}


class Scan:
    """Figures of one file, filled by `read`.

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
        ties: rows that give nothing because all their answers are tied.
        turns: turns of each good row, the answer included.
        characters: [rows] of the whole row; prompt_characters and answer_characters of its parts, an entry an answer.
        rows, prompts, sides: [rows] hashes of the row, of its prompt, and of what the split goes by.
        loose: [rows] hashes of the letters and digits of the question.
        pairs: a hash of prompt and both answers in either order; the lowest bit says which was chosen. Of an answer
            that was judged good or bad, a hash of prompt and answer; the lowest bit says which.
        labels: of judgements, true as 1.
        sample: a uniform sample of the good rows, in the order of the file where it holds all.
        places: theirs.
        first: place and row of the first good rows.
    """

    def __init__(self, source: Source, kind: type[Any] | None, examples: int, split_by: SplitBy = "question") -> None:
        self.path = source.path
        self.format: str | None = None
        self.reason: str | None = None
        self._source, self._kind, self._split_by = source, kind, split_by
        self.rows_read = 0
        self.faults = FaultLog()
        self.bad: list[tuple[str, str]] = []
        self.error: RlhfError | None = None
        self.kinds: Counter[type[CanonicalRow]] = Counter()
        self.roles: Counter[str] = Counter()
        self.with_system = self.multi_turn = self.texts = self.ties = 0
        self._short: dict[tuple[str, ...], int] = {}
        self.turns = array("L")
        self.characters, self.prompt_characters, self.answer_characters = array("L"), array("L"), array("L")
        self.rows, self.prompts, self.sides, self.loose = array("Q"), array("Q"), array("Q"), array("Q")
        self.pairs = array("Q")
        self.equal_pairs = self.longer_chosen = self.unequal_lengths = 0
        self.labels = array("d")
        self.scaled_labels = False
        self.sample: list[CanonicalRow] = []
        self.places: list[str] = []
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
                if not outcome.rows and outcome.fault is None:
                    self.ties += 1
                if outcome.fault is not None:
                    self.faults.add(outcome.record.place, outcome.fault)
                    if len(self.bad) < SHOWN_PLACES:
                        self.bad.append((outcome.record.place, str(outcome.fault)))
        except RlhfError as error:  # what stands in the other files is told all the same
            self.error = error
        for roles, rows in self._short.items():
            self._add_turns(roles, rows)
        self._short.clear()
        if reader is not None and reader.format is not None:
            self.format, self.reason = reader.format.name, reader.reason

    def _take(self, place: str, row: CanonicalRow) -> None:
        kind = type(row)
        self.kinds[kind] += 1
        if len(self.first) < self._examples:
            self.first.append((place, row))
        self._keep_in_sample(row, place)
        prompt = prompt_of(row)
        answers = _answers_after(prompt, row)
        roles = roles_of(row)
        self._count_turns(tuple(roles))
        contents = tuple([message.content for message in prompt])
        self.rows.append(row_key(row, roles, contents + answers))
        key = prompt_key(prompt)
        self.prompts.append(key)
        self.sides.append(split_key(prompt, self._split_by))
        self.loose.append(hash(tuple(map(loose, question(prompt)))) & _ALL)
        before, after = sum(map(len, contents)), [*map(len, answers)]
        self.prompt_characters.append(before)
        self.answer_characters.extend(after)
        self.characters.append(before + sum(after))
        if type(row) is Comparison:
            self._compare(key, row)
        elif type(row) is Judgement:
            self._judge(key, row)

    def _count_turns(self, roles: tuple[str, ...]) -> None:
        self.turns.append(len(roles))
        if len(roles) <= _SHORT:
            self._short[roles] = self._short.get(roles, 0) + 1
        else:
            self._add_turns(roles, 1)

    def _add_turns(self, roles: tuple[str, ...], rows: int) -> None:
        self.texts += rows * (not roles)
        self.with_system += rows * ("system" in roles)
        self.multi_turn += rows * (roles.count("user") > 1)
        for role in roles:
            self.roles[role] += rows

    def _judge(self, key: int, row: Judgement) -> None:
        self.labels.append(row.label)
        if isinstance(row.label, bool):
            self.pairs.append(hash((key, plain(row.completion))) & _EVEN | row.label)
        else:
            self.scaled_labels = True

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

    def _keep_in_sample(self, row: CanonicalRow, place: str) -> None:
        """Algorithm R: at any time every row so far is in the sample with the same probability."""
        if len(self.sample) < SAMPLE_ROWS:
            self.sample.append(row)
            self.places.append(place)
            return
        index = int(self._random.random() * (len(self.rows) + 1))
        if index < SAMPLE_ROWS:
            self.sample[index], self.places[index] = row, place


def roles_of(row: CanonicalRow) -> list[str]:
    """Return the speaker of every turn, the answer included; empty for a plain text."""
    if type(row) is Demonstration:
        return [message.role for message in row.messages]
    return [*[message.role for message in row.prompt], *_ANSWERER[type(row)]]


def answers_of(row: CanonicalRow) -> tuple[str, ...]:
    """The answers that follow the prompt: one, two of a comparison, none of a prompt."""
    return _answers_after(prompt_of(row), row)


def _answers_after(prompt: Sequence[Message], row: CanonicalRow) -> tuple[str, ...]:
    # Looks at types: isinstance asks pydantic, and takes as long as all the rest here.
    if type(row) is Comparison:
        return row.chosen, row.rejected
    if type(row) is Judgement:
        return (row.completion,)
    if type(row) is Demonstration and row.messages:
        return tuple([message.content for message in row.messages[len(prompt) :]])
    return ()


def text_of(row: CanonicalRow) -> str:
    """All words of a row."""
    return "\n".join([*(message.content for message in prompt_of(row)), *answers_of(row)])


def row_key(row: CanonicalRow, roles: Sequence[str], texts: tuple[str, ...]) -> int:
    """64 bits that stand for a row within this process; two rows of a million collide with a probability of 3e-8.

    Args:
        row: what it stands for.
        roles: who speaks in each turn.
        texts: of the turns and answers: hashed here and in other keys, and each text keeps its hash.
    """
    for message in row.messages if type(row) is Demonstration else row.prompt:
        if message.tools or message.tool_calls:
            return hash(to_line(row)) & _ALL
    return hash((type(row), *roles, *texts, *_beside(row))) & _ALL


def _beside(row: CanonicalRow) -> tuple[object, ...]:
    """Names of the fields of a row beside its texts."""
    if type(row) is Comparison:
        return row.margin, row.annotator, row.source
    if type(row) is Judgement:
        return row.label, row.annotator, row.source
    return ()


def loose(text: str) -> str:
    """Letters and digits alone, in lower case; a text without any stays as it is."""
    if text.isascii():
        return text.encode().translate(_LOWER, _NOT_LETTERS).decode() or text  # in one go, a fifth of the time
    return _NOT_WORDS.sub("", unicodedata.normalize("NFKC", text).casefold()) or text
