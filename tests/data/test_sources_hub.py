"""Directories and hub data sets. The hub itself is a stand-in: tests run offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import Prompt
from pipelines.data.sources import source_files
from pipelines.errors import DataError, HubError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def prompts_of(source: Source) -> list[tuple[str, str]]:
    """Place and text of every row."""
    return [(o.record.place, o.row.prompt[0].content) for o in SourceReader(source, Prompt) if o.row is not None]


def lines(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))


def test_a_directory_with_splits(tmp_path: Path) -> None:
    lines(tmp_path / "data" / "train-0.jsonl", "2020-01-01", "b")
    lines(tmp_path / "data" / "train-1.jsonl", "c")
    lines(tmp_path / "data" / "test-0.jsonl", "d")
    data = tmp_path / "data"
    # A text that looks like a date stays text, which it does not where `datasets` reads the file.
    assert prompts_of(Source(path=str(tmp_path))) == [
        (f"{data}/train-0.jsonl:1", "2020-01-01"),
        (f"{data}/train-0.jsonl:2", "b"),
        (f"{data}/train-1.jsonl:1", "c"),
    ]
    assert [text for _, text in prompts_of(Source(path=str(tmp_path), split="test"))] == ["d"]
    with pytest.raises(UsageError, match="no split `nope`") as caught:
        prompts_of(Source(path=str(tmp_path), split="nope"))
    assert caught.value.hint == "splits: test, train"
    assert [path.name for path in source_files(Source(path=str(tmp_path)))] == [
        "test-0.jsonl",
        "train-0.jsonl",
        "train-1.jsonl",
    ]


def test_a_directory_with_configurations(tmp_path: Path) -> None:
    lines(tmp_path / "one.jsonl", "a")
    lines(tmp_path / "two.jsonl", "b")
    head = "---\nconfigs:\n- config_name: x\n  data_files: one.jsonl\n- config_name: y\n  data_files: two.jsonl\n---\n"
    (tmp_path / "README.md").write_text(head)
    assert [text for _, text in prompts_of(Source(path=str(tmp_path), name="y"))] == ["b"]
    with pytest.raises(UsageError, match="z"):
        prompts_of(Source(path=str(tmp_path), name="z"))


@pytest.mark.parametrize(
    ("others", "left_out"),
    [
        (("train.jsonl", "extra.jsonl"), "extra.jsonl"),
        (("a.jsonl", "b.csv"), "b.csv"),
        (("a.jsonl", "more/b.txt"), "more/b.txt"),
        (("a.jsonl", "b.jsonl.gz", "c.tsv"), "c.tsv"),
    ],
)
def test_a_directory_loses_no_file_in_silence(tmp_path: Path, others: tuple[str, ...], left_out: str) -> None:
    for name in others:
        lines(tmp_path / name, "x")
    with pytest.raises(UsageError, match=f"`{left_out}` would be left out") as caught:
        prompts_of(Source(path=str(tmp_path)))
    assert "as sources" in str(caught.value.hint)


def test_what_is_no_data_may_lie_in_a_directory(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", "x")
    for name in (".cache/x.json", "notes.md", "_old/b.csv"):
        lines(tmp_path / name, "y")
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert [text for _, text in prompts_of(Source(path=str(tmp_path)))] == ["x"]


def test_a_directory_whose_card_names_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(tmp_path / "one.jsonl", "a")
    lines(tmp_path / "figures.jsonl", "b")
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: one.jsonl\n---\n")
    assert [text for _, text in prompts_of(Source(path=str(tmp_path)))] == ["a"]
    (tmp_path / "README.md").write_text("# About\n")
    monkeypatch.chdir(tmp_path.parent)
    assert sorted(text for _, text in prompts_of(Source(path=tmp_path.name))) == ["a", "b"]


def test_a_directory_without_data(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(DataError, match="no data files") as caught:
        prompts_of(Source(path=str(tmp_path)))
    assert caught.value.where == str(tmp_path)


class Builder:
    """What `load_dataset_builder` gives, as far as it is used."""

    hash = COMMIT

    def __init__(self, rows: list[dict[str, Any]], fails: Exception | None = None) -> None:
        self.rows, self.fails = rows, fails
        self.split = ""

    def as_streaming_dataset(self, split: str) -> Any:
        self.split = split
        yield from self.rows
        if self.fails is not None:
            raise self.fails


def test_a_hub_data_set_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    builder = Builder([{"q": "a", "n": None}, {"q": "b", "n": 1}], RuntimeError("must not be read so far"))

    def load(*args: Any, **kwargs: Any) -> Builder:
        asked.append((args, kwargs))
        return builder

    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    source = Source(path="org/set", name="conf", split="test", revision="v1", columns={"prompt": "q"}, limit=2)
    reader = SourceReader(source, Prompt)
    found = [(o.record.place, o.row.prompt[0].content) for o in reader if o.row is not None]
    assert found == [("org/set/test:row 1", "a"), ("org/set/test:row 2", "b")]
    assert asked == [(("org/set", "conf"), {"data_dir": None, "revision": "v1"})]
    assert (builder.split, reader.commit, reader.path) == ("test", COMMIT, None)
    assert source_files(source) == ()


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (ConnectionError("Couldn't reach 'org/set'\nmore"), HubError, "could not be had: Couldn't reach 'org/set'"),
        (datasets.exceptions.DatasetNotFoundError("doesn't exist"), HubError, "doesn't exist"),
        (ValueError("BuilderConfig 'x' not found."), UsageError, "BuilderConfig 'x' not found."),
        (RuntimeError("Dataset scripts are no longer supported, but found s.py"), UsageError, "never run"),
    ],
)
def test_what_the_hub_refuses(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], message: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    for load in (fail, lambda *args, **kwargs: Builder([{"prompt": "a"}], error)):
        monkeypatch.setattr(datasets, "load_dataset_builder", load)
        with pytest.raises(raised) as caught:
            prompts_of(Source(path="org/set", revision="v1"))
        assert message in str(caught.value)
        assert getattr(caught.value, "where", None) == "org/set@v1"


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError) as caught:
        prompts_of(Source(path="org/no-such-set"))
    assert caught.value.exit_code == 10


@pytest.mark.parametrize("path", ["org/set.jsonl", "data/a.csv.gz", "./org/set", "a/b/c", "set"])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(path: str) -> None:
    with pytest.raises(DataError, match="no such data file"):
        prompts_of(Source(path=path))


def test_an_empty_path_is_not_the_directory_here() -> None:
    with pytest.raises(UsageError, match="is empty"):
        prompts_of(Source(path=" "))


def test_options_of_a_data_set_are_refused_for_a_file(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", "x")
    for option, value in (("name", "x"), ("revision", "v1"), ("split", "test")):
        with pytest.raises(UsageError, match=f"a data file has no {'split' if option == 'split' else f'`{option}`'}"):
            prompts_of(Source.model_validate({"path": str(tmp_path / "a.jsonl"), option: value}))
