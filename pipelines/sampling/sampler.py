"""Sampling of many prompts by one model after another, in chunks that are saved as soon as they are drawn.

The draws depend on the seed, the chunk and the answers before it, never on when the work was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines.config.feedback_section import SampleSection
from pipelines.config.run_section import RunSection
from pipelines.data.encode import ChatEncoder
from pipelines.data.rows import Message
from pipelines.errors import ArtifactError
from pipelines.models.generate import end_token_ids, refuse_not_finite_draws, sample
from pipelines.models.machine import autocast, choose_threads, free_memory
from pipelines.run.checkpoints import Checkpoints
from pipelines.run.disk import disk_errors
from pipelines.run.reporting import Reporter
from pipelines.run.signals import StopRequest
from pipelines.sampling.sampling_models import SamplingModel

PIECE = 5
"""Length in letters of the pieces that are compared, the same as in `data check`."""
_AT_ENDS = ".,;:!?…\"'“”‘’«»()[]*_。，！？"
"""Punctuation around a word that does not change its meaning; signs such as - + % = do."""


def is_blank(text: str) -> bool:
    """Whether the text cannot be judged: it has only blanks, line breaks and characters without width, or a NUL.

    No data file may hold a NUL: rows made of such a text would be refused.
    """
    return "\0" in text or not any(character.isprintable() and not character.isspace() for character in text)


def plain_words(text: str) -> str:
    """The text without case, punctuation around words and differences between blanks."""
    words = unicodedata.normalize("NFKC", text).casefold().split()
    # a word of signs alone, such as !=, has a meaning
    return " ".join(word.strip(_AT_ENDS) if any(map(str.isalnum, word)) else word for word in words)


def similarity(first: Counter[str], second: Counter[str]) -> float:
    """Share of the pieces of two texts that they have in common, from 0 to 1, each piece as often as it occurs.

    Twice the common pieces by all pieces (Dice 1945). One word changed in a text of 400 letters leaves about 0.98, in
    one of 40 letters about 0.8.
    """
    return 2 * (first & second).total() / (first.total() + second.total())


def pieces(words: str) -> Counter[str]:
    """Count each run of five letters; a shorter text is one piece."""
    letters = words.replace(" ", "")
    return Counter(letters[start : start + PIECE] for start in range(max(1, len(letters) - PIECE + 1)))


class RepetitionFilter:
    """Keeps the answers to one prompt that are less similar than `threshold`; at 1, those of different words."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._words: dict[str, Counter[str]] = {}

    def add(self, text: str) -> bool:
        """Add the text and return True, or return False where it repeats one that is there."""
        words = plain_words(text)
        if words in self._words:
            return False
        counts = pieces(words)
        if self._threshold < 1 and any(self._near(counts, other) for other in self._words.values()):
            return False
        self._words[words] = counts
        return True

    def _near(self, first: Counter[str], second: Counter[str]) -> bool:
        # two lengths alone bound what the texts can have in common, and most pairs need no closer look
        sizes = first.total(), second.total()
        return 2 * min(sizes) >= self._threshold * sum(sizes) and similarity(first, second) >= self._threshold


@dataclass(frozen=True)
class SampledCompletion:
    """A completion as it was sampled: `text` without the token that ended it, which counts among its `tokens`.

    `finished`: it ended by itself; False: it hit the length limit.
    """

    text: str
    tokens: int
    finished: bool


@dataclass
class PromptCompletions:
    """The completions of one prompt by one model, by their indices: a line of the working file.

    Of the `drawn` completions, `blank` showed nothing and `repeated` were like another answer; the rest was kept.
    """

    model: int
    prompt: int
    answers: list[SampledCompletion] = field(default_factory=list)
    drawn: int = 0
    blank: int = 0
    repeated: int = 0

    def as_line(self) -> str:
        """The completions as a line of JSON, with its line feed."""
        plain = vars(self) | {"answers": [vars(answer) for answer in self.answers]}
        return json.dumps(plain, ensure_ascii=False) + "\n"

    @classmethod
    def of_line(cls, line: str) -> PromptCompletions:
        """Parse what `as_line` wrote.

        Raises:
            ValueError, TypeError: the line holds something else.
        """
        plain = json.loads(line)
        return cls(**plain | {"answers": [SampledCompletion(**answer) for answer in plain["answers"]]})


