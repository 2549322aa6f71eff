"""Training rows in other formats: our own reader gives them back, but for what is counted as lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message
from pipelines.errors import DataError, UsageError
from pipelines.labels.exchange.rows_out import OUT_FORMATS, OutFormat
from tests.examples import examples

QUIET = settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda text: bool(text.strip())
)
TOOLS = ({"type": "function", "function": {"name": "add"}},)
CALLS = ({"type": "function", "function": {"name": "add", "arguments": {"a": 1}}},)


def turn(role: Any, content: str, **more: Any) -> Message:
    return Message(role=role, content=content, **more)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[Message, ...]:
    turns = [turn("system", draw(TEXT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns.append(turn("user", draw(TEXT)))
        if draw(st.integers(0, 5)) == 0:
            turns += [turn("assistant", draw(st.just("") | TEXT), tool_calls=CALLS), turn("tool", draw(TEXT))]
        turns.append(turn("assistant", draw(TEXT)))
    turns.append(turn("user", draw(TEXT)))
    if draw(st.integers(0, 5)) == 0:
        turns[0] = turn(turns[0].role, turns[0].content, tools=TOOLS)
    return tuple(turns)


WHO = {"annotator": st.none() | TEXT, "source": st.none() | TEXT}
MARGINS = st.none() | st.floats(-9, 9)
ROWS: dict[type[CanonicalRow], st.SearchStrategy[Any]] = {
    Comparison: st.builds(Comparison, prompt=prompts(), chosen=TEXT, rejected=TEXT, margin=MARGINS, **WHO),
    Judgement: st.builds(
        Judgement, prompt=prompts(), completion=TEXT, label=st.booleans() | st.sampled_from([0.0, 1.0, 0.3]), **WHO
    ),
    Demonstration: st.builds(
        lambda turns, last: Demonstration(messages=(*turns, turn("assistant", last))), prompts(), TEXT
    ),
}


def read_back(path: Path, made: OutFormat, kind: type[CanonicalRow]) -> list[CanonicalRow]:
    source = Source(path=str(path.with_name("dataset_info.json")), name=path.stem) if made.formatting else None
    reader = SourceReader(source or Source(path=str(path)), kind)
    outcomes = list(reader)
    assert [str(outcome.fault) for outcome in outcomes if outcome.fault] == []
    return [row for outcome in outcomes for row in outcome.rows]


def without(row: CanonicalRow, *parts: str) -> CanonicalRow:
    """The row as a format has it that holds none of these parts."""
    changed: dict[str, Any] = {name: None for name in parts if name in type(row).model_fields}
    name = "messages" if isinstance(row, Demonstration) else "prompt"
    turns = list(getattr(row, name))
    if "tools" in parts:
        turns[0] = turns[0].model_copy(update={"tools": None})
    if "system turn" in parts and turns[0].role == "system":
        turns = turns[1:]
    if "blanks around a turn" in parts:
        turns = [one.model_copy(update={"content": one.content.strip()}) for one in turns]
        changed |= {column: getattr(row, column).strip() for column in ("chosen", "rejected")}
    return row.model_copy(update={name: tuple(turns), **changed})


CANNOT = {
    "rlhf": (),
    "trl": ("annotator", "source"),
    "trl-implicit": ("annotator", "source"),
    "kto": ("annotator", "source"),
    "llama-factory-alpaca": ("annotator", "source", "margin", "tools"),
    "llama-factory-sharegpt": ("annotator", "source", "margin"),
    "hh": ("annotator", "source", "margin", "tools", "system turn", "blanks around a turn"),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, one in OUT_FORMATS.items() for kind in one.kinds])
@QUIET
@given(data=st.data())
def test_what_the_format_holds_comes_back(
    name: str, kind: type[CanonicalRow], data: st.DataObject, tmp_path: Path
) -> None:
    made = OUT_FORMATS[name]
    rows = data.draw(st.lists(ROWS[kind], min_size=1, max_size=4))
    path = tmp_path / data.draw(st.sampled_from(["rows.jsonl", "rows.json"]))
    path.unlink(missing_ok=True)
    try:
        lost = made.write(path, rows)
    except DataError as error:
        if "rows left out" not in error.message or path.exists():
            raise
        return
    parts = {part: count for part, count in lost.items() if not part.startswith("rows left out")}
    left_out = sum(lost.values()) - sum(parts.values())
    back = read_back(path, made, kind)
    expected = [without(row, *CANNOT[name]) for row in rows]
    assert len(back) == len(rows) - left_out
    assert not left_out or name not in ("rlhf", "trl", "trl-implicit")
    remaining = iter(expected)
    assert all(row in remaining for row in back)  # the same rows in their order, but for those left out
    assert parts.keys() <= set(CANNOT[name])
    if not left_out:
        changed = [row for row, bare in zip(rows, expected, strict=True) if row != bare]
        assert bool(changed) == bool(parts)
        for part in ("margin", "annotator", "source"):
            held = sum(getattr(row, part, None) is not None for row in rows)
            assert lost.get(part, 0) == (held if part in CANNOT[name] else 0)


def comparison(*prompt: Message, **more: Any) -> Comparison:
    return Comparison(prompt=prompt or (turn("user", "Hi?"),), chosen="Hello.", rejected="Go.", **more)


def line(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text().splitlines()[0])
    return found


def test_layouts_letter_by_letter(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [comparison(turn("system", "Be brief."), turn("user", "A?"), turn("assistant", "B."), turn("user", "Hi?"))]
    said = [{"role": "assistant", "content": "Hello."}], [{"role": "assistant", "content": "Go."}]
    assert OUT_FORMATS["trl"].write(path, [rows[0].model_copy(update={"margin": 0.5})]) == {}
    assert line(path)["prompt"][-1] == {"role": "user", "content": "Hi?"}
    assert (line(path)["chosen"], line(path)["rejected"], line(path)["margin"]) == (*said, 0.5)
    OUT_FORMATS["trl-implicit"].write(path, rows)
    assert [one["role"] for one in line(path)["chosen"]] == ["system", "user", "assistant", "user", "assistant"]
    OUT_FORMATS["llama-factory-alpaca"].write(path, rows)
    assert line(path) == {
        "instruction": "Hi?",
        "input": "",
        "system": "Be brief.",
        "history": [["A?", "B."]],
        "chosen": "Hello.",
        "rejected": "Go.",
    }
    OUT_FORMATS["llama-factory-sharegpt"].write(path, rows)
    assert line(path) == {
        "conversations": [
            {"from": "human", "value": "A?"},
            {"from": "gpt", "value": "B."},
            {"from": "human", "value": "Hi?"},
        ],
        "system": "Be brief.",
        "tools": "",
        "chosen": {"from": "gpt", "value": "Hello."},
        "rejected": {"from": "gpt", "value": "Go."},
    }
    assert OUT_FORMATS["hh"].write(path, rows) == {"system turn": 1}
    assert line(path)["chosen"] == "\n\nHuman: A?\n\nAssistant: B.\n\nHuman: Hi?\n\nAssistant: Hello."
    blank = comparison(turn("user", " Hi?\n"), turn("assistant", "Yes."), turn("user", "So?"))
    assert OUT_FORMATS["hh"].write(path, [blank]) == {"blanks around a turn": 1}
    assert line(path)["rejected"] == "\n\nHuman: Hi?\n\nAssistant: Yes.\n\nHuman: So?\n\nAssistant: Go."
    judged = Judgement(prompt=rows[0].prompt[-1:], completion="Hello.", label=1.0)
    OUT_FORMATS["kto"].write(path, [judged])
    assert line(path) == {"prompt": [{"role": "user", "content": "Hi?"}], "completion": said[0], "label": True}


def test_the_page_names_every_format() -> None:
    page = (
        (Path(__file__).parents[3] / "docs" / "exchange.md")
        .read_text(encoding="utf-8")
        .split("## Training rows out")[1]
    )
    told = {
        cells[1].strip(" `"): cells[3] for cells in (line.split("|") for line in page.splitlines()) if len(cells) > 3
    }
    assert sorted(name for name in told if name in OUT_FORMATS) == sorted(OUT_FORMATS)
    for name, parts in CANNOT.items():
        assert [part for part in parts if part not in told[name]] == []


def test_the_register_keeps_other_entries(tmp_path: Path) -> None:
    register = tmp_path / "dataset_info.json"
    other = {"file_name": "other.json", "columns": {"prompt": "a"}}
    register.write_text(json.dumps({"other": other, "pairs": {"file_name": "old.json"}}))
    OUT_FORMATS["llama-factory-alpaca"].write(tmp_path / "pairs.jsonl", [comparison()])
    entries = json.loads(register.read_text())
    assert list(entries) == ["other", "pairs"]
    assert entries["other"] == other
    assert entries["pairs"]["ranking"] is True
    assert entries["pairs"]["file_name"] == "pairs.jsonl"
    judged = Judgement(prompt=(turn("user", "Hi?"),), completion="Hello.", label=False)
    OUT_FORMATS["llama-factory-sharegpt"].write(tmp_path / "judged.json", [judged])
    assert json.loads(register.read_text())["judged"]["columns"]["kto_tag"] == "label"


@pytest.mark.parametrize("text", ["[1]", "{", '"x"'])
def test_a_damaged_register_stops_before_anything_is_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(DataError, match="register"):
        OUT_FORMATS["llama-factory-alpaca"].write(tmp_path / "pairs.jsonl", [comparison()])
    assert not (tmp_path / "pairs.jsonl").exists()
    assert (tmp_path / "dataset_info.json").read_text() == text


def test_what_has_no_place_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    two = comparison(turn("user", "A?"), turn("user", "B?"), annotator="ann")
    marked = comparison(turn("user", "x\n\nHuman: y"))
    assert OUT_FORMATS["llama-factory-alpaca"].write(path, [comparison(), two]) == {
        "rows left out: its turns are not question and answer in alternation": 1
    }
    assert OUT_FORMATS["hh"].write(path, [comparison(), marked]) == {
        "rows left out: a text holds the mark of a speaker": 1
    }
    scale = [Judgement(prompt=two.prompt, completion="x", label=label) for label in (0.4, True)]
    assert OUT_FORMATS["kto"].write(path, scale) == {"rows left out: its label is neither 0 nor 1": 1}


def test_what_cannot_be_written_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    judged = Judgement(prompt=(turn("user", "Hi?"),), completion="Hello.", label=0.4)
    with pytest.raises(UsageError, match="holds judgements, and the rows are comparisons"):
        OUT_FORMATS["kto"].write(path, [comparison()])
    with pytest.raises(DataError, match="of several kinds"):
        OUT_FORMATS["rlhf"].write(path, [comparison(), judged])
    texts = [Demonstration(text="once"), Demonstration(messages=(turn("user", "a"), turn("assistant", "b")))]
    with pytest.raises(DataError, match="of several kinds: demonstrations and texts"):
        OUT_FORMATS["trl"].write(path, texts)
    with pytest.raises(DataError, match="1 rows left out: it is a text as it is"):
        OUT_FORMATS["llama-factory-sharegpt"].write(path, texts[:1])
    with pytest.raises(DataError, match="nothing to write: 1 rows left out"):
        OUT_FORMATS["kto"].write(path, [judged])
    with pytest.raises(DataError, match="there are no rows"):
        OUT_FORMATS["trl"].write(path, [])
    with pytest.raises(UsageError, match=r"not as `\.csv`"):
        OUT_FORMATS["trl"].write(tmp_path / "rows.csv", [comparison()])
    assert path.read_text() == "old"
