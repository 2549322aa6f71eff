"""Entries of LLaMA-Factory's dataset_info.json: the real files against a second reading, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Demonstration, Judgement, Message, Prompt
from pipelines.data.sources import find_source, source_files
from pipelines.errors import DataError, UsageError

Texts = list[tuple[str, str]]


def texts(turns: tuple[Message, ...]) -> Texts:
    return [(turn.role, turn.content) for turn in turns]


def rows_of(path: Path, name: str, kind: type[Any] | None = None, **more: Any) -> list[Any]:
    outcomes = list(SourceReader(Source(path=str(path), name=name, **more), kind))
    assert [str(outcome.fault) for outcome in outcomes if outcome.fault] == []
    return [row for outcome in outcomes for row in outcome.rows]


def test_alpaca_en_demo(shared_data: Path) -> None:
    folder = shared_data / "llamafactory"
    expected = []
    for row in json.loads((folder / "alpaca_en_demo.json").read_text()):
        question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        expected.append([("user", question), ("assistant", row["output"])])
    found = rows_of(folder, "alpaca_en_demo")
    assert len(found) == 999
    assert all(isinstance(row, Demonstration) for row in found)
    assert [texts(row.messages) for row in found] == expected


def test_dpo_en_demo(shared_data: Path) -> None:
    folder = shared_data / "llamafactory"
    speakers = {"human": "user", "gpt": "assistant", "system": "system"}
    expected = [
        (
            [(speakers[turn["from"]], turn["value"]) for turn in row["conversations"]],
            row["chosen"]["value"],
            row["rejected"]["value"],
        )
        for row in json.loads((folder / "dpo_en_demo.json").read_text())
    ]
    found = rows_of(folder / "dataset_info.json", "dpo_en_demo", Comparison)
    assert len(found) == 300
    assert [(texts(row.prompt), row.chosen, row.rejected) for row in found] == expected


def test_kto_en_demo(shared_data: Path) -> None:
    folder = shared_data / "llamafactory"
    expected = [
        ([(turn["role"], turn["content"]) for turn in row["messages"]], row["label"])
        for row in json.loads((folder / "kto_en_demo.json").read_text())
    ]
    found = rows_of(folder, "kto_en_demo")
    assert all(isinstance(row, Judgement) for row in found)
    assert [([*texts(row.prompt), ("assistant", row.completion)], row.label) for row in found] == expected
    assert Counter(row.label for row in found) == {True: 150, False: 150}


def test_every_real_entry_can_be_read_or_says_why_not(shared_data: Path) -> None:
    path = shared_data / "llamafactory" / "dataset_info.json"
    refused, formats = Counter[str](), Counter[str]()
    entries = json.loads(path.read_text())
    for name in entries:
        try:
            reader = SourceReader(Source(path=str(path), name=name))
        except UsageError as error:
            refused[error.message] += 1
        else:
            assert reader.format is not None
            formats[reader.format.name] += 1
    assert refused == {
        "the entry has images; only text can be read": 10,
        "the entry has audios; only text can be read": 1,
        "the entry has videos; only text can be read": 2,
        "the entry names neither file_name nor hf_hub_url, only ms_hub_url": 1,
    }
    assert sum(formats.values()) == len(entries) - 14 == 90
    # 38 entries are dialogues, 12 of them with media; 12 + 3 + 1 + 1 name a column of text and nothing else.
    assert sum(count for name, count in formats.items() if name.startswith("sharegpt")) == 26
    assert formats["text"] == 17


def register(tmp_path: Path, rows: list[dict[str, Any]] | str, **entry: Any) -> Path:
    """A register whose entry `mine` is `entry`, beside a data file with these rows."""
    name = "rows.txt" if isinstance(rows, str) else "rows.json"
    (tmp_path / name).write_text(rows if isinstance(rows, str) else json.dumps(rows))
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": name, **entry}}))
    return tmp_path


OPENAI = {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "it", "system_tag": "sys"}


def test_tags_of_another_dialect(tmp_path: Path) -> None:
    turns = [{"who": "sys", "what": "s"}, {"who": "me", "what": "q"}]
    yes, no = {"who": "it", "what": "y"}, {"who": "it", "what": "n"}
    row = {"talk": turns, "good": yes, "poor": no, "system": "not mapped, not read"}
    columns = {"messages": "talk", "chosen": "good", "rejected": "poor"}
    path = register(tmp_path, [row], formatting="sharegpt", ranking=True, columns=columns, tags=OPENAI)
    (found,) = rows_of(path, "mine", Comparison)
    assert texts(found.prompt) == [("system", "s"), ("user", "q")]
    assert (found.chosen, found.rejected) == ("y", "n")


@pytest.mark.parametrize(
    ("turns", "fault"),
    [
        ([{"who": "human", "what": "q"}], "conversations[0].who: must be one of 'me', 'it', 'observation', "),
        ([{"what": "q"}], "conversations[0].who: missing (column `talk` of the file)"),
        ([{"who": "me", "what": 5}], "conversations[0].what: must be text, not a number (column `talk` of the file)"),
        ([{"who": 5, "what": "q"}], "conversations[0].who: must be "),
        (["q"], "conversations[0]: must be an object, not text (column `talk` of the file)"),
        (None, "conversations: must be a list, not null (column `talk` of the file)"),
    ],
)
def test_a_fault_in_a_turn_names_it_as_the_file_does(tmp_path: Path, turns: Any, fault: str) -> None:
    path = register(tmp_path, [{"talk": turns}], formatting="openai", columns={"messages": "talk"}, tags=OPENAI)
    (outcome,) = SourceReader(Source(path=str(path), name="mine"))
    assert outcome.row is None
    assert str(outcome.fault).startswith(fault)


ALPACA = {"instruction": "i", "input": "n", "output": "o", "system": "s", "chosen": "c", "rejected": "r"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, [("user", "i\nn"), ("assistant", "o")]),
        ({"columns": {"prompt": "instruction", "response": "output"}}, [("user", "i"), ("assistant", "o")]),
        (
            {"columns": {"prompt": "input", "response": "chosen", "system": "system"}},
            [("system", "s"), ("user", "n"), ("assistant", "c")],
        ),
    ],
)
def test_columns_that_an_entry_does_not_name_are_not_read(
    tmp_path: Path, entry: dict[str, Any], expected: Texts
) -> None:
    (found,) = rows_of(register(tmp_path, [ALPACA], **entry), "mine")
    assert texts(found.messages) == expected


def test_ranking_and_labels_in_alpaca_layout(tmp_path: Path) -> None:
    columns = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
    (pair,) = rows_of(register(tmp_path, [ALPACA], ranking=True, columns=columns), "mine", Comparison)
    assert (texts(pair.prompt), pair.chosen, pair.rejected) == ([("user", "i")], "c", "r")
    columns = {"prompt": "instruction", "response": "output", "kto_tag": "good"}
    (judged,) = rows_of(register(tmp_path, [{**ALPACA, "good": False}], columns=columns), "mine")
    assert (texts(judged.prompt), judged.completion, judged.label) == ([("user", "i")], "o", False)


def test_a_prompt_column_alone_is_plain_text_or_a_prompt(tmp_path: Path) -> None:
    for path in (
        register(tmp_path, "one\ntwo\n", columns={"prompt": "text"}),
        register(tmp_path, [{"text": "one", "output": "x"}, {"text": "two"}], columns={"prompt": "text"}),
    ):
        assert [row.text for row in rows_of(path, "mine", Demonstration)] == ["one", "two"]
        assert [texts(row.prompt) for row in rows_of(path, "mine", Prompt)] == [[("user", "one")], [("user", "two")]]


def test_num_samples_and_the_sources_own_options(tmp_path: Path) -> None:
    path = register(tmp_path, [{**ALPACA, "instruction": str(i)} for i in range(50)], num_samples=20)
    assert len(rows_of(path, "mine")) == 20
    assert len(rows_of(path, "mine", sample=5)) == 5
    with pytest.raises(UsageError, match="says the columns itself"):
        find_source(Source(path=str(path), name="mine", columns={"prompt": "q"}))


def test_a_hub_entry_says_what_to_fetch(tmp_path: Path) -> None:
    entry = {"hf_hub_url": "org/set", "ms_hub_url": "x/y", "subset": "en", "split": "test", "folder": "f"}
    path = register(tmp_path, [], **entry)
    found = find_source(Source(path=str(path), name="mine", revision="abc"))
    source = found.source
    assert (source.path, source.name, source.split, source.revision) == ("org/set", "en", "test", "abc")
    assert (found.path, found.folder) == (None, "f")
    assert source_files(Source(path=str(path), name="mine")) == (tmp_path / "dataset_info.json",)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"columns": {"messages": "m", "images": "i"}}, "has images; only text"),
        ({"file_name": None, "ms_hub_url": "a/b"}, "neither file_name nor hf_hub_url, only ms_hub_url"),
        ({"formatting": "chatml"}, "formatting: must be 'alpaca', 'sharegpt' or 'openai'"),
        ({"ranking": "yes"}, "ranking: must be true or false"),
        ({"tags": {"rol_tag": "x"}}, "the entry is not valid: tags.rol_tag"),
    ],
)
def test_an_entry_that_cannot_serve(tmp_path: Path, entry: dict[str, Any], reason: str) -> None:
    path = register(tmp_path, [ALPACA], **entry)
    with pytest.raises(UsageError) as caught:
        find_source(Source(path=str(path), name="mine"))
    assert reason in caught.value.message
    assert caught.value.where == f"{path / 'dataset_info.json'}: mine"


def test_the_name_of_the_entry(tmp_path: Path) -> None:
    path = register(tmp_path, [ALPACA])
    for name, message, hint in (
        ("mime", "there is no entry `mime`", "did you mean `mine`?"),
        (None, "which entry", "entries: mine"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            find_source(Source(path=str(path), name=name))
        assert caught.value.hint == hint
    (tmp_path / "dataset_info.json").write_text("[1]")
    with pytest.raises(UsageError, match="an object of objects"):
        find_source(Source(path=str(path), name="mine"))
    with pytest.raises(DataError, match="no such data file"):
        list(SourceReader(Source(path=str(tmp_path / "none" / "dataset_info.json"), name="mine")))


def test_the_files_that_an_entry_depends_on(tmp_path: Path) -> None:
    path = register(tmp_path, [ALPACA])
    expected = (path / "dataset_info.json", path / "rows.json")
    assert source_files(Source(path=str(path), name="mine")) == expected


def test_an_address_is_not_taken_for_a_file() -> None:
    with pytest.raises(UsageError, match="addresses are not read"):
        find_source(Source(path="https://host/rows.jsonl"))
