"""Pages made from the code, against the code: the map in CONTRIBUTING.md, and the keys in docs/configuration.md."""

from __future__ import annotations

import re

from pipelines.config.reference import all_keys
from tests import config_page
from tests.code_map import PAGE, REPOSITORY, page_with_map


def test_the_map_has_one_line_for_every_file() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_with_map(), "run: python -m tests.code_map"


def test_every_file_that_the_page_names_is_there() -> None:
    named = re.findall(
        r"`((?:pipelines|rlhf_cli|tests|benchmarks|configs|docs)/[\w./-]+)`", PAGE.read_text(encoding="utf-8")
    )
    assert len(named) > 30
    assert not [name for name in named if not (REPOSITORY / name).exists()]


def test_the_page_of_keys_is_that_of_the_schema() -> None:
    page = config_page.PAGE.read_text(encoding="utf-8")
    assert page == config_page.page_with_keys(), "run: python -m tests.config_page"


def test_the_page_has_every_key_of_the_schema() -> None:
    tables = config_page.tables()
    for key in all_keys():
        name = key.key.rpartition(".")[2] if "." in key.key else None
        assert (f"\n| `{name}`" if name else f"## `{key.key}`") in tables, key.key
