"""Errors: one type per exit code, with what, where, why and what to do; and the hint for a misspelled name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class RlhfError(Exception):
    """Base of every error that a user can cause or fix.

    Args:
        message: what went wrong, in one sentence.
        where: the place, as ``file:line``, a configuration key or a path.
        hint: what to do about it.
    """

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def as_dict(self) -> dict[str, object]:
        """Return the error as ``--json`` prints it."""
        return {
            "code": self.code,
            "exit": self.exit_code,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
        }

    @staticmethod
    def from_dict(entry: Mapping[str, Any]) -> RlhfError:
        """Rebuild an error from `as_dict`; one of an unknown code keeps its code and its exit code."""
        kinds = {kind.code: kind for kind in RlhfError.__subclasses__()}
        kind = kinds.get(entry["code"], RlhfError)
        error = kind(str(entry["message"]), where=entry.get("where"), hint=entry.get("hint"))
        error.code, error.exit_code = str(entry["code"]), int(entry["exit"])
        return error


class UsageError(RlhfError):
    """The command line or the configuration file is wrong (exit 2)."""

    exit_code, code = 2, "usage"


class DataError(RlhfError):
    """A row or a data file is invalid (exit 3)."""

    exit_code, code = 3, "bad_data"


class ConflictError(RlhfError):
    """The configuration differs from what the run directory was made with (exit 4)."""

    exit_code, code = 4, "config_conflict"


class LockedError(RlhfError):
    """Another process holds this run directory or file (exit 5)."""

    exit_code, code = 5, "locked"


class ArtifactError(RlhfError):
    """An artifact of an earlier stage is missing or damaged (exit 6)."""

    exit_code, code = 6, "artifact"


class TrainingError(RlhfError):
    """Training diverged, or a gate refused its result (exit 7)."""

    exit_code, code = 7, "training"


class EnvironmentProblem(RlhfError):
    """The machine lacks something: CUDA, a package, a data type (exit 8)."""

    exit_code, code = 8, "environment"


class DiskError(RlhfError):
    """No space, or no permission to write (exit 9)."""

    exit_code, code = 9, "disk"


class HubError(RlhfError):
    """A hub or network resource is not available (exit 10)."""

    exit_code, code = 10, "network"


class PeopleNeeded(RlhfError):
    """The run waits for people: labels are missing (exit 11)."""

    exit_code, code = 11, "waiting"


def nearest_name(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the hint for a name that is not known: the nearest known one, or else `otherwise`."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else otherwise


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def causes(error: BaseException) -> list[BaseException]:
    """Return the error, what caused it, what caused that, and so on; each once."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain
