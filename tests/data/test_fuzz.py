"""Thousands of random documents: rows, faults, or an error of the program's own kinds; never another exception."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config.data_section import Source
from pipelines.data.canonical import to_line
from pipelines.data.formats import FORMATS, known_columns
from pipelines.data.formats.format import Format
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Demonstration, Judgement, Prompt
from pipelines.errors import RlhfError
from tests.examples import examples

TEXTS = st.text(max_size=8) | st.sampled_from(
    ["Hi?", " ", "\n\nHuman: a\n\nAssistant: b", "[]", '[{"name": "f"}]', "true"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "x"]) | SCALARS,
        "content": TEXTS | SCALARS,
        "tools": JSON,
        "tool_calls": JSON | st.lists(st.fixed_dictionaries({"function": JSON}), max_size=2),
        "from": st.sampled_from(["human", "gpt", "system", "observation"]) | SCALARS,
        "value": TEXTS | SCALARS,
        "response": TEXTS | SCALARS,
        "overall_score": st.floats(0, 9) | SCALARS,
    },
)
USER, ASSISTANT = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}
DIALOGUES = st.sampled_from(
    [[USER], [ASSISTANT], [USER, ASSISTANT], [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]]
)
NUMBERS = st.lists(st.integers(0, 3), max_size=3)
VALUES = st.one_of(
    TEXTS, DIALOGUES, st.lists(TURN, max_size=3), st.lists(TEXTS, max_size=3), NUMBERS, SCALARS, TURN, JSON
)
HH = st.sampled_from(["\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: c"])
USUAL = {
    str: TEXTS | HH,
    list: st.one_of(
        DIALOGUES,
        NUMBERS,
        st.lists(TEXTS, min_size=2, max_size=3),
        st.just([{"response": "a", "overall_score": 1}, {"response": "b", "overall_score": 2}]),
    ),
    dict: st.just({"from": "gpt", "value": "a"}),
    bool: st.booleans(),
    int: st.integers(-3, 3),
    float: st.floats(-3, 3),
}


def likely(layout: type[Format]) -> st.SearchStrategy[dict[str, Any]]:
    """Rows that mostly look like the format's; a column that it may have is there in some."""
    columns = {name: st.one_of(*(USUAL[kind] for kind in kinds)) for name, kinds in layout.shape.items()}
    further = {field.alias or name: VALUES for name, field in layout.model_fields.items() if name not in columns}
    plain, odd = (
        st.fixed_dictionaries(columns),
        st.dictionaries(st.sampled_from([*columns, *further]), VALUES, max_size=1),
    )
    return st.one_of(plain, st.tuples(plain, odd).map(lambda parts: {**parts[0], **parts[1]}))


LIKELY = st.sampled_from(list(FORMATS.values())).flatmap(likely)
ROWS = LIKELY | st.dictionaries(st.sampled_from([*known_columns(), "id"]) | TEXTS, VALUES, max_size=6)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize("kind", [Demonstration, Comparison, Judgement, Prompt, None])
@settings(max_examples=examples(1000), deadline=None, derandomize=True, database=None, suppress_health_check=QUIET)
@given(document=st.lists(ROWS, min_size=1, max_size=3) | VALUES, array=st.booleans())
def test_any_json(tmp_path: Path, kind: type[Any] | None, document: Any, array: bool) -> None:
    path = tmp_path / ("a.json" if array else "a.jsonl")
    lines = document if isinstance(document, list) else [document]
    path.write_text(json.dumps(document) if array else "\n".join(map(json.dumps, lines)))
    check(path, kind)


@settings(max_examples=examples(300), deadline=None, derandomize=True, database=None, suppress_health_check=QUIET)
@given(
    content=st.binary(max_size=60),
    name=st.sampled_from(["a.json", "a.jsonl", "a.txt", "a.csv", "a.tsv", "a.jsonl.gz", "a.parquet", "a.arrow"]),
)
def test_any_bytes(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    check(tmp_path / name, Prompt)


def check(path: Path, kind: type[Any] | None) -> None:
    """Every row is of the kind, and reads back from its line as it was."""
    with contextlib.suppress(RlhfError):
        for outcome in SourceReader(Source(path=str(path)), kind):
            assert not (outcome.rows and outcome.fault)
            for row in outcome.rows:
                assert kind is None or isinstance(row, kind)
                line = to_line(row)
                line.encode()
                assert type(row).model_validate_json(line) == row
