"""Cells of a text table: numbers, truth values and empty cells."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pipelines.data.faults import Fault, shorten
from pipelines.data.formats import FORMATS
from pipelines.data.formats.format import Format

_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def for_detection(row: Mapping[str, str]) -> dict[str, Any]:
    """The row with what can be parsed in the columns that are numbers or truth values wherever a format has them."""
    kinds = _unambiguous()
    return {name: _parsed(cell, kinds[name])[0] if name in kinds else cell for name, cell in row.items()}


def typed_cells(row: Mapping[str, str], layout: type[Format]) -> tuple[dict[str, Any], Fault | None]:
    """The row as the format wants it: empty cells are not there, numbers and truth values are parsed."""
    kinds = _kinds(layout)
    result: dict[str, Any] = {}
    for name, cell in row.items():
        if cell == "":
            continue
        result[name] = cell
        if name in kinds:
            result[name], good = _parsed(cell, kinds[name])
            if not good:
                wanted = " or ".join(_WORDS[kind] for kind in (bool, float) if kind in kinds[name])
                comma = "; write it with a decimal point" if _DECIMAL_COMMA.fullmatch(cell) else ""
                return {}, Fault(name, f"must be {wanted}", f"found {shorten(cell)}{comma}")
    return result, None


_WORDS = {bool: "true, false, 1 or 0", float: "a number"}


def _parsed(cell: str, kinds: frozenset[type]) -> tuple[Any, bool]:
    """The value, and whether the cell is one; a cell that is none stays text."""
    if bool in kinds and cell.strip().lower() in _TRUTH:
        return _TRUTH[cell.strip().lower()], True
    if float in kinds:
        try:
            number = float(cell)
        except ValueError:
            return cell, False
        if math.isfinite(number):
            return number, True
    return cell, False


@cache
def _kinds(layout: type[Format]) -> dict[str, frozenset[type]]:
    """The columns of a format that hold numbers or truth values and never text."""
    parsed = {}
    for name, field in layout.model_fields.items():
        kinds = frozenset(_types_of(field.annotation))
        if kinds & {bool, float} and str not in kinds:
            parsed[field.alias or name] = kinds & {bool, float}
    return parsed


@cache
def _unambiguous() -> dict[str, frozenset[type]]:
    """The same for all formats together, without columns that hold text in one of them."""
    kinds: dict[str, frozenset[type]] = {}
    text: set[str] = set()
    for layout in FORMATS.values():
        own = _kinds(layout)
        kinds |= {name: kinds.get(name, frozenset()) | types for name, types in own.items()}
        text |= {field.alias or name for name, field in layout.model_fields.items()} - set(own)
    return {name: types for name, types in kinds.items() if name not in text}


def _types_of(annotation: Any) -> set[type]:
    if get_origin(annotation) in (Union, UnionType):
        return {kind for part in get_args(annotation) for kind in _types_of(part)}
    return {annotation} if isinstance(annotation, type) else set()
