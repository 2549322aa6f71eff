"""A Python function as a scorer. Only here may a configuration name code."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from pipelines.data.rows import as_dict
from pipelines.errors import DataError, RlhfError, UsageError
from pipelines.scorers.protocol import Completion, Dialogue, Progress, checked_scores

RewardFunction = Callable[..., Iterable[float]]
"""Takes the prompts as lists of `as_dict` and the completions as text; returns one number for each.

A parameter `finished` gets whether each completion ended by itself.
"""
CALLED = "it is called as function(prompts, completions) and returns one number for each completion"
_UNORDERED = (Mapping, Set, str, bytes)
"""Types that can be iterated but hold no numbers in the order of the completions."""


class FunctionScorer:
    """Calls a function of the user with all rows at once, so that batching never changes a score."""

    def __init__(
        self,
        name: str,
        function: RewardFunction,
        spec: str,
        *,
        progress: Progress | None = None,
        read_thoughts: bool = False,
    ) -> None:
        self.name = name
        self._read_thoughts = read_thoughts
        self._takes_finished = _has_parameter(function, "finished")
        self._function = function
        self._spec = spec
        self._progress = progress

    @classmethod
    def load(
        cls, name: str, spec: str, *, progress: Progress | None = None, read_thoughts: bool = False
    ) -> FunctionScorer:
        """Import ``module:function``; see `find_function` for the errors."""
        return cls(name, find_function(spec), spec, progress=progress, read_thoughts=read_thoughts)

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The function's scores.

        Raises:
            DataError: the function raised, or did not return one finite number a row.
        """
        dialogues = [[as_dict(turn) for turn in prompt] for prompt in prompts]
        texts = [completion.read(thoughts=self._read_thoughts) for completion in completions]
        beside = {"finished": [answer.finished for answer in completions]} if self._takes_finished else {}
        called = f"the reward function {self._spec}"
        try:
            result: Any = self._function(dialogues, texts, **beside)
            values = None if result is None or isinstance(result, _UNORDERED) else list(result)
        except RlhfError:
            raise
        except Exception as error:
            raise DataError(
                f"{called} failed: {type(error).__name__}: {error}",
                where=_last_line(error, self._function),
                hint=CALLED,
            ) from error
        if values is None:
            returned = "nothing (None)" if result is None else f"a {type(result).__name__}"
            raise DataError(
                f"{called} returned {returned}; it must return a list of numbers",
                where=_first_line(self._function),
                hint=CALLED,
            )
        try:
            scores = checked_scores(called, values, len(prompts))
        except DataError as error:
            error.where = _first_line(self._function)
            raise
        if self._progress is not None:
            self._progress(len(scores))
        return scores


def _has_parameter(function: RewardFunction, name: str) -> bool:
    """Whether a function can be called with the parameter by its name; one that takes any keyword gets none."""
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):  # some built-in functions tell nothing
        return False
    return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def function_file(spec: str) -> Path | None:
    """Find the file of the module that ``module:function`` names without running it; None where there is none.

    Raises:
        UsageError: `spec` has another form.
    """
    module = _module_spec(spec)
    path = Path(module.origin) if module is not None and module.origin is not None else None
    return path if path is not None and path.is_file() else None


def check_function(spec: str) -> None:
    """Refuse a function that does not exist; its module is read, not run.

    Raises:
        UsageError: `spec` is not of the form ``module:function``, there is no such module, or its file cannot be parsed
            or never binds that name.
    """
    module_name, _, attribute = spec.partition(":")
    if _module_spec(spec) is None:
        file = module_name.removesuffix(".py")
        raise UsageError(
            f"the reward function {spec}: there is no module `{module_name}`",
            hint=f"write {file.replace('/', '.')}:{attribute}: a module's name has no .py and no slash"
            if file != module_name or "/" in file
            else f"looked in the current directory ({os.getcwd()}) and among the installed packages",
        )
    path = function_file(spec)
    if path is None or path.suffix != ".py" or "." in attribute:
        return  # compiled, or an attribute of a class or a submodule: only an import can tell
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"the reward function {spec}: its module cannot be imported: {type(error).__name__}: {error}",
            where=f"{path}:{getattr(error, 'lineno', None) or 1}",
        ) from error
    if not _may_bind(tree, attribute):
        raise _no_function(spec, "does not exist", str(path), _functions(tree))


def _functions(tree: ast.Module) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def _may_bind(tree: ast.Module, name: str) -> bool:
    """Whether running the module may bind the name; bodies of functions and classes count only for `global`."""
    if any(isinstance(node, ast.Global) and name in node.names for node in ast.walk(tree)):
        return True
    nodes: list[ast.AST] = [*tree.body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name in (name, "__getattr__"):
                return True
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
        if isinstance(node, ast.alias) and (node.asname or node.name.partition(".")[0]) in (name, "*"):
            return True
        nodes += ast.iter_child_nodes(node)
    return False


def _no_function(spec: str, problem: str, where: str, others: Sequence[str] = ()) -> UsageError:
    attribute = spec.partition(":")[2]
    near = difflib.get_close_matches(attribute, others, n=1) or list(others[:3])
    return UsageError(
        f"the reward function {spec}: `{attribute}` {problem}",
        where=where,
        hint=f"the module has {', '.join(near)}" if near else None,
    )


def _module_spec(spec: str) -> ModuleSpec | None:
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"`{spec}` does not name a function", hint="write module:function, e.g. my_reward:score")
    if module_name.endswith(".py") or "/" in module_name:
        return None  # the search for a module `a.py` would run the file a.py
    _add_current_directory()
    top, *parts = module_name.split(".")
    try:
        module = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    name = top
    for part in parts:  # a search for the whole name would run the packages above the module
        if module is None or module.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        module = PathFinder.find_spec(name, module.submodule_search_locations)
    return module


def find_function(spec: str) -> RewardFunction:
    """Import the function that ``module:function`` names, also from the current directory.

    Raises:
        UsageError: see `check_function`; or the module cannot be imported.
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
        problem = "is not callable" if function is not None else "does not exist"
        raise _no_function(spec, problem, getattr(module, "__file__", None) or module_name)
    return function  # type: ignore[no-any-return]


def _add_current_directory() -> None:
    if os.getcwd() not in sys.path:
        # last, so that a file of the user never hides an installed package from the rest of the program
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()


def _last_line(error: BaseException, function: object = None) -> str | None:
    """``file:line`` of the error; where the call failed before it entered `function`, of the beginning of that."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else _first_line(function)


def _first_line(function: object) -> str | None:
    """``file:line`` of the function's definition; None where Python does not know it."""
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else None
