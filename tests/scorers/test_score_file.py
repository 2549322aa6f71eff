"""Figures of scored rows, by hand."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines.config import Config
from pipelines.config.data_section import Source
from pipelines.config.scorer_section import ScorerSection
from pipelines.errors import DataError
from pipelines.run.reporting import SilentReporter
from pipelines.scorers.combined import CombinedScorer, Part, weighted_sum
from pipelines.scorers.score_file import agreement, context_of_run, read_answers, score_rows, summarize


def test_accuracy_counts_a_tie_as_half_and_has_an_interval():
    pairs = [(2.0, 1.0), (1.0, 1.0), (0.0, 3.0), (5.0, 4.0)]
    entries = [{"scores": {"chosen": chosen, "rejected": rejected}} for chosen, rejected in pairs]
    summary = summarize(entries)
    assert summary["accuracy"]["value"] == 2.5 / 4
    assert 0.2 < summary["accuracy"]["low"] < 0.625 < summary["accuracy"]["high"] < 0.95
    assert summary["answers"]["chosen"]["mean"] == 2.0
    assert summary["answers"]["rejected"]["p50"] == 2.0
    assert (summary["answers"]["rejected"]["min"], summary["answers"]["rejected"]["max"]) == (1.0, 4.0)


def test_agreement_with_labels():
    # pairs (good, bad): (3, 1) and (2, 1) are right, (3, 3) is a tie, (2, 3) is wrong
    assert agreement([1, 1, 0, 0], [3, 2, 1, 3]) == {"auc": 2.5 / 4}
    assert agreement([1, 1], [3, 2]) == {"auc": None}
    assert agreement([1, 2, 3, 9], [0.1, 0.2, 5, 6]) == {"rank_correlation": pytest.approx(1.0)}
    assert agreement([1, 2, 3], [3, 1, 2]) == {"rank_correlation": pytest.approx(-0.5)}
    assert agreement([1, 2, 3], [1, 1, 1]) == {"rank_correlation": None}


def test_every_kind_with_answers_is_read_and_others_are_refused_with_their_place(tmp_path: Path):
    def read(row: dict[str, object]) -> dict[str, str]:
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        (found,) = read_answers(Source(path=str(tmp_path / "rows.jsonl")))
        assert [turn.content for turn in found.prompt] == ["q"]
        return dict(found.answers)

    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert read({"prompt": "q", "chosen": "a", "rejected": "b"}) == {"chosen": "a", "rejected": "b"}
    assert read({"prompt": "q", "completion": "a", "label": True}) == {"completion": "a"}
    assert read({"messages": turns}) == {"completion": "a"}
    with pytest.raises(DataError) as caught:
        read({"prompt": "q"})
    assert caught.value.where == f"{tmp_path / 'rows.jsonl'}:1"


def test_a_bad_score_is_placed_at_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module: Any = ModuleType("rewards_of_test")
    module.score = lambda prompts, completions: [float("nan") if text == "bad" else 1.0 for text in completions]
    module.__spec__ = ModuleSpec("rewards_of_test", None)
    monkeypatch.setitem(sys.modules, "rewards_of_test", module)
    file = tmp_path / "rows.jsonl"
    pairs = [("a", "b"), ("c", "bad")]
    file.write_text("".join(json.dumps({"prompt": "q", "chosen": a, "rejected": b}) + "\n" for a, b in pairs))
    config = Config.model_validate({"run": {"device": "cpu"}})
    section = ScorerSection(kind="function", function="rewards_of_test:score")
    rows = read_answers(Source(path=str(file)))
    with pytest.raises(DataError, match="rewards_of_test:score gave the score nan") as caught:
        score_rows(section, rows, context_of_run(config, None), SilentReporter(), as_policy=False)
    assert caught.value.where == f"{file}:2 (rejected)"


def test_threads_are_chosen_by_the_size_of_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Sized:
        name, num_parameters = "sized", 7

        def __call__(self, prompts: Any, completions: Any) -> list[float]:
            return [1.0] * len(prompts)

    given: list[int] = []
    combined = CombinedScorer("sum", [Part(Sized()), Part(Sized())], weighted_sum([1, 1]))
    monkeypatch.setattr("pipelines.scorers.score_file.load_scorer", lambda *args, **kwargs: combined)
    monkeypatch.setattr("pipelines.models.machine.choose_threads", lambda run, count, reporter: given.append(count))
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "q", "completion": "a"}\n')
    config = Config.model_validate({"run": {"device": "cpu"}})
    rows = read_answers(Source(path=str(file)))
    section = ScorerSection(kind="length", target=3)
    score_rows(section, rows, context_of_run(config, None), SilentReporter(), as_policy=False)
    assert given == [14]
