"""Constraints that a program can verify, in the form of IFEval: their rows, and which of them an answer follows.

Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models", with their verifiers, which the package
if-verifiable holds. Its half for IFBench is not used: it downloads data as it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from pipelines.data.faults import fault_of
from pipelines.data.sources.files import open_text
from pipelines.data.strict_json import strict_json
from pipelines.errors import DataError, EnvironmentProblem, nearest_name
from pipelines.scorers.protocol import Completion, Dialogue, Progress


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    prompt: str = Field(min_length=1)
    instruction_id_list: list[str] = Field(min_length=1)
    arguments: list[dict[str, Any]] = Field(validation_alias=AliasChoices("kwargs"))


@dataclass(frozen=True)
class ConstrainedPrompt:
    """A prompt with constraints on its answer.

    Attributes:
        prompt: text of the one user message.
        constraints: identifier and arguments of each, such as ``length_constraints:number_words``.
    """

    prompt: str
    constraints: tuple[tuple[str, Mapping[str, Any]], ...]

    def followed(self, answer: str) -> list[tuple[bool, bool]]:
        """Say of each constraint whether an answer follows it strictly, and whether it does loosely.

        Loosely is without the first line, the last one or asterisks. An empty answer follows nothing, and an answer on
        which a verifier fails does not follow that constraint.
        """
        from if_verifiable.common import evaluate_instructions

        verifiers, verdicts = _verifiers(), []
        for name, arguments in self.constraints:
            try:
                results, _ = evaluate_instructions(answer, [name], [dict(arguments)], self.prompt, verifiers)
            except (ValueError, IndexError, KeyError, AttributeError, RecursionError):
                results = []
            verdicts.append((results[0].strict_pass, results[0].loose_pass) if results else (False, False))
        return verdicts


class ConstraintScorer:
    """Scores an answer by the share of its prompt's constraints that it follows strictly, 0 to 1.

    Args:
        name: its name in tables.
        path: file that `read_constraints` reads, with every prompt that will be scored.
        progress: called with the number of rows that were just scored.
    """

    def __init__(self, name: str, path: Path, *, progress: Progress | None = None) -> None:
        self.name = name
        self._path = path
        self._rows = {row.prompt: row for row in read_constraints(path)}
        self._progress = progress

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The shares.

        Raises:
            DataError: a prompt is not in the file.
        """
        scores = []
        for prompt, completion in zip(prompts, completions, strict=True):
            row = self._rows.get(prompt[-1].content)
            if row is None:
                raise DataError(
                    f"a prompt has no constraints there: {prompt[-1].content[:200]!r}",
                    where=str(self._path),
                    hint="name the same file in data.prompts; prompts that are cut (ppo.overlong) are not found either",
                )
            verdicts = row.followed(completion.text)
            scores.append(sum(strict for strict, _ in verdicts) / len(verdicts))
            if self._progress is not None:
                self._progress(1)
        return scores


def read_constraints(path: Path) -> list[ConstrainedPrompt]:
    """Read JSON lines with ``prompt``, ``instruction_id_list`` and ``kwargs``, as IFEval publishes them.

    Raises:
        DataError: the file cannot be read or is empty, a line has another form, a constraint is unknown, or its
            arguments are not all there; with its place.
        EnvironmentProblem: the verifiers, or data that one of them needs, are not installed.
    """
    verifiers = _verifiers()
    rows = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(_row(line, f"{path}:{number}", verifiers))
    if not rows:
        raise DataError("the file holds no prompt with constraints", where=str(path))
    return rows


def _row(line: bytes, place: str, verifiers: Mapping[str, Any]) -> ConstrainedPrompt:
    try:
        row = _Row.model_validate(strict_json(line.decode("utf-8-sig")))
    except ValidationError as error:
        raise DataError(str(fault_of(error)), where=place) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"the line is not JSON: {error}", where=place) from error
    if len(row.arguments) != len(row.instruction_id_list):
        raise DataError("`kwargs` must have one entry for each of `instruction_id_list`", where=place)
    # a data set with fixed columns writes every argument of every constraint, most of them null
    arguments = [{key: value for key, value in entry.items() if value is not None} for entry in row.arguments]
    constraints = tuple(zip(row.instruction_id_list, arguments, strict=True))
    for name, entry in constraints:
        _check(name, entry, row.prompt, place, verifiers)
    return ConstrainedPrompt(row.prompt, constraints)


def _check(name: str, arguments: Mapping[str, Any], prompt: str, place: str, verifiers: Mapping[str, Any]) -> None:
    """Refuse a constraint that cannot be verified; without an argument its verifier would draw one by chance."""
    if name not in verifiers:
        raise DataError(
            f"there is no constraint `{name}`", where=place, hint=nearest_name(name, verifiers, "use those of IFEval")
        )
    verifier = verifiers[name](name)
    if missing := [key for key in verifier.get_instruction_args_keys() if key not in arguments]:
        raise DataError(f"{name} needs `{'` and `'.join(missing)}`", where=place)
    try:
        verifier.build_description(**arguments)
        verifier.check_following("A word.")
    except LookupError as error:  # NLTK's, which says how to get its data and not that only some verifiers need it
        if "punkt" not in str(error):
            raise
        raise EnvironmentProblem(
            f"{name} splits texts by data of NLTK that is not installed",
            where=place,
            hint="`python -m nltk.downloader punkt_tab` gets it; or leave out the rows with this constraint",
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{name} cannot be verified with these arguments: {error}", where=place) from error


def _verifiers() -> Mapping[str, Any]:
    """Classes of verifiers by the identifier of the constraint."""
    try:
        import langdetect
        from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT
    except ImportError as error:
        raise EnvironmentProblem(
            "the verifiers of constraints are not installed", hint="pip install 'rlhf[constraints]'"
        ) from error
    langdetect.DetectorFactory.seed = 0  # it draws, and the same text could be of two languages
    return INSTRUCTION_DICT  # type: ignore[no-any-return]
