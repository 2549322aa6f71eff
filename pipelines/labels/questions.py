"""Questions to annotators, from the configuration or the command line, with default texts."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from pipelines.config.feedback_section import LabelSection, QuestionSection
from pipelines.data.faults import fault_of
from pipelines.errors import UsageError
from pipelines.labels.label_types import Kind, Question

WORDS: dict[Kind, str] = {
    "ranking": "Rank the answers from best to worst. Answers that are equally good get the same rank.",
    "pairwise": "Which answer is better?",
    "binary": "Is this a good answer?",
    "scale": "How good is this answer?",
    "demonstration": "Write the answer that you would want to get.",
}
"""What the page asks where a question has no words of its own."""
ENDS: dict[Kind, tuple[str, str]] = {"binary": ("no", "yes"), "scale": ("very bad", "very good")}
"""Words for the lowest and the highest number."""


def questions_of(section: LabelSection) -> tuple[Question, ...]:
    """The questions of `feedback.label`, in their order; a question without words gets those of its kind."""
    return tuple(_question(asked) for asked in section.questions)


def parse_questions(entries: Sequence[str]) -> tuple[Question, ...]:
    """Questions as the command line gives them.

    Args:
        entries: ``name:kind`` or ``name:kind:words`` each; a scale may say its points: ``name:scale7``.

    Raises:
        UsageError: an entry is not of this form, or the questions do not go together.
    """
    sections = []
    for entry in entries:
        name, _, rest = entry.partition(":")
        kind, _, text = rest.partition(":")
        plain: dict[str, object] = {"name": name, "kind": kind, "text": text.strip()}
        if kind.startswith("scale") and kind[5:].isdigit():
            plain |= {"kind": "scale", "points": int(kind[5:])}
        sections.append(plain)
    try:
        return questions_of(LabelSection.model_validate({"questions": sections}))
    except ValidationError as error:
        raise UsageError(
            str(fault_of(error)),
            where="--question",
            hint="an entry is name:kind or name:kind:words, such as overall:ranking; the kinds are "
            f"{', '.join(WORDS)}; scale7 is a scale from 1 to 7, and scale2 to scale10 there are",
        ) from error


def default_question(name: str, kind: Kind) -> Question:
    """The question of that kind in the words of the page."""
    return _question(QuestionSection(name=name, kind=kind))


def in_short(questions: Sequence[Question]) -> str:
    """Names and kinds of questions in one line, as ``helpful (ranking), polite (scale7)``."""
    kinds = (f"scale{one.points}" if one.kind == "scale" else one.kind for one in questions)
    return ", ".join(f"{one.name} ({kind})" for one, kind in zip(questions, kinds, strict=True))


def _question(asked: QuestionSection) -> Question:
    low, high = ENDS.get(asked.kind, ("", ""))
    return Question(
        name=asked.name,
        kind=asked.kind,
        text=asked.text or WORDS[asked.kind],
        points=asked.points,
        low=asked.low or low,
        high=asked.high or high,
        required=asked.required,
    )
