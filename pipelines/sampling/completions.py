"""What models gave to prompts, as lines of the working file and as figures. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.sampling.answerers import Answerer


@dataclass(frozen=True)
class Drawn:
    """One completion that was kept.

    Attributes:
        text: without the token that ended it.
        tokens: it has, the ending one among them.
        finished: whether it ended by itself; False: it hit the length limit.
    """

    text: str
    tokens: int
    finished: bool


@dataclass
class Given:
    """What one model gave to one prompt: a line of the working file.

    Attributes:
        model: index of the answerer.
        prompt: index of the prompt.
        answers: that were kept.
        drawn: completions that were drawn for them.
        blank: of these, how many showed nothing.
        repeated: of these, how many repeated another answer to the prompt.
    """

    model: int
    prompt: int
    answers: list[Drawn] = field(default_factory=list)
    drawn: int = 0
    blank: int = 0
    repeated: int = 0

    def as_line(self) -> str:
        """As JSON, with the line's end."""
        return (
            json.dumps(vars(self) | {"answers": [vars(answer) for answer in self.answers]}, ensure_ascii=False) + "\n"
        )

    @classmethod
    def of_line(cls, line: str) -> Given:
        """Read what `as_line` wrote.

        Raises:
            ValueError, TypeError: it is something else.
        """
        plain = json.loads(line)
        return cls(**plain | {"answers": [Drawn(**answer) for answer in plain["answers"]]})


@dataclass
class Speed:
    """What this process has drawn, not what it found."""

    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Of all draws, those left out among them; 0 where there were none."""
        return self.tokens / self.seconds if self.seconds else 0.0


def figures(given: Sequence[Given], answerers: Sequence[Answerer], speed: Speed) -> dict[str, Any]:
    """Counts and means over all answers.

    Returns:
        ``completions`` kept; ``drawn`` in all, of these ``redrawn`` in place of others; ``blank`` and ``repeated``
        draws; ``left_out``, those that no redraw could replace; ``distinct_share`` of the draws that showed anything;
        ``finished_share`` and ``mean_tokens`` of the kept ones; ``tokens_per_second`` of this process.
    """
    answers = [answer for entry in given for answer in entry.answers]
    drawn, blank = sum(entry.drawn for entry in given), sum(entry.blank for entry in given)
    asked = sum(answerers[entry.model].num_completions for entry in given)
    return {
        "completions": len(answers),
        "drawn": drawn,
        "redrawn": drawn - asked,
        "blank": blank,
        "repeated": sum(entry.repeated for entry in given),
        "left_out": asked - len(answers),
        "distinct_share": _share(len(answers), drawn - blank),
        "finished_share": _share(sum(answer.finished for answer in answers), len(answers)),
        "mean_tokens": _share(sum(answer.tokens for answer in answers), len(answers)),
        "tokens_per_second": round(speed.tokens_per_second, 1),
    }


def by_model(given: Sequence[Given], answerers: Sequence[Answerer]) -> list[dict[str, Any]]:
    """The figures of each model by itself."""
    found = []
    for index, answerer in enumerate(answerers):
        own = figures([entry for entry in given if entry.model == index], answerers, Speed())
        del own["tokens_per_second"]
        found.append({"model": answerer.identity, **own})
    return found


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0
