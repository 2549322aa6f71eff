"""Every accepted format, with rows written by hand, and files that nobody here wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data import Source
from pipelines.data.convert import to_kind
from pipelines.data.formats import FORMATS, detect_format, named_format
from pipelines.data.read import SourceReader
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message, Prompt
from pipelines.errors import DataError, UsageError


def turns(*pairs: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message.model_validate({"role": role, "content": content}) for role, content in pairs)


def chat(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def share(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": content} for role, content in pairs]


U, A, S = ("user", "Hi?"), ("assistant", "Yes."), ("system", "Be kind.")
PAIR = {"chosen": "Yes.", "rejected": "No."}
DEMO = Demonstration(messages=turns(U, A))
COMPARED = Comparison(prompt=turns(U), **PAIR)
PROMPT = Prompt(prompt=turns(U))

CASES: list[tuple[str, dict[str, Any], CanonicalRow]] = [
    ("messages", {"messages": chat(U, A)}, DEMO),
    ("messages", {"messages": chat(S, U)}, Prompt(prompt=turns(S, U))),
    ("comparison", {"prompt": chat(U), **PAIR}, COMPARED),
    (
        "comparison",
        {"prompt": chat(U), **PAIR, "margin": 2, "annotator": "ann", "source": "web"},
        Comparison(prompt=turns(U), **PAIR, margin=2.0, annotator="ann", source="web"),
    ),
    (
        "judgement",
        {"prompt": chat(U), "completion": "Yes.", "label": True},
        Judgement(prompt=turns(U), completion="Yes.", label=True),
    ),
    ("prompt_chat", {"prompt": chat(U)}, PROMPT),
    ("prompt", {"prompt": "Hi?"}, PROMPT),
    ("prompt_completion", {"prompt": "Hi?", "completion": "Yes."}, DEMO),
    ("prompt_completion_chat", {"prompt": chat(U), "completion": chat(A)}, DEMO),
    ("preference", {"prompt": "Hi?", **PAIR, "margin": None}, COMPARED),
    (
        "preference_chat",
        {"prompt": chat(S, U), "chosen": chat(A), "rejected": chat(("assistant", "No."))},
        Comparison(prompt=turns(S, U), **PAIR),
    ),
    ("preference_implicit", {"chosen": chat(U, A), "rejected": chat(U, ("assistant", "No."))}, COMPARED),
    (
        "preference_implicit",
        {"prompt": "Hi?", "messages": chat(U, A), "chosen": chat(U, A), "rejected": chat(U, ("assistant", "No."))},
        COMPARED,
    ),
    ("alpaca", {"instruction": "Hi?", "input": "", "output": "Yes.", "id": 7}, DEMO),
    (
        "alpaca",
        {"instruction": "Sum", "input": "1 2", "output": "3", "system": "Count.", "history": [["a", "b"], ["c", "d"]]},
        Demonstration(
            messages=turns(
                ("system", "Count."),
                ("user", "a"),
                ("assistant", "b"),
                ("user", "c"),
                ("assistant", "d"),
                ("user", "Sum\n1 2"),
                ("assistant", "3"),
            )
        ),
    ),
    ("alpaca_preference", {"instruction": "Hi?", "input": None, **PAIR, "output": "x"}, COMPARED),
    ("sharegpt", {"conversations": share(("human", "Hi?"), ("gpt", "Yes."))}, DEMO),
    ("sharegpt", {"conversations": share(("human", "Hi?"))}, PROMPT),
    (
        "sharegpt",
        {
            "system": "Be kind.",
            "conversations": share(("human", "Hi?"), ("function_call", "f()"), ("observation", "1"), ("gpt", "Yes.")),
        },
        Demonstration(messages=turns(S, U, ("assistant", "f()"), ("tool", "1"), A)),
    ),
    (
        "sharegpt",
        {"system": "Be kind.", "conversations": share(("system", "Be kind."), ("human", "Hi?"), ("gpt", "Yes."))},
        Demonstration(messages=turns(S, U, A)),
    ),
    (
        "sharegpt_preference",
        {
            "conversations": share(("human", "Hi?")),
            "chosen": {"from": "gpt", "value": "Yes."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        COMPARED,
    ),
    ("sharegpt_preference", {"conversations": share(("human", "Hi?")), **PAIR}, COMPARED),
    ("sharegpt_preference", {"conversations": "Hi?", **PAIR}, COMPARED),
]


@pytest.mark.parametrize(("name", "row", "expected"), CASES)
def test_a_row_is_recognized_and_converted(name: str, row: dict[str, Any], expected: CanonicalRow) -> None:
    found = detect_format(row, "x:1")
    assert found.name == name
    assert found.model_validate(row).canonical() == expected


def test_every_format_is_tried() -> None:
    assert {name for name, _, _ in CASES} == set(FORMATS)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "chosen: must be text, not null"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "chosen: must be text, not a number"),
        ({"prompt": "a", "chosen": True, "rejected": "b"}, "chosen: must be text, not true/false"),
        ({"prompt": "a", "chosen": ["b"], "rejected": "b"}, "chosen: must be text, not a list"),
        ({"prompt": "a", "chosen": " \n", "rejected": "b"}, "chosen: blank"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "a user turn is blank"),
        ({"prompt": "a", **PAIR, "margin": "1"}, "margin: must be a number, not text"),
        ({"prompt": chat(("user", "a"), ("assistant", "b")), **PAIR}, "the prompt ends with an assistant turn"),
        ({"prompt": chat(("assistant", "b"), ("user", "a")), **PAIR}, "an assistant turn stands before the first user"),
        ({"prompt": chat(("system", "b")), **PAIR}, "there is no user turn"),
        ({"prompt": chat(U, S, U), **PAIR}, "a system turn stands after the first turn"),
        ({"prompt": chat(("robot", "b")), **PAIR}, "prompt[0].role: must be 'system', 'user', 'assistant' or 'tool'"),
        ({"prompt": ["a"], **PAIR}, "prompt[0]: must be an object, not text"),
        ({"prompt": [], **PAIR}, "prompt: blank"),
        ({"conversations": share(("bot", "a")), **PAIR}, "conversations[0].from: must be"),
        ({"conversations": "a", "chosen": {"from": "human", "value": "b"}, "rejected": "c"}, "the assistant's turn"),
        ({"chosen": chat(U, A), "rejected": chat(("user", "Ho?"), A)}, "differ before their last turn"),
        ({"chosen": chat(U, A), "rejected": chat(U, U)}, "rejected must be one assistant turn"),
    ],
)
def test_a_bad_row_says_what_is_wrong(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (outcome,) = SourceReader(Source(path=str(path)), Comparison)
    assert outcome.record.place == f"{path}:1"
    assert reason in str(outcome.fault)


def test_tool_calls_are_refused() -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{}]}]}
    with pytest.raises(ValueError, match="tool_calls"):
        detect_format(row, "x:1").model_validate(row)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"text": "a"},
        {"chosen": "a", "rejected": "b"},
        {"prompt": "a", "chosen": "b"},
        {"prompt": 5},
        {"messages": chat(U, A), "label": True},
    ],
)
def test_an_unknown_layout_lists_what_was_found_and_what_is_accepted(row: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        detect_format(row, "x.jsonl:1")
    assert caught.value.where == "x.jsonl:1"
    assert all(key in caught.value.message for key in row)
    assert "alpaca_preference: instruction (text)" in caught.value.message
    assert "columns" in str(caught.value.hint)


def test_an_unknown_format_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        named_format("share_gpt")
    assert "sharegpt" in str(caught.value.hint)


def test_kinds_serve_downwards_only() -> None:
    assert to_kind(COMPARED, Demonstration) == DEMO
    assert to_kind(COMPARED, Prompt) == to_kind(DEMO, Prompt) == PROMPT
    assert to_kind(PROMPT, Prompt) is PROMPT
    two_calls = Demonstration(messages=turns(U, ("assistant", "f()"), A))
    assert to_kind(two_calls, Prompt) == PROMPT
    judged = Judgement(prompt=turns(U), completion="x", label=False)
    for row, kind in ((PROMPT, Comparison), (PROMPT, Demonstration), (DEMO, Comparison), (judged, Demonstration)):
        with pytest.raises(DataError, match="is needed"):
            to_kind(row, kind)


def read(path: Path, kind: type[Any], **source: Any) -> list[Any]:
    outcomes = list(SourceReader(Source(path=str(path), **source), kind))
    assert [outcome.fault for outcome in outcomes if outcome.fault] == []
    return [outcome.row for outcome in outcomes]


def test_real_sharegpt_preferences(shared_data: Path) -> None:
    path = shared_data / "llamafactory" / "dpo_en_demo.json"
    rows = read(path, Comparison)
    raw = json.loads(path.read_text())
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    assert len(rows) == len(raw) == 300
    for row, original in zip(rows, raw, strict=True):
        assert [(m.role, m.content) for m in row.prompt] == [
            (roles[turn["from"]], turn["value"]) for turn in original["conversations"]
        ]
        assert (row.chosen, row.rejected) == (original["chosen"]["value"], original["rejected"]["value"])
    assert sum(row.prompt[0].role == "system" for row in rows) == 80


def test_real_alpaca(shared_data: Path) -> None:
    path = shared_data / "llamafactory" / "alpaca_en_demo.json"
    rows = read(path, Demonstration)
    raw = json.loads(path.read_text())
    assert len(rows) == len(raw) == 999
    assert sum("\n" + original["input"] in row.messages[0].content for row, original in zip(rows, raw, strict=True)
               if original["input"]) == 412  # fmt: skip
    for row, original in zip(rows, raw, strict=True):
        question, answer = row.messages
        assert question.content == original["instruction"] + ("\n" + original["input"]) * bool(original["input"])
        assert answer.content == original["output"]


def test_real_rows_through_a_column_map(shared_data: Path) -> None:
    path = shared_data / "anthropic_evals" / "agreeableness.jsonl"
    columns = {
        "prompt": "question",
        "chosen": "answer_matching_behavior",
        "rejected": "answer_not_matching_behavior",
    }
    rows = read(path, Comparison, columns=columns)
    raw = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == len(raw) == 1000
    for row, original in zip(rows, raw, strict=True):
        assert [m.content for m in row.prompt] == [original["question"]]
        assert row.chosen == original["answer_matching_behavior"]
        assert row.rejected == original["answer_not_matching_behavior"]


def test_real_judgements_are_not_taken_for_demonstrations(shared_data: Path) -> None:
    with pytest.raises(DataError, match="judged"):
        read(shared_data / "llamafactory" / "kto_en_demo.json", Demonstration)


def test_column_map(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "Hi?", "prompt": 3, "a": "Yes."}\n{"q": "Hi?", "b": 1}\n')
    columns = {"prompt": "q", "completion": "a"}
    good, bad = SourceReader(Source(path=str(path), columns=columns), Demonstration)
    assert good.row == DEMO
    assert str(bad.fault) == "completion: missing (column `a` of the file)"
    with pytest.raises(DataError, match="no column `z`; the first row has q, prompt, a"):
        list(SourceReader(Source(path=str(path), columns={"prompt": "z"}), Demonstration))
    with pytest.raises(UsageError) as caught:
        SourceReader(Source(path=str(path), columns={"promt": "q"}), Demonstration)
    assert "did you mean `prompt`?" in str(caught.value.hint)


def test_a_source_of_a_poorer_kind_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("one\ntwo\n")
    with pytest.raises(DataError, match="`prompt` holds prompts, but comparisons are needed"):
        list(SourceReader(Source(path=str(path)), Comparison))


def test_the_first_row_decides_and_format_forces(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n{"messages": []}\n')
    _, second = SourceReader(Source(path=str(path)), Prompt)
    assert str(second.fault) == "prompt: missing"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    (forced,) = SourceReader(Source(path=str(path), format="prompt"), Prompt)
    assert forced.row == Prompt(prompt=turns(("user", "a")))
