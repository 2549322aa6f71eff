"""Completions of many prompts by one model after another, in chunks that are kept as soon as they are drawn.

What is drawn depends on the seed, the chunk and the answers before it, never on when the work was interrupted.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pipelines.config.feedback_section import SampleSection
from pipelines.config.run_section import RunSection
from pipelines.data.encode import ChatEncoder
from pipelines.data.rows import Message
from pipelines.errors import ArtifactError
from pipelines.models.generate import refuse_not_finite_draws, sample
from pipelines.models.machine import autocast, choose_threads, free_memory
from pipelines.run.checkpoints import Checkpoints
from pipelines.run.disk import disk_errors
from pipelines.run.reporting import Reporter
from pipelines.run.signals import StopRequest
from pipelines.sampling.answerers import Answerer
from pipelines.sampling.completions import Drawn, Given, Speed

PIECE = 5
"""Letters of the pieces that are compared, as `data check` does."""
_AT_ENDS = ".,;:!?…\"'“”‘’«»()[]*_。，！？"
"""What may stand around a word without changing what it says; signs such as - + % = are part of what it says."""


def is_blank(text: str) -> bool:
    """Whether nothing of the text can be judged: blanks, line breaks, characters without width.

    Or a NUL in it, which no data file may hold: the rows made of it would be refused.
    """
    return "\0" in text or not any(character.isprintable() and not character.isspace() for character in text)


def plain_words(text: str) -> str:
    """The text without case, the kind of its blanks and the punctuation around words."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    # a word of signs alone, such as !=, says something by itself
    return " ".join(word.strip(_AT_ENDS) if any(map(str.isalnum, word)) else word for word in words)


def similarity(first: Counter[str], second: Counter[str]) -> float:
    """Share of the pieces of two texts that they have in common, from 0 to 1, each piece as often as it occurs.

    Twice the common pieces by all pieces (Dice 1945). One word changed in a text of 400 letters leaves about 0.98, in
    one of 40 letters about 0.8.
    """
    return 2 * (first & second).total() / (first.total() + second.total())


def pieces(words: str) -> Counter[str]:
    """How often each run of five letters occurs; a shorter text is one piece."""
    letters = words.replace(" ", "")
    return Counter(letters[start : start + PIECE] for start in range(max(1, len(letters) - PIECE + 1)))


class Distinct:
    """The answers to one prompt, none of which repeats another.

    Args:
        threshold: similarity from which one counts as a repetition; 1: only what has the same words.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._words: dict[str, Counter[str]] = {}

    def add(self, text: str) -> bool:
        """Take the text in; False, and it stays out, where it repeats one that is there."""
        words = plain_words(text)
        if words in self._words:
            return False
        found = pieces(words)
        if self._threshold < 1 and any(self._near(found, other) for other in self._words.values()):
            return False
        self._words[words] = found
        return True

    def _near(self, first: Counter[str], second: Counter[str]) -> bool:
        # two lengths alone bound what the texts can have in common, and most pairs need no closer look
        sizes = first.total(), second.total()
        return 2 * min(sizes) >= self._threshold * sum(sizes) and similarity(first, second) >= self._threshold


WORK = "completions.jsonl"
"""The working file: what each model gave to each prompt, one line each."""
BATCHES = 4
"""Full generations in a chunk: an interruption costs no more, and prompts of like length can go together."""


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt as the models take it.

    Attributes:
        messages: the dialogue to be answered.
        ids: its tokens for each answerer, in their order.
        key: stands for the prompt where its answers are shuffled.
        source: what its task says of where it is from.
    """

    messages: tuple[Message, ...]
    ids: tuple[tuple[int, ...], ...]
    key: int
    source: str | None = None


@dataclass(frozen=True)
class Surroundings:
    """Where the work is done, and who is told.

    Attributes:
        work: directory of the working file.
        checkpoints: that say how far the working file is complete.
        device: of the models.
        run: says how many CPU threads.
        reporter: progress and plain words.
        stop: whether somebody wants it to stop.
    """

    work: Path
    checkpoints: Checkpoints
    device: torch.device
    run: RunSection
    reporter: Reporter
    stop: StopRequest


