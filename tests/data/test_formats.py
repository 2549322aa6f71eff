"""Every accepted format, with rows written by hand, and files that nobody here wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.canonical import prompt_of, to_kind
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
GOOD, BAD = (Judgement(prompt=turns(U), completion="Yes.", label=label) for label in (True, False))
SCORED = Judgement(prompt=turns(U), completion="Yes.", label=3.0)


def better(chosen: str, rejected: str, margin: float) -> Comparison:
    return Comparison(prompt=turns(U), chosen=chosen, rejected=rejected, margin=margin)


CALL = '{"name": "f", "arguments": {"x": 1}}'
CALLING = Message(
    role="assistant", content="", tool_calls=({"type": "function", "function": {"name": "f", "arguments": {"x": 1}}},)
)
CASES: list[tuple[str, dict[str, Any], CanonicalRow | tuple[CanonicalRow, ...]]] = [
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
    (
        "two_answers",
        {"prompt": "Hi?", "answer_1": "No.", "answer_2": "Yes.", "verdict": 2},
        Comparison(prompt=turns(U), chosen="Yes.", rejected="No."),
    ),
    ("prompt_chat", {"prompt": chat(U)}, PROMPT),
    ("alpaca_prompt", {"instruction": "Hi?"}, PROMPT),
    ("alpaca_prompt", {"instruction": "Hi", "input": "?"}, Prompt(prompt=turns(("user", "Hi\n?")))),
    ("alpaca_prompt", {"instruction": "Hi", "input": "", "context": "?"}, Prompt(prompt=turns(("user", "Hi\n?")))),
    ("prompt", {"prompt": "Hi?"}, PROMPT),
    ("prompt_completion", {"prompt": "Hi?", "completion": "Yes."}, DEMO),
    ("prompt_completion_chat", {"prompt": chat(U), "completion": chat(A)}, DEMO),
    ("preference", {"prompt": "Hi?", **PAIR, "margin": None}, COMPARED),
    (
        "preference_chat",
        {"prompt": chat(S, U), "chosen": chat(A), "rejected": chat(("assistant", "No."))},
        Comparison(prompt=turns(S, U), **PAIR),
    ),
    ("answer_lists", {"prompt": "Hi?", "chosen": ["Yes."], "rejected": ["No."]}, COMPARED),
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
            "conversations": share(("human", "Hi?"), ("function_call", CALL), ("observation", "1"), ("gpt", "Yes.")),
        },
        Demonstration(messages=(*turns(S, U), CALLING, *turns(("tool", "1"), A))),
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
    (
        "preference_implicit",
        {
            "prompt": "Hi?",
            "messages": chat(U, A),
            "chosen": chat(U, A),
            "rejected": chat(U, ("assistant", "No.")),
            "score_chosen": 8.5,
            "score_rejected": 3,
        },
        COMPARED,
    ),
    ("judgement", {"prompt": chat(U), "completion": "Yes.", "label": 3}, SCORED),
    ("kto", {"prompt": "Hi?", "completion": "Yes.", "label": True}, GOOD),
    ("kto", {"prompt": chat(U), "completion": chat(A), "label": False}, BAD),
    ("messages_kto", {"messages": chat(U, A), "label": False}, BAD),
    ("sharegpt_kto", {"conversations": share(("human", "Hi?"), ("gpt", "Yes.")), "label": True}, GOOD),
    ("alpaca_kto", {"instruction": "Hi?", "input": "", "output": "Yes.", "label": True}, GOOD),
    ("scored", {"prompt": "Hi?", "completion": "Yes.", "score": 3}, SCORED),
    ("scored_response", {"prompt": chat(U), "response": chat(A), "score": 3.0}, SCORED),
    (
        "scored_list",
        {"prompt": "Hi?", "responses": ["low", "high", "mid", "also mid"], "scores": [1, 4, 2.5, 2.5]},
        (
            better("high", "mid", 1.5),
            better("high", "also mid", 1.5),
            better("high", "low", 3),
            better("mid", "low", 1.5),
            better("also mid", "low", 1.5),
        ),
    ),
    ("scored_list", {"instruction": "Hi?", "responses": ["a", "b"], "scores": [1, 1]}, ()),
    (
        "ultrafeedback",
        {
            "instruction": "Hi?",
            "completions": [
                {"model": "m", "response": "No.", "overall_score": 2.0, "critique": "Short."},
                {"model": "n", "response": "Yes.", "overall_score": 7.5},
            ],
        },
        better("Yes.", "No.", 5.5),
    ),
    (
        "hh",
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hi?\n\nAssistant: No."},
        COMPARED,
    ),
    ("text", {"text": " Once.\n", "label": 1}, Demonstration(text=" Once.\n")),
]


@pytest.mark.parametrize(("name", "row", "expected"), CASES)
def test_a_row_is_recognized_and_converted(
    name: str, row: dict[str, Any], expected: CanonicalRow | tuple[CanonicalRow, ...]
) -> None:
    found = detect_format([row], "x:1")
    assert found.name == name
    assert found.model_validate(row).rows() == (expected if isinstance(expected, tuple) else (expected,))


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
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "prompt: must be a list, not null"),
        ({"prompt": "a", "responses": ["b", "c"], "scores": [1]}, "there are 2 responses and 1 scores"),
        ({"prompt": "a", "responses": ["b"], "scores": [1]}, "responses: must hold at least 2"),
        ({"prompt": "a", "responses": ["b", " "], "scores": [1, 2]}, "responses[1]: blank"),
        ({"prompt": "a", "responses": ["b", "c"], "scores": [1, "2"]}, "scores[1]: must be a number, not text"),
        ({"responses": ["b", "c"], "scores": [1, 2]}, "there must be either a prompt or an instruction"),
        ({"prompt": "a", "instruction": "a", "responses": ["b", "c"], "scores": [1, 2]}, "either a prompt or an instr"),
        ({"instruction": "a", "completions": [{"response": "b"}] * 2}, "completions[0].overall_score: missing"),
    ],
)
def test_a_bad_row_says_what_is_wrong(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (outcome,) = SourceReader(Source(path=str(path)), Comparison)
    assert outcome.record.place == f"{path}:1"
    assert reason in str(outcome.fault)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"text": 5},
        {"prompt": "a", "chosen": "b"},
        {"prompt": 5},
    ],
)
def test_an_unknown_layout_lists_the_columns(row: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        detect_format([row], "x.jsonl:1")
    assert caught.value.where == "x.jsonl:1"
    assert all(key in caught.value.message for key in row)
    assert caught.value.hint


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
    text = Demonstration(text="Once.")
    assert prompt_of(text) == (Message(role="user", content="Once."),)
    with pytest.raises(DataError, match="a text as it is, which has no prompt"):
        to_kind(text, Prompt)
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


def test_real_judgements(shared_data: Path) -> None:
    path = shared_data / "llamafactory" / "kto_en_demo.json"
    rows = read(path, Judgement)
    raw = json.loads(path.read_text())
    assert len(rows) == len(raw) == 300
    for row, original in zip(rows, raw, strict=True):
        assert [{"role": m.role, "content": m.content} for m in row.prompt] == [
            {"role": turn["role"], "content": turn["content"]} for turn in original["messages"][:-1]
        ]
        assert row.completion == original["messages"][-1]["content"]
        assert row.label is original["label"]
    assert sum(row.label for row in rows) == 150
    assert len(read(path, Prompt)) == 300


JUDGED_LABELS = (True, False, "true", "False", "0", 1, 0.5)


@pytest.mark.parametrize("label", JUDGED_LABELS)
@pytest.mark.parametrize(
    "row",
    [
        {"messages": chat(U, A)},
        {"prompt": "Hi?", "completion": "Yes."},
        {"prompt": chat(U), "completion": chat(A)},
        {"instruction": "Hi?", "output": "Yes."},
        {"conversations": share(("human", "Hi?"), ("gpt", "Yes."))},
    ],
)
def test_a_judged_answer_is_never_one_to_imitate(tmp_path: Path, row: dict[str, Any], label: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**row, "label": label}))
    with pytest.raises(DataError, match="holds judgements, but demonstrations are needed"):
        read(path, Demonstration)


def test_a_longer_text_in_a_column_named_like_a_verdict_is_no_verdict(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"instruction": "Hi?", "output": "Yes.", "feedback": "What the user wrote later."}))
    assert len(read(path, Demonstration)) == 1


@pytest.mark.parametrize(
    "row",
    [{"prompt": "a", "completion": "x"}, {"instruction": "a", "output": "x"}, {"messages": chat(U, A)}],
)
def test_zero_and_one_are_labels_and_other_numbers_are_not(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "label": label}) + "\n" for label in (1, 0, True)))
    assert [judged.label for judged in read(path, Judgement)] == [True, False, True]
    path.write_text(json.dumps({**row, "label": 2}))
    (bad,) = SourceReader(Source(path=str(path)), Judgement)
    assert bad.fault is not None
    assert bad.fault.field == "label"


def test_a_message_of_a_tree_is_no_text_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"message_id": "m", "parent_id": None, "text": "Hi?", "role": "prompter"}))
    with pytest.raises(DataError, match="not recognized"):
        read(path, Demonstration)


def test_column_map(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "Hi?", "prompt": 3, "a": "Yes."}\n{"q": "Hi?", "b": 1}\n')
    columns = {"prompt": "q", "completion": "a"}
    good, bad = SourceReader(Source(path=str(path), columns=columns), Demonstration)
    assert good.row == DEMO
    assert str(bad.fault) == "completion: missing (column `a` of the file)"
    with pytest.raises(DataError, match="no column `z`; the first rows have q, prompt, a, b"):
        list(SourceReader(Source(path=str(path), columns={"prompt": "z"}), Demonstration))
    with pytest.raises(UsageError) as caught:
        SourceReader(Source(path=str(path), columns={"promt": "q"}), Demonstration)
    assert "did you mean `prompt`?" in str(caught.value.hint)


def test_a_source_of_a_poorer_kind_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("one\ntwo\n")
    with pytest.raises(DataError, match="`prompt` holds prompts, but comparisons are needed"):
        list(SourceReader(Source(path=str(path)), Comparison))


def test_of_equals_the_first_row_decides_and_format_forces(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n{"messages": []}\n')
    _, second = SourceReader(Source(path=str(path)), Prompt)
    assert str(second.fault) == "prompt: missing"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    (forced,) = SourceReader(Source(path=str(path), format="prompt"), Prompt)
    assert forced.row == Prompt(prompt=turns(("user", "a")))


def test_rows_inside_a_list_get_a_hint() -> None:
    with pytest.raises(DataError) as caught:
        detect_format([{"data": [{"prompt": "a"}]}], "x.json:1")
    assert "the list `data`" in (caught.value.hint or "")


def write_rows(path: Path, *rows: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "row", [{"instruction": "Hi", "input": "?", "output": ""}, {"prompt": "Hi\n?", "completion": " "}]
)
def test_a_prompt_beside_a_blank_answer_is_a_prompt(tmp_path: Path, row: dict[str, str]) -> None:
    path = write_rows(tmp_path / "a.jsonl", row, row | {"system": "s"})
    plain, with_system = SourceReader(Source(path=str(path)), Prompt)
    assert plain.row == Prompt(prompt=turns(("user", "Hi\n?")))
    assert with_system.row == Prompt(prompt=turns(("system", "s"), ("user", "Hi\n?")))
    assert all(outcome.fault is not None for outcome in SourceReader(Source(path=str(path)), Demonstration))


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"prompt": "q", "answer": "a"}, "completion=answer"),
        ({"prompt": "q", "response": "a"}, "completion=response"),
        ({"instruction": "q", "input": "i", "answer": "a"}, "output=answer"),
        ({"instruction": "q", "input": "i", "completion": "a"}, "output=completion"),
        ({"instruction": "q", "context": "i", "response": "a"}, "output=response"),
        ({"instruction": "q", "input": "i", "context": ["a topic"], "response": "a"}, "output=response"),
    ],
)
def test_an_answer_beside_a_prompt_is_named_where_demonstrations_are_needed(
    tmp_path: Path, row: dict[str, str], column: str
) -> None:
    path = write_rows(tmp_path / "a.jsonl", row)
    with pytest.raises(DataError) as caught:
        list(SourceReader(Source(path=str(path)), Demonstration))
    assert f"`--columns {column}` makes it fit" in str(caught.value.hint)
    canonical, named = column.split("=")
    (outcome,) = SourceReader(Source(path=str(path), columns={canonical: named}), Demonstration)
    assert outcome.row is not None
    assert [turn.content for turn in outcome.row.messages] == ["q\ni" if "instruction" in row else "q", "a"]
    bare = write_rows(
        tmp_path / "b.jsonl", {name: text for name, text in row.items() if name != named} | {"topic": "t"}
    )
    with pytest.raises(DataError, match="holds prompts, but demonstrations are needed"):
        list(SourceReader(Source(path=str(bare)), Demonstration))


def test_the_columns_of_a_question_with_context_lose_no_context(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", {"context": "c", "question": "q", "answer": "a"})
    with pytest.raises(DataError, match="not recognized") as caught:
        list(SourceReader(Source(path=str(path)), Demonstration))
    assert "`--columns output=answer --columns instruction=question` makes it fit" in str(caught.value.hint)
    columns = {"output": "answer", "instruction": "question"}
    (outcome,) = SourceReader(Source(path=str(path), columns=columns), Demonstration)
    assert outcome.row is not None
    assert [turn.content for turn in outcome.row.messages] == ["q\nc", "a"]


def test_lists_of_answers_are_compared_across_and_name_their_part_of_the_benchmark() -> None:
    row = {"id": "7", "prompt": "Hi?", "chosen": ["Yes."], "rejected": ["No.", "Maybe.", "?"], "subset": "Safety"}
    assert detect_format([row], "x:1").name == "answer_lists"
    rows = FORMATS["answer_lists"].model_validate(row).rows()
    assert rows == tuple(
        Comparison(prompt=turns(U), chosen="Yes.", rejected=text, source="Safety") for text in row["rejected"]
    )
    styles = {"prompt": "Hi?", "chosen": ["a", "b", "c"], "rejected": ["x", "y", "z"], "domain": "chat"}
    rows = FORMATS["answer_lists"].model_validate(styles).rows()
    difficulty = {(pair.chosen, pair.rejected): pair.source for pair in rows if isinstance(pair, Comparison)}
    assert len(difficulty) == 9
    assert [difficulty["a", other] for other in "xyz"] == ["chat, normal", "chat, hard", "chat, hard"]
    assert [difficulty["c", other] for other in "xyz"] == ["chat, easy", "chat, easy", "chat, normal"]


@pytest.mark.parametrize("answers", [[], [" "], "No.", [{"role": "assistant", "content": "No."}]])
def test_a_list_of_answers_holds_texts(answers: Any) -> None:
    with pytest.raises(ValueError, match="rejected"):
        FORMATS["answer_lists"].model_validate({"prompt": "Hi?", "chosen": ["Yes."], "rejected": answers})
