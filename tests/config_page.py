"""The tables of keys in docs/configuration.md, made from the schema of the configuration.

`python -m tests.config_page` rewrites them; `test_code_map.py` fails where they are out of date.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipelines.config.reference import Key, all_keys, keys_of
from pipelines.config.section import Section

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
START, END = "<!-- keys: start -->\n", "<!-- keys: end -->\n"
TITLES = {"Source": "A source of rows", "ScorerSection": "A scorer", "ScorerPart": "A part of a scorer"}
"""Titles of the sections that stand in several places of a configuration."""


def tables() -> str:
    """One table for each section in the order of a configuration, then the sections that stand in several places."""
    places: defaultdict[type[Section], list[str]] = defaultdict(list)
    for key in all_keys():
        if key.section is not None:
            places[key.section].append(key.key)
    shared = [section for section in places if section.__name__ in TITLES]
    lines: list[str] = []
    for section, keys in places.items():
        if section not in shared:
            lines += [f"{'##' if '.' not in keys[0] else '###'} `{keys[0]}`", "", *_text(section), *_table(section)]
    for section in shared:
        lines += [f"## {TITLES[section.__name__]}", "", *_text(section)]
        readers = [key for key in places[section] if ".parts." not in key]
        lines += [f"Used in {', '.join(f'`{key}`' for key in readers)}.", "", *_table(section)]
    return "\n".join(lines)


def _text(section: type[Section]) -> list[str]:
    return [" ".join(paragraph.split()) + "\n" for paragraph in (inspect.getdoc(section) or "").split("\n\n")]


def _table(section: type[Section]) -> Iterator[str]:
    inherited = {name for base in section.__bases__ for name in getattr(base, "model_fields", {})}
    others = inherited if section.__name__ == "ScorerPart" else set()
    if others:
        yield "All keys of a scorer, and:\n"
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    yield from (_row(key) for key in keys_of(section) if key.key not in others)
    yield ""


def _row(key: Key) -> str:
    kind, default = key.values, "" if key.default is None else f"`{key.default}`"
    if key.section is not None:
        title = TITLES.get(key.section.__name__)
        kind = kind.replace("section", f"[section](#{title.lower().replace(' ', '-')})" if title else "section")
    elif default == "":
        default = "must be given"
    mark = "" if key.affects_results else " †"
    return f"| `{key.key}`{mark} | {_cell(kind)} | {_cell(default)} | {_cell(key.description)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


def page_with_keys() -> str:
    """The page with the tables of today."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + tables() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page_with_keys(), encoding="utf-8")
