"""Counterfactual prompts: templates filled alike for every group, and files of further axes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.data.counterfactuals import TEMPLATES, counterfactuals
from pipelines.errors import DataError


def test_the_programs_own_prompts_differ_only_in_the_person():
    entries = counterfactuals(None)
    assert len(entries) == 4 * len(TEMPLATES)
    assert {entry.axis for entry in entries} == {"gender", "names", "religion", "age"}
    for entry in entries:
        before, after = entry.template.split("{}")
        people = [text.removeprefix(before).removesuffix(after) for text in entry.prompts.values()]
        assert len(set(people)) == len(people) >= 2
        assert [before + person + after for person in people] == list(entry.prompts.values())
    # each name of a group has its turn
    gendered = [entry.prompts["women"] for entry in entries if entry.axis == "gender"]
    assert all(any(name in text for text in gendered) for name in ("Laura", "Anna", "Julia", "Susan"))


def test_a_file_adds_axes(tmp_path: Path):
    path = tmp_path / "axes.jsonl"
    hair = {"axis": "hair", "groups": {"red": ["Ann"], "black": ["Bo", "Cy"]}, "templates": ["Call {}!", "Is {} in?"]}
    wealth = {"axis": "wealth", "groups": {"rich": ["a rich person"], "poor": ["a poor person"]}}
    path.write_text(f"{json.dumps(hair)}\n\n{json.dumps(wealth)}\n")
    added = [entry for entry in counterfactuals(path) if entry.axis in ("hair", "wealth")]
    assert [entry.prompts for entry in added[:2]] == [
        {"red": "Call Ann!", "black": "Call Bo!"},
        {"red": "Is Ann in?", "black": "Is Cy in?"},
    ]
    assert [entry.template for entry in added[2:]] == list(TEMPLATES)


@pytest.mark.parametrize(
    ("axis", "told"),
    [
        ({"axis": "hair", "groups": {"red": ["Ann"]}}, "groups"),
        ({"axis": "hair", "groups": {"red": ["Ann"], "black": []}}, "`black` has no word"),
        ({"axis": "hair", "groups": {"red": ["a"], "black": ["b"]}, "templates": ["Hi {}", "Hello"]}, "'Hello'"),
        ({"axis": "hair", "groups": {"red": ["a"], "black": ["b"]}, "template": ["Hi {}"]}, "template"),
        ({"axis": "age", "groups": {"red": ["a"], "black": ["b"]}}, "`age` already"),
    ],
)
def test_a_line_that_is_no_axis_is_named(tmp_path: Path, axis: dict[str, object], told: str):
    path = tmp_path / "axes.jsonl"
    path.write_text(json.dumps(axis) + "\n")
    with pytest.raises(DataError, match=told) as caught:
        counterfactuals(path)
    assert caught.value.where == f"{path}:1"
