"""A Python function as a scorer: the one place where a configuration may name code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from pipelines.errors import DataError, RlhfError, UsageError
from pipelines.scorers.base import Completion, Dialogue, Progress, checked_scores

RewardFunction = Callable[[list[list[dict[str, str]]], list[str]], Sequence[float]]
"""Gets the prompts as lists of ``{"role", "content"}`` and the completions as text; gives one number a row."""


class FunctionScorer:
    """Calls a function of the user with all rows at once, so that the way of batching never changes a score."""

    def __init__(self, name: str, function: RewardFunction, spec: str, *, progress: Progress | None = None) -> None:
        self.name = name
        self._function = function
        self._spec = spec
        self._progress = progress

    @classmethod
    def load(cls, name: str, spec: str, *, progress: Progress | None = None) -> FunctionScorer:
        """Import ``module:function``; see `find_function` for the errors."""
        return cls(name, find_function(spec), spec, progress=progress)

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The function's scores.

        Raises:
            DataError: it raised, or gave something else than one finite number a row.
        """
        dialogues = [[{"role": turn.role, "content": turn.content} for turn in prompt] for prompt in prompts]
        texts = [completion.text for completion in completions]
        called = f"the reward function {self._spec}"
        try:
            result = self._function(dialogues, texts)
            values = list(result)
        except RlhfError:
            raise
        except Exception as error:
            raise DataError(
                f"{called} failed: {type(error).__name__}: {error}",
                where=_last_line(error),
                hint="it is called as function(prompts, completions) and returns one number for each completion",
            ) from error
        scores = checked_scores(called, values, len(prompts))
        if self._progress is not None:
            self._progress(len(scores))
        return scores


def function_file(spec: str) -> Path | None:
    """The file of the module that ``module:function`` names, found without running it; None where there is none.

    Raises:
        UsageError: not of that form.
    """
    found = _module_spec(spec)
    path = Path(found.origin) if found is not None and found.origin is not None else None
    return path if path is not None and path.is_file() else None


def check_function(spec: str) -> None:
    """Refuse a function whose module is not there.

    Raises:
        UsageError: not of the form ``module:function``, or no such module.
    """
    if _module_spec(spec) is None:
        raise UsageError(
            f"the reward function {spec}: there is no module `{spec.partition(':')[0]}`",
            hint=f"looked in the current directory ({os.getcwd()}) and among the installed packages",
        )


def _module_spec(spec: str) -> ModuleSpec | None:
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"`{spec}` does not name a function", hint="write module:function, e.g. my_reward:score")
    _see_current_directory()
    try:
        return importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return None


def find_function(spec: str) -> RewardFunction:
    """Import what ``module:function`` names; modules of the current directory are found too.

    Raises:
        UsageError: not of that form, no such module, the module cannot be imported, or it has no such function.
    """
    module_name, _, attribute = spec.partition(":")
    check_function(spec)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"the reward function {spec}: its module cannot be imported: {type(error).__name__}: {error}",
            where=_last_line(error),
        ) from error
    function: Any = module
    for part in attribute.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        found = "is not callable" if function is not None else "does not exist"
        raise UsageError(
            f"the reward function {spec}: `{attribute}` {found}", where=getattr(module, "__file__", None) or module_name
        )
    return function  # type: ignore[no-any-return]


def _see_current_directory() -> None:
    if os.getcwd() not in sys.path:
        # last, so that a file of the user never hides an installed package from the rest of the program
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()


def _last_line(error: BaseException) -> str | None:
    """``file:line`` at which the error arose."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
