"""docs/data.md: its examples are valid, and it leaves out no option, no kind of file and no format."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from pipelines.config import Config
from pipelines.config.data_section import Source
from pipelines.data.formats import FORMATS
from pipelines.data.sources.files import COLUMNAR, READERS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_examples_are_valid() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        Config.model_validate(yaml.safe_load(example))


def test_the_page_is_complete() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert set(Source.model_fields) - {"path"} <= named
    assert set(FORMATS) <= named
    assert all(f"a{ending}" in PAGE for ending in (*READERS, *COLUMNAR))
