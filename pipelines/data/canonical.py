"""Canonical rows on disk, one JSON object a line, and their conversion from richer kinds to poorer ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar, cast

from pydantic import ValidationError

from pipelines.data.faults import fault_of
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message, Prompt, answered
from pipelines.errors import ArtifactError, DataError

Kind = TypeVar("Kind", bound=CanonicalRow)
FOR_A_CLASSIFIER = (
    "single answers with a label teach a classifier: name the file under data.judgements in place of data.comparisons "
    "(--dataset), and set reward.objective: pointwise; `rlhf data check FILE --as pointwise` looks at it"
)


def prompt_of(row: CanonicalRow) -> tuple[Message, ...]:
    """The turns before the last answer: what the split and the removal of duplicate prompts go by.

    A text as it is stands for itself, as one user turn.
    """
    if type(row) is not Demonstration:  # a look at the type takes a tenth of what isinstance does on pydantic's
        return row.prompt
    if row.text is not None:
        return (Message(role="user", content=row.text),)
    messages = row.messages
    while messages[-1].role == "assistant":
        messages = messages[:-1]
    return messages


def can_serve(kind: type, needed: type) -> bool:
    """Whether rows of kind `kind` can become rows of kind `needed`."""
    return kind is needed or needed is Prompt or (kind is Comparison and needed is Demonstration)


def to_kind(row: CanonicalRow, kind: type[Kind]) -> Kind:
    """The row as `kind`: a comparison gives its prompt and chosen answer, a demonstration its prompt.

    Raises:
        DataError: the row does not hold what the kind needs.
    """
    if isinstance(row, Demonstration) and row.text is not None and kind is not Demonstration:
        raise DataError(
            "the row holds a text as it is, which has no prompt",
            hint="where the text is to be continued, name it a prompt: columns: {prompt: text}",
        )
    if isinstance(row, kind):
        return row
    if kind is Prompt:
        return cast(Kind, Prompt(prompt=prompt_of(row)))
    if kind is Demonstration and isinstance(row, Comparison):
        return cast(Kind, answered(row.prompt, Message(role="assistant", content=row.chosen)))
    judged = isinstance(row, Judgement) and kind is Comparison
    raise DataError(
        f"the row holds a {type(row).__name__.lower()}, but a {kind.__name__.lower()} is needed",
        hint=FOR_A_CLASSIFIER if judged else None,
    )


def to_line(row: CanonicalRow) -> str:
    """The row as one line of JSON, without its end; fields that are not set are left out."""
    return row.model_dump_json(exclude_none=True)


def write_rows(path: Path, rows: Iterable[CanonicalRow]) -> int:
    """Write rows and return their number."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(to_line(row) + "\n")
            count += 1
    return count


def read_rows(path: Path, kind: type[Kind]) -> Iterator[Kind]:
    """Read what `write_rows` wrote.

    Raises:
        ArtifactError: the file is missing, or a line is not a row of this kind.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield cast(Kind, kind.model_validate_json(line))
                except ValidationError as error:
                    raise ArtifactError(
                        f"not a {kind.__name__.lower()}: {fault_of(error)}", where=f"{path}:{number}"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the rows cannot be read: {error}", where=str(path)) from error
