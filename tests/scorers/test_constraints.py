"""Verifiable constraints: rows in IFEval's published form, and answers that follow them or do not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.chain.table import STAGES
from pipelines.config import Config
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.rows import Message
from pipelines.errors import DataError, EnvironmentProblem
from pipelines.evaluate.conclusion import role_of
from pipelines.scorers import Completion, load_scorer
from pipelines.scorers.constraints import read_constraints
from tests.scorers.test_load_scorer import Context


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(prompt: str, **constraints: dict[str, Any]) -> dict[str, Any]:
    """A row as the data set has it: every argument of every kind is there, most of them null."""
    empty = {"num_words": None, "relation": None, "keywords": None, "end_phrase": None}
    names = [name.replace("__", ":") for name in constraints]
    arguments = [empty | given for given in constraints.values()]
    return {"key": 1000, "prompt": prompt, "instruction_id_list": names, "kwargs": arguments}


def test_the_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "if_verifiable.ifeval.instructions_registry", None)
    with pytest.raises(EnvironmentProblem) as caught:
        read_constraints(write(tmp_path / "rows.jsonl", row("Write.", punctuation__no_comma={})))
    assert "rlhf[constraints]" in str(caught.value.hint)


class TestWithVerifiers:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("if_verifiable")

    def test_constraints_are_verified_strictly_and_loosely(self, tmp_path: Path):
        constraints = {
            "punctuation__no_comma": {},
            "length_constraints__number_words": {"num_words": 5, "relation": "less than"},
            "keywords__existence": {"keywords": ["kettle"]},
        }
        (asked,) = read_constraints(write(tmp_path / "rows.jsonl", row("Write of a kettle.", **constraints)))
        yes, no = (True, True), (False, False)
        assert asked.followed("A kettle boils.") == [yes, yes, yes]
        assert asked.followed("A pot, and then water boils in it.") == [no, no, no]
        # only without its first line
        assert asked.followed("Sure, I can do that:\nA kettle boils.") == [(False, True), (False, True), yes]
        assert asked.followed("") == asked.followed(" \n") == [no, no, no]

    def test_the_same_answer_is_of_the_same_language_each_time(self, tmp_path: Path):
        asked = read_constraints(
            write(tmp_path / "rows.jsonl", row("Sprich.", language__response_language={"language": "de"}))
        )[0]
        assert len({tuple(asked.followed("was in so an die")) for _ in range(30)}) == 1

    @pytest.mark.parametrize(
        ("broken", "told"),
        [
            (row("Write.", punctuation__no_coma={}), "no constraint `punctuation:no_coma`"),
            (row("Write.", length_constraints__number_words={"num_words": 5}), "needs `relation`"),
            (
                row("Write.", length_constraints__number_words={"num_words": 5, "relation": "about"}),
                "cannot be verified with these arguments",
            ),
            (row("Write.", punctuation__no_comma={"colour": "red"}), "cannot be verified with these arguments"),
            (row("Write.", punctuation__no_comma={}) | {"kwargs": []}, "one entry for each"),
            ({"prompt": "Write."}, "instruction_id_list"),
        ],
    )
    def test_a_row_that_cannot_be_verified_is_named(self, tmp_path: Path, broken: dict[str, Any], told: str):
        path = write(tmp_path / "rows.jsonl", row("Write.", punctuation__no_comma={}), broken)
        with pytest.raises(DataError, match=told) as caught:
            read_constraints(path)
        assert caught.value.where == f"{path}:2"

    def test_an_empty_file_is_refused(self, tmp_path: Path):
        with pytest.raises(DataError, match="no prompt with constraints"):
            read_constraints(write(tmp_path / "rows.jsonl"))

    def test_data_of_nltk_is_asked_for_where_a_constraint_needs_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        import nltk

        monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
        sentences = row("Write.", length_constraints__number_sentences={"num_sentences": 2, "relation": "at least"})
        with pytest.raises(EnvironmentProblem) as caught:
            read_constraints(write(tmp_path / "rows.jsonl", sentences))
        assert "punkt_tab" in str(caught.value.hint)

    def test_a_scorer_gives_the_share_that_is_followed(self, tmp_path: Path):
        both = {"punctuation__no_comma": {}, "keywords__existence": {"keywords": ["kettle"]}}
        path = write(tmp_path / "rows.jsonl", row("Of a kettle?", **both), row("Go.", punctuation__no_comma={}))
        scorer = load_scorer(ScorerSection(kind="constraints", file=str(path)), Context(), torch.device("cpu"))
        answers = [
            Completion(text, (), True) for text in ("A kettle boils.", "A kettle, a pot.", "Oh, a pot.", "Gone.")
        ]
        prompts = [(Message(role="user", content=text),) for text in ("Of a kettle?",) * 3 + ("Go.",)]
        assert scorer(prompts, answers) == [1.0, 0.5, 0.0, 1.0]
        with pytest.raises(DataError, match="no constraints there: 'Of a pot"):
            scorer([(Message(role="user", content="Of a pot?"),)], answers[:1])

    def test_its_file_is_among_what_ppo_was_made_from(self, tmp_path: Path):
        path = write(tmp_path / "rows.jsonl", row("Go.", punctuation__no_comma={}))
        reward = {"kind": "constraints", "file": str(path)}
        config = Config.model_validate(
            {"ppo": {"reward": reward}, "eval": {"scorers": [{"kind": "length", "target": 9}]}}
        )
        assert {stage.name: path in stage.sources(config) for stage in STAGES if stage.name in ("ppo", "eval")} == {
            "ppo": True,
            "eval": False,
        }
        assert role_of(ScorerSection(**reward), config.ppo.reward) == "optimized"
        assert role_of(ScorerSection(**reward), ScorerSection()) == "rule"
