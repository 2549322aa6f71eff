"""Data sets of the hub, and directories laid out like one. Code that a data set brings is never run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data.sources.files import ending, read_records
from pipelines.data.sources.record import Record
from pipelines.data.sources.tables import object_rows
from pipelines.errors import DataError, HubError, RlhfError, UsageError, first_line

_ABOUT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that `datasets` writes beside the data."""


@dataclass(frozen=True)
class DatasetPart:
    """Part of a data set to read: hub id or directory, configuration, split, revision, and a folder inside it."""

    path: str
    name: str | None = None
    split: str = "train"
    revision: str | None = None
    folder: str | None = None


def open_hub(part: DatasetPart) -> tuple[Iterator[Record], str | None]:
    """The rows of a hub data set, streamed, and the commit they are of.

    Raises:
        HubError: the hub cannot be reached, or it has no such data set.
        UsageError: there is no such configuration or split.
    """
    builder = _builder(part)
    commit = builder.hash if builder.hash and len(builder.hash) == 40 else None
    return _streamed(builder, part), commit


def open_directory(part: DatasetPart) -> Iterator[Record]:
    """The rows of a local directory, file by file in the order that `datasets` gives them.

    The files are read by our own readers, which change no types and know the place of every row; only a directory with
    other kinds of files goes through `datasets`.

    Raises:
        DataError: it holds no data files, or one of them is broken.
        UsageError: there is no such configuration or split, or a data file would be left out.
    """
    builder = _builder(part)
    splits = {str(split): files for split, files in (builder.config.data_files or {}).items()}
    files = [Path(file) for file in splits.get(part.split, [])]
    if splits and not files:
        raise UsageError(
            f"there is no split `{part.split}`", where=part.path, hint=f"splits: {', '.join(sorted(splits))}"
        )
    if not _names_its_files(Path(part.path)):
        taken = [Path(file) for files in splits.values() for file in files]
        _refuse_left_out(Path(part.path, part.folder or ""), taken)
    if files and all(ending(file) for file in files):
        return itertools.chain.from_iterable(read_records(file) for file in files)
    return _streamed(builder, part)


def _refuse_left_out(folder: Path, taken: list[Path]) -> None:
    """Raise where `datasets`, which goes by the names of files and takes one kind of them, passes a data file over."""
    known = {path.resolve() for path in taken}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith((".", "_")) for part in inside.parts)
        if hidden or path.name in _ABOUT_DATA or not ending(path) or not path.is_file() or path.resolve() in known:
            continue
        names = [file.name for file in taken[:3]] + ["..."] * (len(taken) > 3)
        raise UsageError(
            f"`{inside}` would be left out: by the names and kinds of the files, the data are {', '.join(names)}",
            where=str(folder),
            hint="name the files one by one as sources, or move what is no data out of the directory",
        )


def _names_its_files(folder: Path) -> bool:
    """Whether the card of the directory says which files are the data."""
    from huggingface_hub import DatasetCard

    card = folder / "README.md"
    return card.is_file() and bool(DatasetCard.load(card, ignore_metadata_errors=True).data.to_dict().get("configs"))


def _builder(part: DatasetPart) -> Any:
    from datasets import load_dataset_builder

    try:
        return load_dataset_builder(part.path, part.name, data_dir=part.folder, revision=part.revision)
    except Exception as error:  # A network, a cache and a dozen file formats stand behind this one call.
        raise _explain(error, part) from error


def _streamed(builder: Any, part: DatasetPart) -> Iterator[Record]:
    try:
        rows = builder.as_streaming_dataset(split=part.split)
        yield from object_rows(iter(rows), f"{part.path}/{part.split}")
    except Exception as error:  # As above: what comes through here is fetched while it is read.
        raise _explain(error, part) from error


def _explain(error: Exception, part: DatasetPart) -> RlhfError:
    """Turn an exception of `datasets` into one of our errors."""
    if isinstance(error, RlhfError):
        return error
    where = f"{part.path}@{part.revision}" if part.revision else part.path
    if "scripts are no longer supported" in str(error):
        return UsageError("the data set is a program, which is never run", where=where, hint="use its data files")
    if isinstance(error, ValueError):  # An unknown configuration or split.
        return UsageError(first_line(error), where=where, hint="`name` is the configuration, `split` the part of it")
    if Path(part.path).is_dir() and isinstance(error, FileNotFoundError):
        return DataError("the directory holds no data files", where=where)
    if Path(part.path).is_dir():
        return DataError(f"the directory cannot be read as a data set: {first_line(error)}", where=where)
    return HubError(
        f"the data set could not be had: {first_line(error)}",
        where=where,
        hint="check the name and the network (`hf auth login` where it is private or gated); "
        "a local file or directory is named by its path",
    )