@dataclass
class Throughput:
    """Tokens and seconds of the draws of this process, without those of an earlier one."""

    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all draws, those left out included; 0 where there were none."""
        return self.tokens / self.seconds if self.seconds else 0.0


def figures(
    completions: Sequence[PromptCompletions], models: Sequence[SamplingModel], throughput: Throughput
) -> dict[str, Any]:
    """Compute counts and means over all completions.

    Returns:
        ``completions`` kept; ``drawn`` in all, of these ``redrawn`` in place of others; ``blank`` and ``repeated``
        draws; ``left_out``, those that no further draw could replace; ``distinct_share`` of the draws that were not
        blank; ``finished_share`` and ``mean_tokens`` of the kept ones; ``tokens_per_second`` of this process.
    """
    answers = [answer for entry in completions for answer in entry.answers]
    drawn, blank = sum(entry.drawn for entry in completions), sum(entry.blank for entry in completions)
    requested = sum(models[entry.model].num_completions for entry in completions)
    return {
        "completions": len(answers),
        "drawn": drawn,
        "redrawn": drawn - requested,
        "blank": blank,
        "repeated": sum(entry.repeated for entry in completions),
        "left_out": requested - len(answers),
        "distinct_share": _share(len(answers), drawn - blank),
        "finished_share": _share(sum(answer.finished for answer in answers), len(answers)),
        "mean_tokens": _share(sum(answer.tokens for answer in answers), len(answers)),
        "tokens_per_second": round(throughput.tokens_per_second, 1),
    }


def by_model(completions: Sequence[PromptCompletions], models: Sequence[SamplingModel]) -> list[dict[str, Any]]:
    """Figures of each model by itself."""
    rows = []
    for index, model in enumerate(models):
        own = figures([entry for entry in completions if entry.model == index], models, Throughput())
        del own["tokens_per_second"]
        rows.append({"model": model.identity, **own})
    return rows


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0


WORK = "completions.jsonl"
"""The working file: one line for each model and prompt."""
BATCHES = 4
"""Full generations in a chunk: an interruption loses no more, and prompts of similar length can go together."""


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt as the models take it: its tokens for each of them, and the key by which its answers are shuffled."""

    messages: tuple[Message, ...]
    ids: tuple[tuple[int, ...], ...]
    key: int
    source: str | None = None


@dataclass(frozen=True)
class SamplingContext:
    """Directory of the working file, checkpoints that record how far it is complete, and services of one sampling."""

    work: Path
    checkpoints: Checkpoints
    device: torch.device
    run: RunSection
    reporter: Reporter
    stop: StopRequest


@dataclass(frozen=True)
class Sampler:
    """Samples completions of all prompts from all models, of which one is in memory at a time.

    Number of completions and temperature are those of the models, not of the `settings`.
    """

    models: Sequence[SamplingModel]
    prompts: Sequence[SamplePrompt]
    settings: SampleSection
    max_new_tokens: int
    seed: int

    def run(self, context: SamplingContext) -> tuple[list[PromptCompletions], Throughput]:
        """Draw the completions that the working file lacks.

        Returns:
            The completions of every prompt by every model, sorted by model and prompt, and the throughput.

        Raises:
            KeyboardInterrupt, SystemExit: a signal requested the stop; the last chunk is saved.
            ArtifactError: a model gives probabilities that are not finite.
            RlhfError: a model cannot be opened; or see `disk_errors`.
        """
        chunks = [(index, chunk) for index in range(len(self.models)) for chunk in self._chunks(index)]
        completed, completions = self._resume(context, chunks)
        speed = Throughput()
        sizes = [self.models[index].num_completions * len(chunk) for index, chunk in chunks]
        label = "completions, on from the last chunk" if completed else "completions"
        task = context.reporter.task(label, sum(sizes), sum(sizes[:completed]))
        with context.stop.deferred(), task as progress:
            for index in range(len(self.models)):
                steps = [step for step in range(completed, len(chunks)) if chunks[step][0] == index]
                if not steps or context.stop.requested:
                    continue
                earlier = _texts(entry for entry in completions if entry.model < index)
                opened = _OpenModel.open(self, index, earlier, context, speed, progress.advance)
                for step in steps:
                    completions += self._append(context, opened.answer(chunks[step][1], step), step)
                    if context.stop.requested:
                        break
                del opened
                free_memory()
        return sorted(completions, key=lambda entry: (entry.model, entry.prompt)), speed

    def _chunks(self, index: int) -> list[list[int]]:
        """Indices of the prompts of each chunk, the longest first, so that running out of memory shows at once."""
        order = sorted(range(len(self.prompts)), key=lambda place: (-len(self.prompts[place].ids[index]), place))
        size = max(1, BATCHES * self.settings.batch_size // self.models[index].num_completions)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _resume(
        self, context: SamplingContext, chunks: Sequence[tuple[int, list[int]]]
    ) -> tuple[int, list[PromptCompletions]]:
        """Number of complete chunks, and their completions; the working file holds exactly these afterwards."""
        path = context.work / WORK
        checkpoint = context.checkpoints.newest()
        if checkpoint is not None:
            context.checkpoints.restore_logs(checkpoint)
            expected = [(index, place) for index, chunk in chunks[: checkpoint.step] for place in chunk]
            try:
                lines = path.read_text(encoding="utf-8").split("\n")
                completions = [PromptCompletions.of_line(line) for line in lines if line]
            except (OSError, ValueError, TypeError, KeyError):
                completions = []
            if [(entry.model, entry.prompt) for entry in completions] == expected:
                return checkpoint.step, completions
            context.reporter.warn(f"{WORK} does not match the last checkpoint: sampling starts again")
        with disk_errors(context.work):
            path.write_text("", encoding="utf-8")
        return 0, []

    @staticmethod
    def _append(context: SamplingContext, completions: list[PromptCompletions], step: int) -> list[PromptCompletions]:
        """Save the completions of a chunk: once this returns they are on the disk."""
        with disk_errors(context.work), (context.work / WORK).open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(entry.as_line() for entry in completions)
        context.checkpoints.begin(step + 1)
        context.checkpoints.complete(step + 1)
        return completions


