"""CONTRIBUTING.md against the code: the map has every file, and every file and test that the page names is there."""

from __future__ import annotations

import re

from tests.code_map import PAGE, REPOSITORY, page_with_map


def test_the_map_has_one_line_for_every_file() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_with_map(), "run: python -m tests.code_map"


def test_every_file_that_the_page_names_is_there() -> None:
    named = re.findall(
        r"`((?:pipelines|rlhf_cli|tests|benchmarks|configs|docs)/[\w./-]+)`", PAGE.read_text(encoding="utf-8")
    )
    assert len(named) > 30
    assert not [name for name in named if not (REPOSITORY / name).exists()]
