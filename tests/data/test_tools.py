"""Tools and tool calls, from the file to the ids: nothing is lost, and nothing that cannot be written is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.canonical import to_line
from pipelines.data.chat import ChatEncoder
from pipelines.data.formats import detect_format
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Demonstration, Message, Prompt
from pipelines.data.split import prompt_key
from pipelines.errors import DataError
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "wetter", "parameters": {"default": None, "properties": {}}}}
]
CALL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "wetter", "arguments": {"ort": "Köln", "tage": [1, None]}},
}
WITH_TOOLS = "{% if tools %}TOOLS{{ tools | tojson }}{% endif %}" + CHAT_TEMPLATE
WITH_CALLS = WITH_TOOLS.replace(
    "{{ m.content }}", "{{ m.content }}{% if m.tool_calls %}CALL{{ m.tool_calls | tojson }}{% endif %}"
)
DIALOGUE: list[dict[str, Any]] = [
    {"role": "system", "content": "Sei freundlich. Ключ: 你好 🙂"},
    {"role": "user", "content": "Wie wird das Wetter?\n\nمرحبا"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "wetter", "content": '  {"grad": 21}\n'},
    {"role": "assistant", "content": "Schön, 21 °C."},
    {"role": "user", "content": "धन्यवाद"},
    {"role": "assistant", "content": "Gern!", "tool_calls": None},
]


def read(path: Path, row: dict[str, Any], kind: type[Any]) -> Any:
    path.write_text(json.dumps(row))
    (outcome,) = SourceReader(Source(path=str(path)), kind)
    assert outcome.fault is None
    return outcome.row


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
def test_everything_stands_in_the_rendering(tmp_path: Path, tools: Any) -> None:
    row = read(tmp_path / "a.jsonl", {"messages": DIALOGUE, "tools": tools}, Demonstration)
    assert row.messages[0].tools == tuple(TOOLS)
    assert row.messages[2].tool_calls == (CALL,)
    assert Demonstration.model_validate_json(to_line(row)) == row
    assert detect_format([json.loads(to_line(row))], "").model_validate(json.loads(to_line(row))).rows() == (row,)
    tokenizer = tiny_tokenizer(template=WITH_CALLS)
    ids, labels = ChatEncoder(tokenizer).demonstration(row, "all")
    text = tokenizer.decode(ids)
    place = 0
    for turn in DIALOGUE:
        place = text.index(turn["content"] or "CALL", place) + 1
    assert text.startswith("TOOLS" + json.dumps(TOOLS, ensure_ascii=False))
    assert json.dumps([CALL], ensure_ascii=False) in text
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert trained == f"CALL{json.dumps([CALL], ensure_ascii=False)}</s>Schön, 21 °C.</s>Gern!</s>"


def test_a_turn_that_only_calls_is_an_answer(tmp_path: Path) -> None:
    row = read(tmp_path / "a.jsonl", {"messages": DIALOGUE[:3]}, Demonstration)
    _, labels = ChatEncoder(tiny_tokenizer(template=WITH_CALLS)).demonstration(row, "last")
    assert sum(label != -100 for label in labels) > 3
    assert read(tmp_path / "a.jsonl", {"messages": DIALOGUE[:3]}, Prompt).prompt == row.messages[:2]


def test_arguments_as_text_become_the_object_they_say(tmp_path: Path) -> None:
    def calls(arguments: Any) -> Any:
        call = {"function": {"name": "f", "arguments": arguments}}
        turns = [DIALOGUE[1], {"role": "assistant", "content": "", "tool_calls": [call]}]
        return read(tmp_path / "a.jsonl", {"messages": turns}, Demonstration).messages[1].tool_calls[0]["function"]

    assert calls('{"a": [1, null]}')["arguments"] == {"a": [1, None]}
    for kept in ("{", "[1]", "7", '{"a": 1, "a": 2}', {"a": 1}):
        assert calls(kept)["arguments"] == kept


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE, WITH_TOOLS])
def test_a_template_that_would_drop_them_is_refused(template: str | None) -> None:
    encoder = ChatEncoder(tiny_tokenizer(template=template))
    user = Message(role="user", content="Hi?", tools=tuple(TOOLS))
    plain = Message(role="user", content="Hi?")
    answer = Message(role="assistant", content="", tool_calls=(CALL,))
    with pytest.raises(DataError, match=r"`tool_calls`, which the dialogue has \(the dialogue begins with 'Hi\?'\)"):
        encoder.demonstration(Demonstration(messages=(plain, answer)), "all")
    if template == WITH_TOOLS:
        assert "TOOLS" in tiny_tokenizer().decode(encoder.prompt((user,)))
    else:
        with pytest.raises(DataError, match="`tools`"):
            encoder.prompt((user,))


def test_the_template_for_tools_is_taken_where_there_are_several() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "tool_use": WITH_CALLS}
    encoder = ChatEncoder(tokenizer)
    user = Message(role="user", content="Hi?", tools=tuple(TOOLS))
    assert "wetter" in tokenizer.decode(encoder.prompt((user,)))
    assert "TOOLS" not in tokenizer.decode(encoder.prompt((Message(role="user", content="Hi?"),)))


def test_eos_inside_a_call_is_refused() -> None:
    encoder = ChatEncoder(tiny_tokenizer(template=WITH_CALLS))
    call = {"name": "f", "arguments": {"a": "</s>"}}
    row = Demonstration(
        messages=(Message(role="user", content="a"), Message(role="assistant", content="", tool_calls=(call,)))
    )
    with pytest.raises(DataError, match="EOS"):
        encoder.demonstration(row, "last")


@pytest.mark.parametrize("tools", [[], "", " ", "[]", None])
def test_no_tools_are_none(tmp_path: Path, tools: Any) -> None:
    row = read(tmp_path / "a.jsonl", {"conversations": [{"from": "human", "value": "a"}], "tools": tools}, Prompt)
    assert row.prompt[0].tools is None
    assert "tools" not in to_line(row)


def test_a_comparison_has_tools_but_its_answers_do_not_call(tmp_path: Path) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "tools": TOOLS}
    compared = read(tmp_path / "a.jsonl", row, Comparison)
    assert compared.prompt[0].tools == tuple(TOOLS)
    assert hash(compared.prompt) == hash((Message(role="user", content="a"),))
    calling = {"role": "assistant", "content": "b", "tool_calls": [CALL]}
    row = {"prompt": [DIALOGUE[1]], "chosen": [calling], "rejected": [DIALOGUE[4]]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (outcome,) = SourceReader(Source(path=str(tmp_path / "a.jsonl")), Comparison)
    assert "chosen calls tools" in str(outcome.fault)
    calling = {"from": "function_call", "value": CALL_TEXT}
    row = {"conversations": [{"from": "human", "value": "a"}], "chosen": calling, "rejected": calling | {"from": "gpt"}}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (outcome,) = SourceReader(Source(path=str(tmp_path / "a.jsonl")), Comparison)
    assert "chosen calls tools" in str(outcome.fault)


def test_a_prompt_with_other_tools_is_another_prompt() -> None:
    keys = {
        prompt_key((Message(role="user", content="a", tools=tools),))
        for tools in (None, tuple(TOOLS), (*TOOLS, *TOOLS), tuple(TOOLS))
    }
    assert len(keys) == 3


def test_tools_as_deep_as_a_row_may_be_survive_the_disk(tmp_path: Path) -> None:
    deep: Any = {"a": None}
    for _ in range(95):
        deep = [deep]
    row = read(tmp_path / "a.jsonl", {"prompt": "a", "tools": [{"deep": deep}]}, Prompt)
    assert Prompt.model_validate_json(to_line(row)) == row


QWEN_CALLS = (  # the shape of Qwen 2.5's part for tools
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}<|{{ m.role if m.role != 'tool' else 'user' }}|>"
    "{% if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>{% else %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}"
    "</tool_call>{% endfor %}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WEATHER = {"name": "w", "description": "weather", "parameters": {"type": "object", "properties": {}}}
CALL_TEXT = '{"name": "w", "arguments": {"city": "Rome"}}'


def share_gpt(call: str) -> dict[str, Any]:
    turns = [
        ("human", "weather in Rome?"),
        ("function_call", call),
        ("observation", '{"t": 21}'),
        ("gpt", "21 degrees."),
    ]
    return {
        "conversations": [{"from": speaker, "value": value} for speaker, value in turns],
        "tools": json.dumps([WEATHER]),
    }


@pytest.mark.parametrize(
    "call", [CALL_TEXT, f"[{CALL_TEXT}]", CALL_TEXT.replace('{"city": "Rome"}', '"{\\"city\\": \\"Rome\\"}"')]
)
def test_share_gpt_trains_the_calls_that_openai_s_form_trains(tmp_path: Path, call: str) -> None:
    arguments = json.dumps({"city": "Rome"})
    openai = {
        "messages": [
            {"role": "user", "content": "weather in Rome?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "w", "arguments": arguments}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": '{"t": 21}'},
            {"role": "assistant", "content": "21 degrees."},
        ],
        "tools": [{"type": "function", "function": WEATHER}],
    }
    tokenizer = tiny_tokenizer(template=QWEN_CALLS)
    encoder = ChatEncoder(tokenizer)
    ids, labels = encoder.demonstration(read(tmp_path / "fc.jsonl", share_gpt(call), Demonstration), "all")
    assert (ids, labels) == encoder.demonstration(read(tmp_path / "oa.jsonl", openai, Demonstration), "all")
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert trained == f"<tool_call>w {arguments}</tool_call></s>21 degrees.</s>"


@pytest.mark.parametrize(
    "call",
    [
        *("f()", "{}", "[]", '"w"', '{"name": "w", "arguments": [1]}', '{"arguments": {}}'),
        *('{"name": "w", "parameters": {"city": "Rome"}}', '{"name": " ", "arguments": {}}'),
    ],
)
def test_a_call_that_is_none_is_a_bad_row(tmp_path: Path, call: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(share_gpt(call)))
    (outcome,) = SourceReader(Source(path=str(tmp_path / "a.jsonl")), Demonstration)
    assert "a function_call must be JSON" in str(outcome.fault)


def test_the_answer_of_a_tool_keeps_its_name_and_its_call(tmp_path: Path) -> None:
    dialogue = [turn | {"tool_call_id": "c1"} if turn["role"] == "tool" else turn for turn in DIALOGUE]
    dialogue[1] = dialogue[1] | {"name": "Ada"}  # of a person: no template reads it
    row = read(tmp_path / "a.jsonl", {"messages": dialogue, "tools": TOOLS}, Demonstration)
    assert (row.messages[3].name, row.messages[3].tool_call_id, row.messages[1].name) == ("wetter", "c1", None)
    assert Demonstration.model_validate_json(to_line(row)) == row
    template = WITH_CALLS.replace("{{ m.content }}", "{{ m.name }}/{{ m.tool_call_id }}:{{ m.content }}")
    tokenizer = tiny_tokenizer(template=template)
    assert "wetter/c1:" in tokenizer.decode(ChatEncoder(tokenizer).demonstration(row, "all")[0])
