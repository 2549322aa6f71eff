"""A user's function as a scorer: what it is given, and how its faults are told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.data.rows import Message
from pipelines.errors import DataError, RlhfError, UsageError
from pipelines.scorers import Completion
from pipelines.scorers.function import FunctionScorer, check_function, find_function, function_file

PROMPTS = [(Message(role="user", content="hello"),), (Message(role="user", content="how are you"),)]
COMPLETIONS = [Completion("fine", (1, 2), True), Completion("not so good", (3,), False)]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory that is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("user_reward"):
            del sys.modules[name]


def scorer(function: Any) -> FunctionScorer:
    return FunctionScorer("mine", function, "mod:fun")


def test_a_function_of_the_current_directory_gets_dicts_and_text(module: Path):
    (module / "user_reward_a.py").write_text(
        "seen = []\ndef score(prompts, completions):\n"
        "    seen.append((prompts, completions))\n    return [len(text) for text in completions]\n"
    )
    loaded = FunctionScorer.load("length", "user_reward_a:score")
    assert loaded(PROMPTS, COMPLETIONS) == [4.0, 11.0]
    (prompts, completions) = sys.modules["user_reward_a"].seen[0]
    assert prompts == [[{"role": "user", "content": "hello"}], [{"role": "user", "content": "how are you"}]]
    assert completions == ["fine", "not so good"]


@pytest.mark.parametrize("result", [torch.tensor([1.0, 2.0]), (1, 2), [True, 2.0], iter([1.0, torch.tensor(2.0)])])
def test_any_sequence_of_numbers_will_do(result: Any):
    scores = scorer(lambda prompts, completions: result)(PROMPTS, COMPLETIONS)
    assert scores == [1.0, 2.0]
    assert all(type(score) is float for score in scores)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no_colon", "does not name a function"),
        (":f", "does not name a function"),
        ("m:", "does not name a function"),
        ("no_such_module_here:f", "no module `no_such_module_here`"),
        ("json.no_such:f", "no module `json.no_such`"),
        ("json:no_such", "`no_such` does not exist"),
        ("sys:no_such", "`no_such` does not exist"),
        ("string:digits", "is not callable"),
    ],
)
def test_a_wrong_name_is_a_usage_error(spec: str, words: str):
    with pytest.raises(UsageError, match=words):
        find_function(spec)


@pytest.mark.parametrize("body", ["import no_such_dependency", "1 / 0", "def score(:"])
def test_a_module_that_cannot_be_imported_is_a_usage_error(module: Path, body: str):
    (module / "user_reward_b.py").write_text(body + "\ndef score(prompts, completions): ...\n")
    with pytest.raises(UsageError, match="user_reward_b:score: its module cannot be imported"):
        find_function("user_reward_b:score")


def test_an_exception_inside_names_function_and_line(module: Path):
    (module / "user_reward_c.py").write_text("def score(prompts, completions):\n    return [1 / 0]\n")
    with pytest.raises(DataError, match="user_reward_c:score failed: ZeroDivisionError") as caught:
        FunctionScorer.load("c", "user_reward_c:score")(PROMPTS, COMPLETIONS)
    assert caught.value.where == f"{module / 'user_reward_c.py'}:2"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ([1.0], "1 scores for 2 completions"),
        ([1.0, 2.0, 3.0], "3 scores for 2 completions"),
        ([1.0, float("nan")], "score nan for completion 2"),
        ([float("-inf"), 1.0], "score -inf for completion 1"),
        ([1.0, "2.0"], "the text '2.0'"),
        ([1.0, None], "NoneType"),
        ([1.0, [2.0]], "list"),
        (None, r"returned nothing \(None\)"),
        ({1.0: "a", 2.0: "b"}, "returned a dict"),
        ({1.0, 2.0}, "returned a set"),
        ("12", "returned a str"),
        (b"12", "returned a bytes"),
        (3.0, "failed: TypeError"),
    ],
)
def test_anything_but_one_finite_number_a_row_is_a_data_error(result: Any, words: str):
    with pytest.raises(DataError, match=words) as caught:
        scorer(lambda prompts, completions: result)(PROMPTS, COMPLETIONS)
    assert "mod:fun" in caught.value.message
    assert caught.value.where is None or caught.value.where.startswith(f"{__file__}:")


def test_our_own_errors_pass_through():
    def refuse(prompts: Any, completions: Any) -> list[float]:
        raise RlhfError("as it is")

    with pytest.raises(RlhfError, match=r"^as it is$"):
        scorer(refuse)(PROMPTS, COMPLETIONS)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("def score(completions, **kw):\n    return [1.0]\n", 1),
        ("\ndef score(prompts, completions):\n    return None\n", 2),
        ("\n\ndef score(prompts, completions):\n    return [1.0]\n", 3),
        ("def score(prompts, completions):\n    for text in completions:\n        yield text.no_such\n", 3),
    ],
    ids=["wrong signature", "nothing returned", "wrong number", "a generator that fails"],
)
def test_a_fault_is_placed_in_the_users_file(module: Path, body: str, line: int):
    (module / "user_reward_d.py").write_text(body)
    loaded = FunctionScorer.load("d", "user_reward_d:score")
    try:
        with pytest.raises(DataError, match="user_reward_d:score") as caught:
            loaded(PROMPTS, COMPLETIONS)
    finally:
        del sys.modules["user_reward_d"]
    assert caught.value.where == f"{module / 'user_reward_d.py'}:{line}"


def test_tools_and_calls_reach_the_function():
    tool = {"type": "function", "function": {"name": "weather"}}
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    dialogue = (
        Message(role="user", content="rain?", tools=(tool,)),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="sunny"),
    )
    seen: list[Any] = []

    def keep(prompts: Any, completions: Any) -> list[float]:
        seen.extend(prompts)
        return [0.0]

    scorer(keep)([dialogue], COMPLETIONS[:1])
    assert seen == [
        [
            {"role": "user", "content": "rain?", "tools": [tool]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "sunny"},
        ]
    ]


def test_a_function_that_is_not_there_is_refused_without_running_its_module(module: Path):
    file = module / "user_reward_e.py"
    file.write_text(
        "raise SystemExit\ndef score(p, c): ...\nother = score\nif score:\n    from json import loads as third\n"
    )
    for name in ("score", "other", "third"):
        check_function(f"user_reward_e:{name}")
    with pytest.raises(UsageError, match="`scoer` does not exist") as caught:
        check_function("user_reward_e:scoer")
    assert caught.value.where == str(file)
    assert caught.value.hint == "the module has score"
    file.write_text("from json import *\n")
    check_function("user_reward_e:loads")
    file.write_text("def score(:\n")
    with pytest.raises(UsageError, match="SyntaxError") as caught:
        check_function("user_reward_e:score")
    assert caught.value.where == f"{file}:1"


@pytest.mark.parametrize(("spec", "meant"), [("a.py:f", "a:f"), ("rewards/a.py:f", "rewards.a:f"), ("b/a:f", "b.a:f")])
def test_a_file_in_place_of_a_module_gets_the_right_name(module: Path, spec: str, meant: str):
    (module / "a.py").write_text("raise SystemExit\n")
    with pytest.raises(UsageError, match="there is no module") as caught:
        check_function(spec)
    assert f"write {meant}:" in (caught.value.hint or "")


@pytest.mark.parametrize("module", ["flat.rewards", "deep.inner.rewards"])
def test_no_package_above_the_module_is_run_by_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path.joinpath(*module.split(".")[:-1])
    folder.mkdir(parents=True)
    for package in (tmp_path / module.split(".")[0], folder):
        (package / "__init__.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    (folder / "rewards.py").write_text("def score(prompts, completions): return [0.0] * len(prompts)\n")
    check_function(f"{module}:score")
    assert function_file(f"{module}:score") == folder / "rewards.py"
    with pytest.raises(UsageError, match="does not exist"):
        check_function(f"{module}:other")
    with pytest.raises(UsageError, match="there is no module"):
        check_function(f"{module}.deeper:score")
    assert not (tmp_path / "ran").exists()
    assert module.split(".")[0] not in sys.modules
