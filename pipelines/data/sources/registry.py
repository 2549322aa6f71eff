"""LLaMA-Factory's register of data sets, dataset_info.json: one entry of it as a source of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pipelines.config.data_section import Tags
from pipelines.data.faults import fault_of
from pipelines.data.rows import Lenient
from pipelines.errors import UsageError, nearest_name

FILE_NAME = "dataset_info.json"
_COLUMNS = ("prompt", "query", "response", "history", "messages", "system", "tools", "chosen", "rejected", "kto_tag")
_MEDIA = ("images", "videos", "audios")
# Their name of a column: what our formats call it.
_ANSWERS = {"chosen": "chosen", "rejected": "rejected", "kto_tag": "label", "system": "system"}
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output", "history": "history", **_ANSWERS}
_DIALOGUE = {"messages": "conversations", "tools": "tools", **_ANSWERS}
_DEFAULTS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}


class Entry(Lenient):
    """One data set as the register describes it; keys that concern other programs are left alone."""

    file_name: str | None = None
    hf_hub_url: str | None = None
    formatting: Literal["alpaca", "sharegpt", "openai"] = "alpaca"
    ranking: bool = False
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    num_samples: int | None = None
    revision: str | None = None
    columns: dict[str, str | None] | None = None
    tags: Tags = Field({})

    @property
    def format(self) -> str:
        """The name of our format; which one is settled by what the entry says its rows hold."""
        kind = "alpaca" if self.formatting == "alpaca" else "sharegpt"
        if self._named().get("kto_tag"):
            return f"{kind}_kto"
        if self.ranking:
            return f"{kind}_preference"
        if kind == "alpaca" and not self._named().get("response"):
            return "text"
        return kind

    def column_map(self) -> dict[str, str]:
        """Column of our format: column of the file. A column that is not among these is not read."""
        if self.format == "text":
            return {"text": self._named().get("prompt") or "instruction"}
        ours = _ALPACA if self.formatting == "alpaca" else _DIALOGUE
        answers = {"chosen", "rejected"} if self.ranking else set()
        left_out = {"chosen", "rejected"} - answers | ({"response"} if self.ranking else set())
        return {ours[name]: column for name, column in self._named().items() if name in ours and name not in left_out}

    def _named(self) -> dict[str, str]:
        """Their columns by their names. As there, the defaults hold only where the entry names no column at all."""
        given: dict[str, str | None] = dict(_DEFAULTS if self.columns is None else self.columns)
        if self.ranking:
            given = {"chosen": "chosen", "rejected": "rejected", **given}
        return {name: column for name, column in given.items() if column and name in _COLUMNS}


def read_entry(path: Path, name: str | None) -> Entry:
    """The entry of that name.

    Raises:
        UsageError: the file is no such register, there is no such entry, or it cannot serve here.
    """
    entries = _read(path)
    if name is None or name not in entries:
        raise UsageError(
            f"there is no entry `{name}`" if name else "`name` must say which entry of the register is meant",
            where=str(path),
            hint=nearest_name(name or "", entries, f"entries: {', '.join(list(entries)[:20])}"),
        )
    where = f"{path}: {name}"
    try:
        entry = Entry.model_validate(entries[name])
    except ValidationError as error:
        raise UsageError(f"the entry is not valid: {fault_of(error)}", where=where) from error
    media = [kind for kind in _MEDIA if (entry.columns or {}).get(kind)]
    if media:
        raise UsageError(f"the entry has {media[0]}; only text can be read", where=where)
    if entry.hf_hub_url is None and entry.file_name is None:
        urls = [key for key in entries[name] if key.endswith("_url")]
        raise UsageError(
            f"the entry names neither file_name nor hf_hub_url{f', only {urls[0]}' if urls else ''}",
            where=where,
            hint="get the data yourself and name its file as `path`",
        )
    return entry


def _read(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"the register of data sets cannot be read: {error}", where=str(path)) from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UsageError("a register of data sets must be an object of objects, by name", where=str(path))
    return entries
