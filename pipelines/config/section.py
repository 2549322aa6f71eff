"""Base class of the sections of the configuration."""

from __future__ import annotations

from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.config.by_kind import DEFAULTS_BY_KIND


class Section(BaseModel):
    """A strict, frozen section: an unknown key or a value of another type is an error.

    Where a list is wanted, one text or one mapping is a list of it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _one_for_a_list(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        lists = [name for name, field in cls.model_fields.items() if get_origin(field.annotation) is list]
        return data | {name: [data[name]] for name in lists if isinstance(data.get(name), str | dict)}

    def results_view(self) -> dict[str, Any]:
        """The values that affect results, as plain JSON data: what a stage's fingerprint is made of."""
        view: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("affects_results") is False:
                continue
            value = getattr(self, name)
            view[name] = value.results_view() if isinstance(value, Section) else _plain(value)
        return view


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.results_view()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def cosmetic(default: Any, **kwargs: Any) -> Any:
    """A field that changes how a run looks or how fast it is, never its result."""
    return Field(default, json_schema_extra={"affects_results": False}, **kwargs)


def by_kind(key: str, *, affects_results: bool = True, **kwargs: Any) -> Any:
    """A field whose default follows the kind of training or the device: `defaults_by_kind`."""
    extra: dict[str, Any] = {"affects_results": affects_results, "by_kind": key}
    return Field(DEFAULTS_BY_KIND[key].otherwise, json_schema_extra=extra, **kwargs)
