"""Data sources: a data file, a directory, a hub data set, or an entry of LLaMA-Factory's register."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.data_section import Source
from pipelines.data.sources.files import ending, read_records
from pipelines.data.sources.hub import DatasetPart, open_directory, open_hub
from pipelines.data.sources.record import Record
from pipelines.data.sources.registry import FILE_NAME, read_entry
from pipelines.errors import UsageError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ResolvedSource:
    """A source of the configuration, with what the register, if there is one, says worked in.

    The path is None for a hub data set, of which `folder` may be the part that is meant.
    """

    source: Source
    path: Path | None
    registry: Path | None = None
    folder: str | None = None

    def open(self) -> tuple[Iterator[Record], str | None]:
        """Its records, and the commit of the hub repository where there is one.

        Raises:
            DataError: a file is not there, or cannot be read.
            HubError: the hub cannot be reached, or it has no such data set.
            UsageError: there is no such configuration or split.
        """
        source = self.source
        part = DatasetPart(str(self.path or source.path), source.name, source.split, source.revision, self.folder)
        if self.path is None:
            return open_hub(part)
        if self.path.is_dir():
            return open_directory(part), None
        if self.path.exists():
            self._refuse_parts()
        return read_records(self.path), None

    def _refuse_parts(self) -> None:
        for option in ("name", "revision"):
            if getattr(self.source, option) is not None:
                raise UsageError(f"a data file has no `{option}`", where=str(self.path))
        if self.source.split != "train":
            raise UsageError(f"a data file has no split `{self.source.split}`", where=str(self.path))


def find_source(source: Source) -> ResolvedSource:
    """Resolve the path of a source; no data is read yet.

    Raises:
        UsageError: the register is broken, has no such entry, or the entry cannot serve.
    """
    if not source.path.strip():
        raise UsageError("the path of a source is empty", where="data")
    if "://" in source.path:
        raise UsageError(
            "addresses are not read",
            where=source.path,
            hint="download the file and name it; a data set of the hub is named owner/name",
        )
    path = Path(source.path).expanduser()
    registry = _registry_of(path)
    if registry is None:
        return ResolvedSource(source, path if path.exists() or not _is_hub_id(source.path) else None)
    for option in ("columns", "tags"):
        if getattr(source, option):
            raise UsageError(f"the entry of the register says the {option} itself", where=f"{registry}: {source.name}")
    entry = read_entry(registry, source.name)
    update = {
        "path": entry.hf_hub_url or str(registry.parent / str(entry.file_name)),
        "name": entry.subset,
        "split": source.split if source.split != "train" else entry.split,
        "revision": source.revision or entry.revision,
        "format": source.format or entry.format,
        "columns": entry.column_map(),
        "tags": entry.tags,
        "sample": source.sample or entry.num_samples,
    }
    local = None if entry.hf_hub_url else Path(str(update["path"]))
    return ResolvedSource(source.model_copy(update=update), local, registry, entry.folder)


def source_files(source: Source) -> tuple[Path, ...]:
    """The local files that the rows of a source depend on; none for a hub data set, which its revision stands for.

    Raises:
        UsageError: as for `find_source`.
    """
    resolved = find_source(source)
    files = () if resolved.registry is None else (resolved.registry,)
    if resolved.path is None:
        return files
    if resolved.path.is_dir():
        return files + tuple(sorted(path for path in resolved.path.rglob("*") if path.is_file()))
    return (*files, resolved.path)


def _registry_of(path: Path) -> Path | None:
    """The register that the path names: the file itself, or a directory that holds one."""
    if path.name == FILE_NAME:
        return path if path.is_file() else None
    inside = path / FILE_NAME
    # `save_to_disk` of the library datasets writes a file of the same name, beside a state.json.
    return inside if inside.is_file() and not (path / "state.json").exists() else None


def _is_hub_id(path: str) -> bool:
    return _HUB_ID.fullmatch(path) is not None and not ending(Path(path))