@dataclass(frozen=True)
class Drawing:
    """Completions of all prompts by all models.

    Attributes:
        answerers: in their order; one is in memory at a time.
        prompts: to be answered.
        settings: how; `models`, `num_completions` and `temperature` are those of the answerers.
        max_new_tokens: of a completion.
        seed: of all draws.
    """

    answerers: Sequence[Answerer]
    prompts: Sequence[SamplePrompt]
    settings: SampleSection
    max_new_tokens: int
    seed: int

    def run(self, around: Surroundings) -> tuple[list[Given], Speed]:
        """Draw what is not drawn yet.

        Returns:
            What every model gave to every prompt, sorted by model and prompt, and how fast it went.

        Raises:
            KeyboardInterrupt, SystemExit: a signal asked for it; the last chunk is saved.
            ArtifactError: a model gives probabilities that are not finite.
            RlhfError: a model could not be had; or see `disk_errors`.
        """
        chunks = [(index, chunk) for index in range(len(self.answerers)) for chunk in self._chunks(index)]
        done, given = self._resume(around, chunks)
        speed = Speed()
        total = sum(self.answerers[index].num_completions * len(chunk) for index, chunk in chunks[done:])
        label = "completions, on from the last chunk" if done else "completions"
        with around.stop.deferred(), around.reporter.task(label, total) as progress:
            for index in range(len(self.answerers)):
                steps = [step for step in range(done, len(chunks)) if chunks[step][0] == index]
                if not steps or around.stop.requested:
                    continue
                earlier = _texts(entry for entry in given if entry.model < index)
                voice = _Voice.open(self, index, earlier, around, speed, progress.advance)
                for step in steps:
                    given += self._append(around, voice.answer(chunks[step][1], step), step)
                    if around.stop.requested:
                        break
                del voice
                free_memory()
        return sorted(given, key=lambda entry: (entry.model, entry.prompt)), speed

    def _chunks(self, index: int) -> list[list[int]]:
        """Indices of the prompts that are answered together, the longest first: what does not fit shows at once."""
        order = sorted(range(len(self.prompts)), key=lambda place: (-len(self.prompts[place].ids[index]), place))
        size = max(1, BATCHES * self.settings.batch_size // self.answerers[index].num_completions)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _resume(self, around: Surroundings, chunks: Sequence[tuple[int, list[int]]]) -> tuple[int, list[Given]]:
        """How many chunks are done, and what they gave; the working file holds exactly that afterwards."""
        path = around.work / WORK
        checkpoint = around.checkpoints.newest()
        if checkpoint is not None:
            around.checkpoints.restore_logs(checkpoint)
            wanted = [(index, place) for index, chunk in chunks[: checkpoint.step] for place in chunk]
            try:
                given = [Given.of_line(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            except (OSError, ValueError, TypeError, KeyError):
                given = []
            if [(entry.model, entry.prompt) for entry in given] == wanted:
                return checkpoint.step, given
            around.reporter.warn(f"{WORK} is not what the last checkpoint says: sampling starts again")
        with disk_errors(around.work):
            path.write_text("", encoding="utf-8")
        return 0, []

    @staticmethod
    def _append(around: Surroundings, found: list[Given], step: int) -> list[Given]:
        """Keep what a chunk gave: once this returns it is on the disk."""
        with disk_errors(around.work), (around.work / WORK).open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(entry.as_line() for entry in found)
        around.checkpoints.begin(step + 1)
        around.checkpoints.complete(step + 1)
        return found


@dataclass(frozen=True)
class _Voice:
    """One opened model, and by prompt what earlier ones said."""

    drawing: Drawing
    index: int
    earlier: Mapping[int, Sequence[str]]
    model: nn.Module
    encoder: ChatEncoder
    ends: tuple[int, ...]
    speed: Speed
    on_batch: Callable[[int], None]

    @classmethod
    def open(
        cls,
        drawing: Drawing,
        index: int,
        earlier: Mapping[int, Sequence[str]],
        around: Surroundings,
        speed: Speed,
        on_batch: Callable[[int], None],
    ) -> _Voice:
        answerer = drawing.answerers[index]
        model, tokenizer = answerer.open(around.device), answerer.tokenizer()
        choose_threads(around.run, sum(parameter.numel() for parameter in model.parameters()), around.reporter)
        ends = answerer.ends(model, tokenizer)
        return cls(drawing, index, earlier, model, ChatEncoder(tokenizer), ends, speed, on_batch)

    def answer(self, chunk: Sequence[int], step: int) -> list[Given]:
        """What the model gives to the prompts of a chunk, repetitions and blank ones drawn again.

        Args:
            chunk: indices of prompts.
            step: of the chunk, for its seeds.
        """
        settings, wanted = self.drawing.settings, self.drawing.answerers[self.index].num_completions
        found = {place: Given(self.index, place) for place in chunk}
        distinct = {place: Distinct(settings.near_duplicate) for place in chunk}
        for place in chunk:
            for text in self.earlier.get(place, ()):
                distinct[place].add(text)
        for attempt in range(1 + settings.redraws):
            asked = [place for place in chunk for _ in range(wanted - len(found[place].answers))]
            if not asked:
                break
            for place, drawn in zip(asked, self._draw(asked, step, attempt), strict=True):
                _take(found[place], distinct[place], drawn)
        return list(found.values())

    def _draw(self, asked: Sequence[int], step: int, attempt: int) -> list[Drawn]:
        """One completion for each index; a prompt may stand there several times."""
        drawing, settings = self.drawing, self.drawing.settings
        answerer, started = drawing.answerers[self.index], time.monotonic()
        broken = ArtifactError(
            "the model gives probabilities that are not finite",
            where=answerer.name,
            hint="its weights are broken, or model.dtype does not suit it",
        )
        device = next(self.model.parameters()).device
        with autocast(answerer.section, device), refuse_not_finite_draws(broken):
            responses = sample(
                self.model,
                [drawing.prompts[place].ids[self.index] for place in asked],
                max_new_tokens=drawing.max_new_tokens,
                temperature=answerer.temperature,
                eos_token_id=self.ends,
                batch_size=settings.batch_size,
                seed=_seed(drawing.seed, step, attempt),
                on_batch=self.on_batch if attempt == 0 else None,
                top_k=settings.top_k,
                top_p=settings.top_p,
            )
        self.speed.seconds += time.monotonic() - started
        self.speed.tokens += sum(map(len, responses))
        return [Drawn(self.encoder.decode(ids), len(ids), ids[-1] in self.ends) for ids in responses]


def _texts(given: Iterable[Given]) -> dict[int, list[str]]:
    """The answers to each prompt."""
    texts: dict[int, list[str]] = {}
    for entry in given:
        texts.setdefault(entry.prompt, []).extend(answer.text for answer in entry.answers)
    return texts


def _take(found: Given, distinct: Distinct, drawn: Drawn) -> None:
    found.drawn += 1
    if is_blank(drawn.text):
        found.blank += 1
    elif distinct.add(drawn.text):
        found.answers.append(drawn)
    else:
        found.repeated += 1


def _seed(*parts: int) -> int:
    """63 bits that have nothing in common for neighboring parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
