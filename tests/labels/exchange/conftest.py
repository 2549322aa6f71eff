"""Fixtures of the tests of other programs' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.labels.exchange.gather import ReadingOptions
from pipelines.labels.exchange.label_files import read_labels
from pipelines.labels.label_types import LabelSet


@pytest.fixture
def export(tmp_path: Path) -> Any:
    """Read rows as an export."""

    def read(*rows: Any, **reading: Any) -> LabelSet:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(list(rows)))
        return read_labels(path, ReadingOptions(**reading))

    return read
