"""The base of a run, known by its content: it may be moved or copied, and the run goes on with it. No torch here."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.config.feedback_section import RUN_NAMES
from pipelines.config.model_section import is_gguf
from pipelines.run.disk import read_json, write_atomic
from pipelines.run.manifest import FileRecord, changed_files, refuse_damaged_model

RECORD = "base.json"
_CHANGED = "its files have changed"
_SUFFIXES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py"}
"""Files of a model's directory that say what it is; pages and pictures are left out."""


@dataclass(frozen=True)
class BaseRecord:
    """The outside base of a run: its files, and all names it has had.

    The first name is the one in the manifests, with its commit, the last is where it is now.
    """

    names: tuple[str, ...]
    revision: str | None
    files: tuple[FileRecord, ...]

    @classmethod
    def read(cls, run_dir: Path) -> BaseRecord | None:
        """Read the record of a run; None: it has none, or a damaged one."""
        data = read_json(run_dir / RECORD)
        try:
            files = tuple(FileRecord(**file) for file in data["files"])
            return cls(tuple(data["names"]), data["revision"], files) if data["names"] else None
        except (KeyError, TypeError):
            return None

    def write(self, run_dir: Path) -> None:
        """Write the record into the run directory."""
        write_atomic(run_dir / RECORD, json.dumps(asdict(self), indent=2) + "\n")

    def holds(self, name: str) -> bool:
        """Whether the files under another name are those of this base."""
        return _have_content(name, self.files)


def remember_base(config: Config, run_dir: Path) -> None:
    """Record the base that a stage is going to use, once its files are on this machine; of a known one the new name."""
    model = config.model
    if model.name_or_path is None or model.init != "pretrained":
        return
    name, record = model.name_or_path, BaseRecord.read(run_dir)
    if record is not None and record.names[-1] == name and (record.holds(name) or not Path(name).exists()):
        return
    refuse_damaged_model(name)
    if record is not None and record.holds(name):
        between = [known for known in record.names[1:] if known != name]
        times = {file.name: file.stat().st_mtime_ns for file in _local_files(name)}
        files = tuple(replace(file, mtime_ns=times.get(file.path, file.mtime_ns)) for file in record.files)
        replace(record, names=(record.names[0], *between, name), files=files).write(run_dir)
    elif files := _files(name, model.revision):
        BaseRecord((name,), model.revision, files).write(run_dir)


def asks_for_the_time(config: Config) -> bool:
    """Whether a chat template asks for the time: of the base, of a reward model on a base of its own, of a classifier.

    False: none does, or its files are not on this machine, or not yet.
    """
    model, sampled = config.model, config.feedback.sample.models
    scorers = [config.ppo.reward, *config.eval_scorers, config.eval.toxicity, config.feedback.simulated.scorer]
    parts = [part for scorer in scorers if scorer is not None for part in scorer.flat()]
    names = [(config.reward.base, config.reward.base_revision), *((part.path, part.revision) for part in parts)]
    names += [(entry.model, entry.revision) for entry in sampled if entry.model not in RUN_NAMES]
    if model.chat_template == "auto" and model.init == "pretrained":
        names.append((model.name_or_path, model.revision))
    if model.chat_template not in ("auto", "none") and _has_now(Path(model.chat_template)):
        return True
    files = (file for name in names for file in _local_files(_on_this_machine(*name) or ""))
    return any(_has_now(file) for file in files if is_gguf(file) or file.name in _TEMPLATES)


_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_HEAD = 64 * 2**20
"""Bytes at the start of a file among which a chat template lies: a GGUF file begins with it and the vocabulary."""


@functools.lru_cache(maxsize=32)
def _has_now(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return b"strftime_now" in opened.read(_HEAD)
    except OSError:
        return False


def may_be_quantized(name: str, revision: str | None) -> bool:
    """Whether the weights of a model are stored quantized, as its config.json says; True: it is not on this machine."""
    path = _on_this_machine(name, revision)
    return path is None or "quantization_config" in read_json(Path(path) / "config.json")


def present_name(name: str, run_dir: Path) -> str:
    """Where the base that a manifest knows as `name` is now."""
    record = BaseRecord.read(run_dir)
    return record.names[-1] if record is not None and name in record.names else name


def with_recorded_base(
    section: dict[str, Any], run_dir: Path, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Settings of a stage with its base under the name that was recorded, where the content is the same.

    Where the name is the same and the content is not, the name says so. A day that a chat template writes counts only
    where both know one: settings of before have none, nor has a template whose file is gone, which is published.

    The settings are compared with those `before`; None: with those that are recorded for a new artifact.
    """
    if before is not None and ("date" in before) != ("date" in section):
        section = {key: value for key, value in section.items() if key != "date"}
        section |= {"date": before["date"]} if "date" in before else {}
    model, record = section.get("model"), BaseRecord.read(run_dir)
    if not isinstance(model, dict) or not isinstance(name := model.get("name_or_path"), str):
        return section
    known = dict(before.get("model", {})) if before is not None else {}
    if before is None and record is not None:
        known = {"name_or_path": record.names[0], "revision": record.revision}
    old = known.get("name_or_path")
    if not isinstance(old, str):
        return section
    if old == name:
        changed = record is not None and name in record.names and Path(name).exists() and not record.holds(name)
        return section | {"model": model | {"name_or_path": f"{name} ({_CHANGED})"}} if changed else section
    if (record is not None and old in record.names and record.holds(name)) or _same_files(old, name):
        return section | {"model": model | {"name_or_path": old, "revision": known.get("revision")}}
    return section


def _same_files(old: str, name: str) -> bool:
    """Whether two names of local models, neither of which is recorded, lead to the same content."""
    if not (Path(old).exists() and Path(name).exists()):
        return False
    if Path(old).samefile(name):
        return True
    sizes = [{file.name: file.stat().st_size for file in _local_files(path)} for path in (old, name)]
    return sizes[0] == sizes[1] and _have_content(name, _files(old, None))


def _files(name: str, revision: str | None) -> tuple[FileRecord, ...]:
    """Records of a model's files; empty: they are not on this machine, or not yet."""
    path = _on_this_machine(name, revision)
    return tuple(FileRecord.of(file, file.name) for file in _local_files(path)) if path is not None else ()


def _on_this_machine(name: str | None, revision: str | None) -> str | None:
    """The path of a model, in the cache of the hub where it is from there; None: it is not on this machine."""
    if name is None or Path(name).exists():
        return name
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return str(Path(cached).parent) if isinstance(cached, str) else None


def _local_files(name: str) -> list[Path]:
    """The .gguf file, or the files of a directory that make a model."""
    path = Path(name)
    if not path.is_dir():
        return [path] if path.is_file() else []
    return [file for file in sorted(path.iterdir()) if file.suffix in _SUFFIXES and file.is_file()]


def _have_content(name: str, files: tuple[FileRecord, ...]) -> bool:
    """Whether the files under `name` have the recorded content."""
    path = Path(name)
    if is_gguf(name) and len(files) == 1:
        path, files = path.parent, (replace(files[0], path=path.name),)
    try:
        times = tuple((path / file.path).stat().st_mtime_ns for file in files)
    except OSError:
        return False
    return bool(files) and _unchanged(path, files, times)


@functools.lru_cache(maxsize=8)
def _unchanged(directory: Path, files: tuple[FileRecord, ...], times: tuple[int, ...]) -> bool:
    """Compare contents, once for all stages of a plan; `times` are those of the files now."""
    return not changed_files(directory, list(files))
