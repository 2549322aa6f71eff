"""Nothing that changes what a row means is left out in silence: systems, histories, verdicts, parts of turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.formats import FORMATS, detect_format
from pipelines.data.read import FIRST_ROWS, SourceReader
from pipelines.data.rows import Comparison, Demonstration, Judgement, Message, Prompt
from pipelines.errors import DataError, UsageError
from tests.data.test_formats import CASES

SYSTEM = Message(role="system", content="Be kind.")
U, A = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
ANSWERED = {"prompt": "q", "completion": "a"}
CALLED = [U, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}, A]


def save(tmp_path: Path, *rows: Any) -> str:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def faults(path: str, kind: type[Any] | None = None, **source: Any) -> list[str]:
    return [str(found.fault) for found in SourceReader(Source(path=path, **source), kind) if found.fault]


def first_turns(row: Any) -> tuple[Message, ...]:
    turns: tuple[Message, ...] = row.messages if isinstance(row, Demonstration) else row.prompt
    return turns[:2]


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, row, _ in CASES if "system" not in json.dumps(row)])
def test_every_format_reads_a_system_column(name: str, row: dict[str, Any]) -> None:
    layout = FORMATS[name]
    plain = layout.model_validate(row).rows()
    assert layout.model_validate({**row, "system": " "}).rows() == plain
    if name == "text":
        with pytest.raises(ValueError, match="a text as it is can have no system turn"):
            layout.model_validate({**row, "system": "Be kind."}).rows()
        return
    found = layout.model_validate({**row, "system": "Be kind."}).rows()
    assert [first_turns(one) for one in found] == [(SYSTEM, first_turns(one)[0]) for one in plain]


def test_a_system_column_through_a_column_map(tmp_path: Path) -> None:
    rows = [{"sys": "Be kind.", "question": "q", "chosen": "a", "rejected": "b"}, PAIR | {"question": "q"}]
    columns = {"prompt": "question", "system": "sys"}
    first, second = SourceReader(Source(path=save(tmp_path, *rows), columns=columns), Comparison)
    assert first.row is not None
    assert first.row.prompt[0] == SYSTEM
    assert second.row is not None
    assert len(second.row.prompt) == 1


def test_a_system_column_and_a_system_turn() -> None:
    turns = [{"role": "system", "content": "Be kind. "}, U, A]
    (same,) = FORMATS["messages"].model_validate({"system": "Be kind.", "messages": turns}).rows()
    assert len(same.messages) == 3  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="different system texts"):
        FORMATS["messages"].model_validate({"system": "Be rude.", "messages": turns}).rows()


def test_tools_stay_on_the_first_turn_when_a_system_turn_comes_before_it() -> None:
    tools = [{"name": "f"}]
    for row in ({"messages": [{**U, "tools": tools}, A]}, {"messages": [U, A], "tools": tools}):
        (found,) = FORMATS["messages"].model_validate({**row, "system": "Be kind."}).rows()
        assert isinstance(found, Demonstration)
        assert [turn.tools for turn in found.messages] == [({"name": "f"},), None, None]


@pytest.mark.parametrize("more", [{"history": [["a", "b"]]}, {"input": "the text"}, {"context": "the text"}])
@pytest.mark.parametrize("row", [PAIR, ANSWERED, {"messages": [U, A]}, {"prompt": "q"}])
def test_a_part_of_the_question_that_the_format_does_not_read(
    tmp_path: Path, row: dict[str, Any], more: dict[str, Any]
) -> None:
    (name,) = more
    path = save(tmp_path, row, {**row, **more}, {**row, name: None}, {**row, name: ""})
    (fault,) = faults(path)
    assert fault.startswith(f"{name}: is no column of the format")
    assert f"columns: {{{name}: ''}}" in fault
    assert faults(path, columns={name: ""}) == []


@pytest.mark.parametrize("columns", [{"history": "h"}, {"input": "h"}, {"label": "h"}])
def test_a_mapped_column_that_the_format_does_not_read(tmp_path: Path, columns: dict[str, str]) -> None:
    path = save(tmp_path, {**ANSWERED, "h": "x"})
    for source in (Source(path=path, columns=columns, format="prompt_completion"), Source(path=path, columns=columns)):
        with pytest.raises((UsageError, DataError)) as caught:
            list(SourceReader(source, Demonstration))
        if source.format is not None or "label" not in columns:
            assert isinstance(caught.value, UsageError)
            assert "which format `prompt_completion` does not read" in str(caught.value)


def test_a_mapped_column_must_be_in_the_file(tmp_path: Path) -> None:
    rows = [{"instruction": "i", "input": "x", "output": "o", "system": "s"}] * 2
    path = save(tmp_path, *rows)
    for column in ("inputs", "sys_prompt"):
        source = Source(path=path, format="alpaca", columns={"input": column})
        with pytest.raises(DataError, match=f"no column `{column}`; the first rows have instruction, input") as caught:
            list(SourceReader(source))
        assert ("did you mean `input`?" in str(caught.value.hint)) is (column == "inputs")
    (tmp_path / "dataset_info.json").write_text(
        json.dumps(
            {
                "e": {
                    "file_name": "a.jsonl",
                    "columns": {"prompt": "instruction", "query": "inputs", "response": "output"},
                }
            }
        )
    )
    with pytest.raises(DataError, match="no column `inputs`"):
        list(SourceReader(Source(path=str(tmp_path), name="e")))


def test_a_mapped_column_may_be_missing_in_some_rows(tmp_path: Path) -> None:
    path = save(tmp_path, PAIR, {**PAIR, "m": 1.5})
    first, second = SourceReader(Source(path=path, columns={"margin": "m"}), Comparison)
    assert [found.row.margin for found in (first, second) if found.row] == [None, 1.5]


@pytest.mark.parametrize(
    "verdict",
    [
        {"label": False},
        {"label": "undesirable"},
        {"score": -1.0},
        {"score": "0.5"},
        {"label": "bad"},
        {"kto_tag": False},
        {"rating": 2},
        {"rating": 10**400},
        {"feedback": "Bad"},
        {"winner": "B"},
        {"rank": "1"},
    ],
)
@pytest.mark.parametrize(
    "row", [ANSWERED, {"messages": [U, A]}, {"instruction": "q", "output": "a"}, {"prompt": [U], "completion": [A]}]
)
def test_a_judged_answer_is_not_imitated_whatever_the_first_row_shows(
    tmp_path: Path, row: dict[str, Any], verdict: dict[str, Any]
) -> None:
    (name,) = verdict
    path = save(tmp_path, {**row, name: None}, *[{**row, **verdict}] * 3)
    found = faults(path, Demonstration)
    assert len(found) == 3
    assert all(fault.startswith(f"{name}: judges the answer") for fault in found)
    assert len(faults(save(tmp_path, {**row, **verdict}), Demonstration, columns={name: ""})) == 0
    with pytest.raises(DataError) as caught:
        faults(save(tmp_path, {**row, **verdict}), Demonstration)
    assert f"columns: {{{name}: ''}}" in str(caught.value.hint)


def test_a_label_beside_a_text_or_a_topic_in_score_is_no_verdict(tmp_path: Path) -> None:
    assert faults(save(tmp_path, {"text": "Once.", "label": 0}), Demonstration) == []
    assert faults(save(tmp_path, {**ANSWERED, "score": "good", "label": " "}), Demonstration) == []


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({**A, "reasoning_content": "2 + 2"}, "messages[1]: `reasoning_content` is not read"),
        ({**A, "thinking": "2 + 2"}, "messages[1]: `thinking` is not read"),
        ({**A, "content": "", "function_call": {"name": "f"}}, "messages[1]: `function_call` is not read"),
        ({**A, "weight": 0}, "messages[1]: the weight of a turn is not read"),
        ({**A, "content": " "}, "the assistant's answer is blank"),
    ],
)
def test_what_a_turn_says_beside_its_content(tmp_path: Path, turn: dict[str, Any], reason: str) -> None:
    unset = {**A, "reasoning_content": None, "function_call": None, "weight": 1}
    rows = ({"messages": [U, one, U, A]} for one in (unset, turn))
    (fault,) = faults(save(tmp_path, *rows, {"messages": CALLED}), Demonstration)
    assert fault.startswith(reason)


def test_a_prompt_beside_whole_dialogues_is_one_of_their_turns(tmp_path: Path) -> None:
    row = {"chosen": [U, A], "rejected": [U, {**A, "content": "No."}]}
    path = save(tmp_path, {**row, "prompt": "Hi?\n"}, {**row, "prompt": "Be a pirate."}, {**row, "prompt": ""})
    assert faults(path, Comparison) == ["prompt is none of the turns that chosen and rejected share"]


def test_the_format_is_the_one_that_most_of_the_first_rows_have(tmp_path: Path) -> None:
    for first in ({"id": 1}, {"prompt": "q", "completion": None}, {"messages": "x"}):
        path = save(tmp_path, first, *[ANSWERED] * 3)
        for kind in (Demonstration, Prompt, None):
            reader = SourceReader(Source(path=path), kind)
            found = list(reader)
            assert reader.format is FORMATS["prompt_completion"]
            assert [outcome.fault is None for outcome in found] == [False, True, True, True]
    late = save(tmp_path, *[{"id": i} for i in range(FIRST_ROWS)], ANSWERED)
    with pytest.raises(DataError, match="the format is not recognized"):
        list(SourceReader(Source(path=late)))


def test_formats_that_serve_count_before_those_that_most_rows_have(tmp_path: Path) -> None:
    reader = SourceReader(Source(path=save(tmp_path, ANSWERED, ANSWERED, PAIR)), Comparison)
    assert [outcome.fault is None for outcome in reader] == [False, False, True]
    assert detect_format([{"prompt": "q"}, ANSWERED], "x", [FORMATS["kto"]]) is FORMATS["prompt"]
    judged: SourceReader[Any] = SourceReader(Source(path=save(tmp_path, {**ANSWERED, "label": True})))
    assert [type(outcome.row) for outcome in judged] == [Judgement]


def test_broken_rows_before_the_first_good_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{\n" * (2 * FIRST_ROWS + 1) + json.dumps(ANSWERED) + "\n{\n")
    reader: SourceReader[Any] = SourceReader(Source(path=str(path)))
    places = [(outcome.record.place.split(":")[-1], outcome.fault is None) for outcome in reader]
    lines = 2 * FIRST_ROWS + 3
    assert places == [(str(line), line == lines - 1) for line in range(1, lines + 1)]


@pytest.mark.parametrize("column", ["image", "images", "audio", "audios", "video", "videos"])
@pytest.mark.parametrize(("name", "row"), [(name, row) for name, row, _ in CASES])
def test_media_make_a_bad_row_in_every_format(tmp_path: Path, name: str, row: dict[str, Any], column: str) -> None:
    path = save(
        tmp_path,
        *(row | {column: value} for value in (["1.jpg"], "1.jpg")),
        *(row | {column: value} for value in ([], None, [None], [""], "[]", {"bytes": None, "path": None})),
    )
    assert [fault.split(" (")[0] for fault in faults(path, format=name)] == [
        f"{column}: is not text, and nothing else is read"
    ] * 2
    assert faults(path, format=name, columns={column: ""}) == []


@pytest.mark.parametrize(
    "part",
    [
        *({"type": "image_url", "image_url": {"url": "a"}}, {"type": "image"}, {"type": "input_audio"}),
        *({"type": "image", "image": "a", "text": ""}, {"type": "reasoning", "text": "Two."}),
    ],
)
def test_a_part_that_is_not_text_makes_a_bad_row(tmp_path: Path, part: dict[str, Any]) -> None:
    told = {"type": "text", "text": "Who"}
    row = {"messages": [{"role": "user", "content": [told, part]}, A]}
    assert f"`{part['type']}`, and only text is read" in faults(save(tmp_path, {"messages": [U, A]}, row))[0]


def test_parts_of_text_are_one_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": "text", "text": "?"}]
    (outcome,) = SourceReader(Source(path=save(tmp_path, {"messages": [{"role": "user", "content": parts}, A]})))
    assert outcome.row == Demonstration(messages=(Message(**U), Message(**A)))


@pytest.mark.parametrize("media", [{"images": ["1.jpg"]}, {"audio": {"id": "a"}}])
def test_media_in_a_turn_make_a_bad_row(tmp_path: Path, media: dict[str, Any]) -> None:
    (name,) = media
    row = {"messages": [U | media, A]}
    expected = f"messages[0]: `{name}` is not text, and nothing else is read"
    assert faults(save(tmp_path, {"messages": [U | {name: None}, A]}, row)) == [expected]
    said = [{"from": "human", "value": "Hi?"} | media, {"from": "gpt", "value": "Yes."}]
    expected = expected.replace("messages", "conversations")
    assert faults(save(tmp_path, {"conversations": said})) == [expected]
    said = [{"who": turn.pop("from"), **turn} for turn in said]
    assert faults(save(tmp_path, {"conversations": said}), tags={"role_tag": "who"}) == [expected]


def test_a_placeholder_without_media_is_text(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "<image> in HTML?"}, A]}
    assert faults(save(tmp_path, row, row | {"image_path": ""})) == []


@pytest.mark.parametrize("column", ["image_path", "imageUrl", "Images", "video_file"])
def test_a_placeholder_beside_the_path_of_a_medium_makes_a_bad_row(tmp_path: Path, column: str) -> None:
    row = {"prompt": "<image>Who? <video>", "completion": "Two.", column: "1.jpg"}
    path = save(tmp_path, row, row | {"prompt": "Who?"})
    (fault,) = faults(path)
    assert fault.startswith(f"{column}: stands for <{'video' if 'video' in column else 'image'}> in the text")
    assert faults(path, columns={column: ""}) == []
