"""Gathering the verdicts of a whole file into questions, tasks and labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipelines.data.choices import plain
from pipelines.errors import DataError
from pipelines.labels.exchange.foreign_task import ForeignTask
from pipelines.labels.exchange.label_config import LabelConfig
from pipelines.labels.exchange.verdicts import COMMENT, Verdict
from pipelines.labels.label_types import UNKNOWN, Kind, Label, LabelSet, Question, Task, Value, values_fault

LEFT_OUT = "records left out: {} (the first: {})"
REPEATED = "earlier labels of the same annotator for the same task (the last one counts)"
EMPTY_SKIPPED = "empty results (read as skipped; --ties-from-empty reads them as ties)"
EMPTY_TIED = "empty results (read as ties)"
FROM_ZERO = "scales that begin at 0 (raised by one, to begin at 1)"
ALL_ONES = "questions whose numbers are all 1 (read as 0/1; --tasks tells whether it is a scale)"
UNTOLD = (
    f"labels without an annotator (called {UNKNOWN}1, {UNKNOWN}2 ... within a task; not in the figures of annotators)"
)
ADRIFT = "tasks that are not in the --tasks file (which should be the file that was sent out)"
BARE = (
    "tasks sent out from here, read without their models, known values and sources (`rlhf labels convert --tasks FILE` "
    "takes these from the file that was sent out)"
)
WRITTEN = "texts of `{}` that look like choices (read as written answers, like most of its texts; --tasks settles it)"
ONLY_TEXTS = "labels with texts, but without an answer to a question (read as skipped; the texts become comments)"
_WIDER: Mapping[Kind, Kind] = {"pairwise": "ranking", "binary": "scale"}
"""By kind, the wider kind that its answers fit too."""


@dataclass(frozen=True)
class ReadingOptions:
    """Options for reading a file of another program.

    Attributes:
        columns: fields that have other names than usual, see `read_foreign_task`.
        ties_from_empty: a pairwise annotation without a result is a tie; otherwise it is a skip.
        choices: numbers that the texts of choices stand for, such as ``{"toxic": 1, "fine": 0}``.
        tasks: the file that was sent out; returning tasks get their models, controls and source from it, and the
            questions their texts.
        config: the labeling configuration of Label Studio; None: not known.
        buckets: names of the buckets of Label Studio's Rankers from best to worst, where `config` does not have them.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    ties_from_empty: bool = False
    choices: Mapping[str, int] = field(default_factory=dict)
    tasks: LabelSet | None = None
    config: LabelConfig | None = None
    buckets: tuple[str, ...] = ()

    def buckets_of(self, ranker: str) -> tuple[str, ...]:
        """Return the buckets of a Ranker from best to worst; empty: it has none, or they are not known."""
        known = self.config.buckets if self.config is not None else {}
        return known.get(ranker, self.buckets)

    def was_sent(self, control: str) -> bool:
        """Whether our own labeling configuration has this control for a question that was sent out."""
        stem = re.sub(r"_(tie|\d+)$", "", control)
        return self.tasks is not None and any(question.name in (control, stem) for question in self.tasks.questions)


