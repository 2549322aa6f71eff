"""Reading, overriding, checking and writing the configuration. YAML is read by the 1.2 rules."""

from __future__ import annotations

import datetime
import difflib
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.config.by_kind import DECIDING, defaults_by_kind
from pipelines.config.reference import did_you_mean, keys_called, section_in
from pipelines.config.schema import Config
from pipelines.config.section import Section
from pipelines.config.yaml12 import Dumper, Places, parse_yaml
from pipelines.errors import UsageError

KEPT: Mapping[str, Any] = {
    "data.split_by": "opening",
    "ppo.num_ppo_epochs": 4,
    "ppo.warmup_updates": 0,
    "ppo.adam_eps": 1e-5,
    "eval.independent_judge": "off",
}
"""Keys whose default has changed, so that a run keeps the value with which it was begun, and their older default."""


def load_config(
    path: Path | None,
    sets: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    recorded: Path | None = None,
    for_training: bool = False,
) -> Config:
    """Read a configuration: defaults < file < ``sets`` < ``flags``.

    Args:
        path: the YAML file; None: defaults only.
        sets: ``section.key=value`` with a YAML value.
        flags: values of named options by their dotted key; they win even if the value is None.
        recorded: the configuration that the run recorded, if it was begun; what `KEPT` names is taken from it.
        for_training: whether keys that are not set get their default for the kind of training and the device, and
            `run.date` the day of today, or on which the run was begun.

    Raises:
        UsageError: the file cannot be read, a key is unknown, or a value does not fit.
    """
    data: dict[str, Any] = {}
    places: Places = {}
    label = str(path or "the configuration")
    overrides: list[str] = []
    if path is not None:
        data, places = _read(path)
    for entry in sets:
        key, separator, value = entry.partition("=")
        key = key.strip().replace("-", "_")
        if not separator or not all(key.split(".")):
            raise UsageError(f"--set wants section.key=value, not `{entry}`", where="--set")
        place = f"--set {key}"
        overrides.append(place)
        _assign(data, places, key, parse_yaml(value, place)[0], place)
    for key, value in (flags or {}).items():
        _assign(data, places, key, value, f"the option for {key}")
    of_run = _read(recorded)[0] if recorded is not None and recorded.is_file() else None
    if of_run is not None:
        for key, older in KEPT.items():
            if _value_at(data, key) is None:
                _assign(data, places, key, _value_in_run(of_run, key, older), str(recorded))
    if for_training:
        if _value_at(data, "run.date") is None:
            began = _value_at(of_run or {}, "run.date") or datetime.date.today().isoformat()
            _assign(data, places, "run.date", began, str(recorded))
        written, kept = ({key: _value_at(values, key) for key in DECIDING} for values in (data, of_run or {}))
        for key, value in defaults_by_kind(written, kept):
            _assign(data, places, key, value, "the default by kind")
    # A section with all its keys commented out reads as null.
    sections = {key: {} if value is None and key in Config.model_fields else value for key, value in data.items()}
    try:
        return Config.model_validate(sections)
    except ValidationError as error:
        raise _as_usage_error(error, ", ".join([label, *overrides]), places) from error


