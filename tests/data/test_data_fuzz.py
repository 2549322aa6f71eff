"""Whatever JSON comes in: rows, or an error that is the data's."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config.data import Source
from pipelines.data.formats import known_columns
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Demonstration, Prompt
from pipelines.errors import DataError, UsageError

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "x"]) | SCALARS,
        "content": SCALARS,
        "from": st.sampled_from(["human", "gpt", "system", "observation"]) | SCALARS,
        "value": SCALARS,
    },
)
VALUES = st.one_of(
    SCALARS, TURN, st.lists(TURN, max_size=4), st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2))
)
ROWS = st.dictionaries(st.sampled_from([*known_columns(), "label", "id"]) | st.text(max_size=4), VALUES, max_size=6)


@pytest.mark.parametrize("kind", [Demonstration, Comparison, Prompt])
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(document=st.lists(ROWS | VALUES, max_size=4) | VALUES, array=st.booleans())
def test_any_json(tmp_path: Path, kind: type[Any], document: Any, array: bool) -> None:
    path = tmp_path / ("a.json" if array else "a.jsonl")
    lines = document if isinstance(document, list) else [document]
    path.write_text(json.dumps(document) if array else "\n".join(map(json.dumps, lines)))
    check(path, kind)


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=60), name=st.sampled_from(["a.json", "a.jsonl", "a.txt"]))
def test_any_bytes(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    check(tmp_path / name, Prompt)


def check(path: Path, kind: type[Any]) -> None:
    outcomes = []
    with contextlib.suppress(DataError, UsageError):
        outcomes = list(SourceReader(Source(path=str(path)), kind))
    for outcome in outcomes:
        assert (outcome.row is None) is (outcome.fault is not None)
        assert outcome.row is None or isinstance(outcome.row, kind)
