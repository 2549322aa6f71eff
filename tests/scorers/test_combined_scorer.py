"""Sums, ensembles and the simple rules that stand in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from pipelines.config import Config
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.rows import Message
from pipelines.errors import ArtifactError
from pipelines.scorers import Completion, ScorerWithParts, load_scorer
from pipelines.scorers.combined import CombinedScorer, Part, weighted_sum
from pipelines.scorers.protocol import counts_of
from tests.tiny import save_pair, tiny_bert, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
PROMPTS = [(Message(role="user", content="how are you today"),)] * 3
COMPLETIONS = [
    Completion("a b c a b c a b c", (5,) * 12, True),
    Completion("thank you", (5,) * 8, True),
    Completion("", (1,), True),
]


@dataclass(frozen=True)
class Context:
    config: Config = field(default_factory=Config)
    inputs: Mapping[str, Path] = field(default_factory=dict)


@pytest.fixture(autouse=True)
def rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("rewards_of_test")
    module.words = lambda prompts, completions: [len(text.split()) for text in completions]
    module.ones = lambda prompts, completions: [1.0] * len(completions)
    monkeypatch.setitem(sys.modules, "rewards_of_test", module)
    module.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec("rewards_of_test", None)


def made(section: dict[str, Any], context: Context | None = None, **kwargs: Any) -> Any:
    return load_scorer(ScorerSection.model_validate(section), context or Context(), CPU, **kwargs)


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "function", "function": f"rewards_of_test:{name}", **more}


def test_length_costs_the_excess_as_a_share_of_the_target():
    assert made({"kind": "length", "target": 8})(PROMPTS, COMPLETIONS) == [-0.5, 0.0, 0.0]


def test_repetition_is_the_share_of_ngrams_that_came_before():
    # 7 trigrams, of which abc, bca and cab are new and 4 are repeated
    assert made({"kind": "repetition"})(PROMPTS, COMPLETIONS) == [pytest.approx(-4 / 7), 0.0, 0.0]
    assert made({"kind": "repetition", "ngram": 1})(PROMPTS, COMPLETIONS)[0] == pytest.approx(-6 / 9)


def test_where_there_are_no_blanks_characters_are_repeated():
    def repeated(text: str) -> float:
        (score,) = made({"kind": "repetition"})(PROMPTS[:1], [Completion(text, (1,), True)])
        return score

    assert repeated("\u4f60\u597d\u5417\u4f60\u597d\u5417") == pytest.approx(-1 / 4)
    assert repeated("\u0e01\u0e02\u0e04 \u0e01\u0e02\u0e04") == pytest.approx(-1 / 4)  # of 4, the last came before
    assert repeated("ha" * 40) == pytest.approx(-76 / 78)
    assert repeated("ha" * 20) == 0  # one word
    assert repeated("na\u00efve d\u00e9j\u00e0 vu na\u00efve d\u00e9j\u00e0 vu") == pytest.approx(-1 / 4)


def test_a_sum_weighs_its_parts_and_shows_them_without_weight():
    told: list[int] = []
    parts = [function("words"), {"kind": "length", "target": 8, "weight": 4.0}, function("ones", weight=-2.0)]
    scorer = made({"kind": "sum", "parts": parts}, progress=told.append)
    assert isinstance(scorer, ScorerWithParts)
    scores, seen = scorer.with_parts(PROMPTS, COMPLETIONS)
    assert scores == [9 - 2 - 2, 2 - 2, 0 - 2] == scorer(PROMPTS, COMPLETIONS)
    assert seen == {"words": [9.0, 2.0, 0.0], "length": [-0.5, 0.0, 0.0], "ones": [1.0, 1.0, 1.0]}
    assert sum(told) == 2 * 3


def test_an_ensemble_takes_the_deviation_off_the_mean():
    scorer = made({"kind": "ensemble", "deviations": 0.5, "parts": [function("words"), function("ones")]})
    assert scorer(PROMPTS, COMPLETIONS) == [5 - 0.5 * 4, 1.5 - 0.5 * 0.5, 0.5 - 0.5 * 0.5]


def test_parts_of_one_name_are_told_apart_and_combinations_nest():
    inner = {"kind": "ensemble", "parts": [function("words"), function("words")]}
    scorer = made({"kind": "sum", "parts": [inner, function("ones"), function("ones")]})
    scores, parts = scorer.with_parts(PROMPTS, COMPLETIONS)
    assert list(parts) == ["ensemble", "ones", "ones-2", "ensemble/words", "ensemble/words-2"]
    assert scores == [11.0, 4.0, 2.0]


def test_no_part_is_lost_where_a_number_makes_a_name_that_another_has():
    parts = [function(of) | {"name": name} for of, name in (("ones", "a"), ("words", "a"), ("ones", "a-2"))]
    scores, seen = made({"kind": "sum", "parts": parts}).with_parts(PROMPTS, COMPLETIONS)
    assert list(seen) == ["a", "a-3", "a-2"]
    assert scores == [11.0, 4.0, 2.0]


def test_scores_of_parts_are_kept_by_place_and_not_by_name():
    one = made(function("ones"))
    scorer = CombinedScorer("sum", [Part(one), Part(one)], weighted_sum([1.0, 3.0]))
    assert scorer(PROMPTS, COMPLETIONS) == [4.0, 4.0, 4.0]


def test_cut_texts_of_parts_are_counted(tmp_path: Path):
    tokenizer = tiny_tokenizer(template=None)
    tokenizer.model_max_length = 12
    save_pair(tiny_bert(tokenizer), tokenizer, tmp_path / "bert")
    scorer = made({"kind": "sum", "parts": [{"kind": "classifier", "path": str(tmp_path / "bert")}, function("ones")]})
    scorer(PROMPTS, [Completion("the dog looked at the cat " * 9, (), True), *COMPLETIONS[1:]])
    assert scorer.truncated == 1
    assert counts_of(scorer) == {"bert/truncated": 1, "truncated": 1}


@pytest.fixture
def run(tmp_path: Path) -> Context:
    tokenizer = tiny_tokenizer()
    config = tiny_llama(tokenizer).config
    config.num_labels = 1
    model = LlamaForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.score.weight)
    save_pair(model, tokenizer, tmp_path / "reward" / "model")
    return Context(inputs={"reward": tmp_path / "reward"})


def test_the_runs_model_in_a_sum_is_brought_to_unit_scale_unless_told_otherwise(run: Context):
    raw = made({"kind": "run"}, run)(PROMPTS, COMPLETIONS)
    (run.inputs["reward"] / "model" / "normalization.json").write_text(json.dumps({"mean": 2.0, "std": 4.0}))
    scaled = made({"kind": "sum", "parts": [{"kind": "run"}]}, run)
    assert scaled(PROMPTS, COMPLETIONS) == pytest.approx([(score - 2) / 4 for score in raw])
    assert scaled.with_parts(PROMPTS, COMPLETIONS)[1] == {"reward_model": scaled(PROMPTS, COMPLETIONS)}
    plain = made({"kind": "sum", "parts": [{"kind": "run", "normalize": False}]}, run)
    assert plain(PROMPTS, COMPLETIONS) == pytest.approx(raw)


def test_a_scale_that_is_gone_is_an_artifact_error(run: Context):
    with pytest.raises(ArtifactError, match=r"scale.*cannot be read"):
        made({"kind": "sum", "parts": [{"kind": "run"}]}, run)