@dataclass(frozen=True)
class _OpenModel:
    """One opened model, and by prompt the texts of earlier models."""

    sampler: Sampler
    index: int
    earlier: Mapping[int, Sequence[str]]
    model: nn.Module
    encoder: ChatEncoder
    ends: tuple[int, ...]
    speed: Throughput
    on_batch: Callable[[int], None]

    @classmethod
    def open(
        cls,
        sampler: Sampler,
        index: int,
        earlier: Mapping[int, Sequence[str]],
        context: SamplingContext,
        speed: Throughput,
        on_batch: Callable[[int], None],
    ) -> _OpenModel:
        sampling_model = sampler.models[index]
        model, tokenizer = sampling_model.open(context.device), sampling_model.tokenizer()
        choose_threads(context.run, sum(parameter.numel() for parameter in model.parameters()), context.reporter)
        ends = end_token_ids(model, tokenizer, sampling_model.stop_tokens)
        return cls(sampler, index, earlier, model, ChatEncoder(tokenizer), ends, speed, on_batch)

    def answer(self, chunk: Sequence[int], step: int) -> list[PromptCompletions]:
        """Sample a chunk of prompts by their indices; blank and repeated completions are drawn again."""
        settings, expected = self.sampler.settings, self.sampler.models[self.index].num_completions
        by_place = {place: PromptCompletions(self.index, place) for place in chunk}
        filters = {place: RepetitionFilter(settings.near_duplicate) for place in chunk}
        for place in chunk:
            for text in self.earlier.get(place, ()):
                filters[place].add(text)
        for attempt in range(1 + settings.redraws):
            places = [place for place in chunk for _ in range(expected - len(by_place[place].answers))]
            if not places:
                break
            for place, drawn in zip(places, self._draw(places, step, attempt), strict=True):
                _add(by_place[place], filters[place], drawn)
        return list(by_place.values())

    def _draw(self, places: Sequence[int], step: int, attempt: int) -> list[SampledCompletion]:
        """One completion for each index; a prompt may occur several times."""
        sampler, settings = self.sampler, self.sampler.settings
        sampling_model, start = sampler.models[self.index], time.monotonic()
        broken = ArtifactError(
            "the model gives probabilities that are not finite",
            where=sampling_model.name,
            hint="its weights are broken, or model.dtype does not suit it",
        )
        device = next(self.model.parameters()).device
        with autocast(sampling_model.section, device), refuse_not_finite_draws(broken):
            responses = sample(
                self.model,
                [sampler.prompts[place].ids[self.index] for place in places],
                max_new_tokens=sampler.max_new_tokens,
                temperature=sampling_model.temperature,
                eos_token_id=self.ends,
                batch_size=settings.batch_size,
                seed=_seed(sampler.seed, step, attempt),
                on_batch=self.on_batch if attempt == 0 else None,
                top_k=settings.top_k,
                top_p=settings.top_p,
            )
        self.speed.seconds += time.monotonic() - start
        self.speed.tokens += sum(map(len, responses))
        return [SampledCompletion(self.encoder.decode(ids), len(ids), ids[-1] in self.ends) for ids in responses]


def _texts(completions: Iterable[PromptCompletions]) -> dict[int, list[str]]:
    """Texts of the completions by prompt."""
    texts: dict[int, list[str]] = {}
    for entry in completions:
        texts.setdefault(entry.prompt, []).extend(answer.text for answer in entry.answers)
    return texts


def _add(completions: PromptCompletions, repetitions: RepetitionFilter, drawn: SampledCompletion) -> None:
    completions.drawn += 1
    if is_blank(drawn.text):
        completions.blank += 1
    elif repetitions.add(drawn.text):
        completions.answers.append(drawn)
    else:
        completions.repeated += 1


def _seed(*parts: int) -> int:
    """A seed of 63 bits, unrelated for neighboring parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