@dataclass
class LabelCollection:
    """The tasks and verdicts of a file, collected record by record.

    Attributes:
        notes: counts of what was left out or read in a way that the user should know.
        unusable: places of the records that were left out, by reason.
    """

    reading: ReadingOptions
    notes: Counter[str] = field(default_factory=Counter)
    tasks: dict[str, Task] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    unusable: dict[str, list[str]] = field(default_factory=dict)
    _nobody: Counter[str] = field(default_factory=Counter)

    def nobody(self, foreign: ForeignTask) -> str:
        """Return a name for an annotator whom the file does not name, one that no other label of the task has."""
        self.notes[UNTOLD] += 1
        self._nobody[foreign.task.id] += 1
        return f"{UNKNOWN}{self._nobody[foreign.task.id]}"

    def leave_out(self, reason: str, place: str) -> None:
        """Note a record that is left out because nobody could train on its task."""
        self.unusable.setdefault(reason, []).append(place)

    def add_task(self, foreign: ForeignTask) -> ForeignTask:
        """Add a task of the file, and return it as it was sent out, where `reading.tasks` has it.

        Raises:
            ValueError: another task has the same id.
        """
        task = foreign.task
        sent = self.reading.tasks
        if sent is not None and task.id in sent.tasks:
            there = sent.tasks[task.id]
            if [answer.text for answer in there.answers] != [answer.text for answer in task.answers]:
                raise ValueError(f"the task {task.id} has other answers now than when it was sent out")
            task = there
        elif task.id not in self.tasks and (sent is not None or foreign.sent):
            self.notes[ADRIFT if sent is not None else BARE] += 1
        before = self.tasks.setdefault(task.id, task)
        if (before.prompt, before.answers) != (task.prompt, task.answers):
            raise ValueError(f"the task {task.id} is in the file twice, with different texts")
        return replace(foreign, task=task)

    def finish(self, where: str) -> LabelSet:
        """Return the questions, tasks and labels of the file.

        Raises:
            DataError: no record can be used, no question can be read, a verdict contradicts itself, or a value does
                not fit its question.
        """
        if self.unusable and not self.tasks:
            reason, places = next(iter(self.unusable.items()))
            raise DataError(f"no record of the file can be used: {reason}", where=places[0])
        written = self._written()
        for verdict in self.verdicts:
            try:
                verdict.close(written)
            except ValueError as error:
                raise DataError(f"{verdict.annotator}'s answers: {error}", where=verdict.place) from error
        self._settle_ties()
        questions = self._questions(where)
        demonstrations = [question.name for question in questions if question.kind == "demonstration"]
        labels: dict[tuple[str, str], tuple[str, Label]] = {}
        for verdict in self.verdicts:
            values = {name: value for name, (_, value) in verdict.values.items()}
            values |= {name: verdict.texts[name] for name in demonstrations if name in verdict.texts}
            if fault := values_fault(values, questions, len(verdict.foreign.keys)):
                raise DataError(f"{verdict.annotator}'s answers: {fault}", where=verdict.place)
            task = self.tasks[verdict.foreign.task.id]
            if verdict.known and values:
                known = {name: value for name, value in values.items() if not isinstance(value, str)}
                self.tasks[task.id] = replace(task, control={**(task.control or {}), **known})
            if verdict.known:
                continue
            self.notes[ONLY_TEXTS] += bool(verdict.texts) and not values
            self._keep(labels, verdict, values)
        kept = [label for _, label in labels.values()]
        ordered = self.reading.tasks is not None or self.reading.config is not None
        return LabelSet(questions, self.tasks, kept, self._counts(where), ordered=ordered)

    def _counts(self, where: str) -> dict[str, int]:
        """Return the counts that are not 0, records left out among them, with the place of the first."""
        counts = {name: count for name, count in self.notes.items() if count}
        for reason, places in self.unusable.items():
            first = places[0].removeprefix(f"{where}:")
            counts[LEFT_OUT.format(reason, first)] = len(places)
        return counts

    def _keep(
        self, labels: dict[tuple[str, str], tuple[str, Label]], verdict: Verdict, values: dict[str, Value]
    ) -> None:
        task, order = verdict.foreign.task.id, verdict.foreign.order
        comment = "\n".join(text for name, text in verdict.texts.items() if name not in values)
        skipped, kept = verdict.skipped or not values, {} if verdict.skipped else values
        label = Label(
            task, verdict.annotator, kept, order, verdict.seconds, skipped, comment=comment, time=verdict.time
        )
        before = labels.get((task, verdict.annotator))
        if before is not None:
            self.notes[REPEATED] += 1
            if before[0] > (verdict.time or ""):
                return
        labels[task, verdict.annotator] = (verdict.time or "", label)

    def _written(self) -> set[str]:
        """Return the controls whose bare texts are written answers: sent out as such, or without choices."""
        verdicts: dict[str, dict[tuple[str, str], Verdict]] = {}
        for verdict in self.verdicts:
            for control in verdict.bare:
                verdicts.setdefault(control, {})[verdict.foreign.task.id, verdict.annotator] = verdict
        written = set()
        for control, some in verdicts.items():
            if control == COMMENT or control in self._sent:
                if control == COMMENT or self._sent[control].kind == "demonstration":
                    written.add(control)
            elif not self._chosen(control, list(some.values())):
                written.add(control)
                like = [verdict for verdict in some.values() if verdict.is_choice(control, verdict.bare[control])]
                self.notes[WRITTEN.format(control)] += len(like)
        return written

    def _chosen(self, control: str, verdicts: Sequence[Verdict]) -> bool:
        """Whether a control's bare texts are choices.

        They are if one of them has a number in `reading.choices`, if more than half of the different texts read like
        choices, or if more than half of the labels have a text that another label has too: choices repeat across
        tasks, while what people write hardly ever does.
        """
        if any(verdict.bare[control] in self.reading.choices for verdict in verdicts):
            return True
        labels = Counter(plain(verdict.bare[control]) for verdict in verdicts)
        like = {plain(text) for v in verdicts if v.is_choice(control, text := v.bare[control])}
        repeated = sum(count for count in labels.values() if count > 1)
        return 2 * len(like) > len(labels) or 2 * repeated > len(verdicts)

    @property
    def _sent(self) -> dict[str, Question]:
        """Questions that were sent out, by name; empty: they are not known."""
        return {question.name: question for question in self.reading.tasks.questions} if self.reading.tasks else {}

    def _settle_ties(self) -> None:
        """Assign every tie to its question, and read empty results as ties or as skips."""
        paired = list(dict.fromkeys(self._paired()))
        for verdict in self.verdicts:
            count = len(verdict.foreign.keys)
            for control in verdict.ties:
                name = control if control in paired else _belonging(control, paired)
                if name is None:
                    verdict.pass_over(control)
                    continue
                if name in verdict.values and control in verdict.bare and not control.startswith(name):
                    # It may be a remark, so it does not replace the answer.
                    verdict.pass_over(control)
                    verdict.write(control, verdict.bare[control])
                    continue
                verdict.values[name] = ("pairwise", (1,) * count)
            if verdict.values or verdict.texts.keys() - {COMMENT} or verdict.skipped or verdict.known:
                continue
            if self.reading.ties_from_empty and count == 2 and paired and not verdict.unread:
                self.notes[EMPTY_TIED] += 1
                verdict.values |= dict.fromkeys(paired, ("pairwise", (1, 1)))
            else:
                self.notes[EMPTY_SKIPPED] += not verdict.texts

    def _paired(self) -> Iterator[str]:
        """Yield the known questions that compare answers: sent out, answered, or named by a tie such as `x_tie`."""
        for question in self._sent.values():
            if question.kind in ("pairwise", "ranking"):
                yield question.name
        for verdict in self.verdicts:
            yield from (name for name, (kind, _) in verdict.values.items() if kind in ("pairwise", "ranking"))
            if verdict.foreign.sent:
                yield from (control.removesuffix("_tie") for control in verdict.ties if control.endswith("_tie"))

    def _questions(self, where: str) -> tuple[Question, ...]:
        kinds: dict[str, set[Kind]] = {}
        for verdict in self.verdicts:
            for name, (kind, _) in verdict.values.items():
                kinds.setdefault(name, set()).add(kind)
        questions = [self._question(name, some, self._sent.get(name), where) for name, some in kinds.items()]
        questions += [question for name, question in self._sent.items() if name not in kinds]
        questions.sort(key=self._place)
        unread = {control for verdict in self.verdicts for control in verdict.unread}
        if not questions:
            texts = dict.fromkeys(name for verdict in self.verdicts for name in verdict.texts)
            chosen = {name for verdict in self.verdicts for name in verdict.texts.keys() & verdict.unread}
            questions = [Question(name, "demonstration", "") for name in texts if name not in {COMMENT, *chosen}]
            questions.sort(key=self._place)
        if not questions:
            hint = "export the project again when it has been annotated"
            if unread:
                hint = f"{', '.join(sorted(unread))}: --value TEXT=NUMBER gives choices a meaning; --tasks FILE tells "
                hint += "which texts are written answers"
            elif self.notes[BARE]:
                hint += "; if you meant it for --tasks, give --tasks the file that was sent out"
            raise DataError(
                "no annotation answers a question that can be read: a comparison, a ranking, 0 or 1, or a scale",
                where=where,
                hint=hint,
            )
        return tuple(questions)

    def _place(self, question: Question) -> tuple[int, str]:
        """Return the sort key of a question: its place where the questions have an order, else its name.

        The order of the results is no order of the questions: it is that of the annotator's clicks, or of JSON keys.
        """
        config = self.reading.config
        order = list(self._sent) or [re.sub(r"_\d+$", "", name) for name in (config.controls if config else ())]
        return order.index(question.name) if question.name in order else len(order), question.name

    def _question(self, name: str, kinds: set[Kind], sent: Question | None, where: str) -> Question:
        """Return the question of that name as it was sent out, else as all of its values together suggest."""
        merged = [kind for kind in kinds if _WIDER.get(kind) not in kinds]
        if len(merged) > 1:
            raise DataError(f"`{name}` is answered in two ways: {' and '.join(sorted(merged))}", where=where)
        kind = merged[0]
        if sent is not None:
            # The question is known, and with it the meaning of its numbers.
            if _WIDER.get(kind, kind) != _WIDER.get(sent.kind, sent.kind):
                raise DataError(f"`{name}` was sent out as {sent.kind} and comes back as {kind}", where=where)
            return sent
        values = [verdict.values[name][1] for verdict in self.verdicts if name in verdict.values]
        numbers = {number for value in values if not isinstance(value, str) for number in value}
        if kind == "scale" and 0 in numbers <= {0, 1}:
            kind = "binary"
        if kind == "binary" and numbers == {1} and any(name in verdict.numbered for verdict in self.verdicts):
            self.notes[ALL_ONES] += 1
        if kind != "scale":
            return Question(name, kind, "")
        if min(numbers) == 0:
            self.notes[FROM_ZERO] += 1
            for verdict in self.verdicts:
                if name in verdict.values:
                    kind, value = verdict.values[name]
                    verdict.values[name] = (kind, tuple(number + 1 for number in value))  # type: ignore[operator]
        return Question(name, "scale", "", points=max(5, max(numbers) + (min(numbers) == 0)))


def _belonging(control: str, questions: list[str]) -> str | None:
    """Return the question that a tie control is about: the longest that its name begins with, else the only one.

    None: there are several, and the name says of none.
    """
    if not questions:
        return control.removesuffix("_tie")
    named = [name for name in questions if control.startswith(name)]
    return max(named, key=len, default=questions[0] if len(questions) == 1 else None)
