"""Sampled completions as lines of the working file, and their figures. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.sampling.sampling_models import SamplingModel


@dataclass(frozen=True)
class SampledCompletion:
    """A completion as it was sampled.

    Attributes:
        text: without the token that ended it.
        tokens: number of its tokens, the one that ended it included.
        finished: whether it ended by itself; False: it hit the length limit.
    """

    text: str
    tokens: int
    finished: bool


@dataclass
class PromptCompletions:
    """The completions of one prompt by one model: a line of the working file.

    Attributes:
        model: index of the model.
        prompt: index of the prompt.
        answers: the completions that were kept.
        drawn: number of completions that were drawn.
        blank: number of these that showed nothing.
        repeated: number of these that repeated another answer to the prompt.
    """

    model: int
    prompt: int
    answers: list[SampledCompletion] = field(default_factory=list)
    drawn: int = 0
    blank: int = 0
    repeated: int = 0

    def as_line(self) -> str:
        """The completions as a line of JSON, with its line feed."""
        return (
            json.dumps(vars(self) | {"answers": [vars(answer) for answer in self.answers]}, ensure_ascii=False) + "\n"
        )

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