def dump_config(config: Config, *, place: bool = True) -> str:
    """The resolved configuration as YAML that reads back to the same values.

    The place of a run is no property of it, as the directory may be moved: without `place`, ``run.dir`` is null.
    """
    if not place:
        config = config.model_copy(update={"run": config.run.model_copy(update={"dir": None})})
    return yaml.dump(config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def explain_config(config: Config) -> str:
    """The resolved configuration as YAML, with the description of every key as a comment above it."""
    return "\n".join(_explained(config)) + "\n"


def _explained(section: Section, indent: str = "") -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        yield from textwrap.wrap(
            field.description or "", 120, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        value = getattr(section, name)
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _explained(value, indent + "  ")
        else:
            text = yaml.dump(
                section.model_dump(mode="json", include={name}), Dumper=Dumper, sort_keys=False, allow_unicode=True
            )
            yield from textwrap.indent(text.rstrip(), indent).splitlines()


def _read(path: Path) -> tuple[dict[str, Any], Places]:
    try:
        if path.exists() and not path.is_file():
            raise UsageError("the configuration must be a regular file", where=str(path))
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            "no such configuration file", where=str(path), hint="`rlhf init` writes one to start from"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration cannot be read: {error}", where=str(path)) from error
    data, places = parse_yaml(text, str(path))
    if data is None:
        return {}, places
    if not isinstance(data, dict):
        raise UsageError("the configuration must be a mapping of sections", where=str(path))
    return data, places


def _assign(data: dict[str, Any], places: Places, dotted: str, value: Any, place: str) -> None:
    *parents, last = dotted.split(".")
    here = data
    for depth, part in enumerate(parents, 1):
        below = here.get(part)
        if below is not None and not isinstance(below, dict):
            raise UsageError(f"`{part}` in `{dotted}` is a value, not a section", where=place)
        if below is None:
            places[tuple(parents[:depth])] = place
        # A copy, because two sections may be one object through a YAML alias.
        here[part] = here = dict(below or {})
    here[last] = value
    places[(*parents, last)] = place


def _value_at(data: Mapping[str, Any], dotted: str) -> Any:
    """The value of a key; None where there is none."""
    here: Any = data
    for part in dotted.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def _value_in_run(of_run: Mapping[str, Any], dotted: str, older: Any) -> Any:
    """The value of a key that a run recorded, which may be null; `older` where the run is from before the key."""
    parent, _, name = dotted.rpartition(".")
    section = _value_at(of_run, parent)
    return section[name] if isinstance(section, Mapping) and name in section else older


def _as_usage_error(error: ValidationError, label: str, places: Places) -> UsageError:
    """Return the most telling fault as one sentence, with the number of the others."""
    # A misspelled key comes first: the field that is missing because of it is no second fault.
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    location = tuple(part for part in _without_tags(first["loc"]) if part != "[key]")
    dotted = ".".join(str(part) for part in location)
    hint = None
    if first["type"] == "extra_forbidden":
        message = f"unknown key `{dotted}`"
        known = _keys_at(location[:-1])
        near = _near(location, known)
        hint = did_you_mean(near) if near else f"known keys here: {', '.join(known)}"
        if not near and "trainer" in known:
            hint += f"; further fields of TRL's configuration go into {location[0]}.trainer"
        hint += _translations(fault["loc"] for fault in faults[1:] if fault["type"] == "extra_forbidden")
    else:
        text = "should be a mapping of keys" if first["type"] == "model_type" else first["msg"]
        text = text.removeprefix("Value error, ").removeprefix("Input ")
        message = f"`{dotted}`: {text[0].lower()}{text[1:]}" if dotted else text
        if not isinstance(first["input"], dict | list | BaseModel):
            message += f" (got {first['input']!r})"
    others = len({_without_tags(fault["loc"]) for fault in faults}) - 1
    if others:
        message += f"; and {others} more"
    while location and location not in places:
        location = location[:-1]
    # A fault between sections is that of no line.
    return UsageError(message, where=places[location] if location else label, hint=hint)


def _translations(locations: Iterable[tuple[int | str, ...]]) -> str:
    """Return what further unknown keys are called here, for a file that was written for another program."""
    told = ((location, keys_called(str(location[-1]))) for location in locations if len(location) == 1)
    known = [f"`{location[0]}` is {' or '.join(f'`{key}`' for key in keys)}" for location, keys in told if keys]
    return f" ({'; '.join(known)})" if known else ""


def _near(location: tuple[int | str, ...], known: list[str]) -> Sequence[str]:
    """The keys that an unknown one is likely to mean: of its own section, misspelled here, of any section."""
    name = str(location[-1])
    keys = keys_called(name)
    in_section = [key for key in keys if key.startswith(f"{location[0]}.")]
    misspelled = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    elsewhere = [key for key in keys if key.count(".") < 3]  # deeper ones are of another kind of thing
    return in_section or misspelled or elsewhere or difflib.get_close_matches(name, known, n=1, cutoff=0.55)


def _without_tags(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the place of a fault without the names that pydantic adds for the members of a union."""
    kept: list[int | str] = []
    model: Any = Config
    in_mapping = False
    for part in location:
        if model is None and isinstance(part, str) and not in_mapping:
            continue
        kept.append(part)
        if isinstance(part, str) and model is not None:
            field = model.model_fields.get(part)
            model = section_in(field.annotation) if field else None
            in_mapping = field is not None and "dict[" in str(field.annotation)
    return tuple(kept)


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    model: Any = Config
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        model = section_in(field.annotation) if field else None
        if model is None:
            return []
    return list(model.model_fields)
