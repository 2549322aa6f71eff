"""What a kind of scorer takes, and what of it is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.config import Config, dump_config, load_config
from pipelines.config.scorer_section import ScorerSection
from pipelines.errors import UsageError

CLASSIFIER = {"kind": "classifier", "path": "a/b"}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"kind": "http"}, "needs `url`"),
        ({"kind": "length"}, "needs `target`"),
        ({"kind": "sum"}, "needs `parts`"),
        ({"kind": "run", "label": 1}, "run takes no `label`"),
        ({"kind": "function", "function": "a:b", "lower_is_better": True}, "function takes no `lower_is_better`"),
        ({"kind": "length", "target": 5, "ngram": 2}, "length takes no `ngram`"),
        ({"kind": "ensemble", "parts": [CLASSIFIER]}, "at least two"),
        ({"kind": "ensemble", "parts": [CLASSIFIER, {**CLASSIFIER, "weight": 2.0}]}, "no `weight`"),
        ({"kind": "sum", "parts": [{**CLASSIFIER, "normalize": False}]}, "only the run's reward model"),
        ({"kind": "length", "target": 5, "weight": 2.0}, "weight"),
        ({"kind": "http", "url": "ftp://host/x"}, "must be an address"),
        ({"kind": "http", "url": "http:///x"}, "must be an address"),
        ({"kind": "http", "url": "http://host:port/x"}, "must be an address"),
    ],
)
def test_what_does_not_fit_is_refused(section: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        ScorerSection.model_validate(section)


def test_a_secret_in_the_address_is_refused_and_not_shown():
    with pytest.raises(UsageError, match="token_env") as caught:
        load_config(None, ["ppo.reward={kind: http, url: 'http://me:s3cret@host/x'}"])
    assert "s3cret" not in str(caught.value.as_dict())


def test_only_what_the_kind_takes_is_recorded():
    assert ScorerSection().results_view() == {"kind": "run"}
    view = ScorerSection.model_validate({**CLASSIFIER, "lower_is_better": True}).results_view()
    assert view == {**CLASSIFIER, "revision": None, "label": None, "output": "logit", "lower_is_better": True}
    parts = [{"kind": "length", "target": 9, "weight": -0.5}]
    view = ScorerSection.model_validate({"kind": "sum", "parts": parts}).results_view()
    assert view == {"kind": "sum", "parts": [{"kind": "length", "target": 9, "weight": -0.5, "normalize": True}]}


def test_gold_may_not_train_as_a_part_either():
    gold = "ppo.reward={kind: sum, parts: [{kind: run}, {kind: ensemble, parts: [{kind: gold}, {kind: run}]}]}"
    with pytest.raises(UsageError, match="gold scorer judges"):
        load_config(None, ["data.task={name: support}", gold])


def test_the_runs_model_as_a_part_needs_the_reward_stage():
    with pytest.raises(UsageError, match=r"reward\.enabled is false"):
        load_config(None, ["reward.enabled=false", "ppo.reward={kind: sum, parts: [{kind: run}]}"])


def test_a_combination_survives_being_written_and_read(tmp_path: Any):
    reward = {"kind": "sum", "parts": [{"kind": "run"}, {"kind": "repetition", "weight": 0.5}]}
    config = Config.model_validate({"ppo": {"reward": reward}, "data": {"task": {}}})
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    ("sections", "enabled"),
    [
        ({}, True),
        ({"ppo": {"reward": CLASSIFIER}}, False),
        ({"ppo": {"reward": {"kind": "function", "function": "a:b"}}, "reward": {"learning_rate": 1e-3}}, False),
        ({"ppo": {"reward": {"kind": "sum", "parts": [CLASSIFIER, {"kind": "run"}]}}}, True),
        ({"ppo": {"reward": {"kind": "sum", "parts": [CLASSIFIER]}}}, False),
        ({"ppo": {"reward": CLASSIFIER}, "reward": {"enabled": True}}, True),
        ({"ppo": {"reward": CLASSIFIER}, "eval": {"scorers": [{"kind": "run"}]}}, True),
        ({"ppo": {"reward": CLASSIFIER}, "eval": {"scorers": [CLASSIFIER]}}, False),
        ({"ppo": {"reward": CLASSIFIER}, "feedback": {"source": "human"}}, True),
        ({"ppo": {"reward": CLASSIFIER, "enabled": False}, "eval": {"enabled": False}}, True),
        ({"reward": {"enabled": False}, "ppo": {"reward": CLASSIFIER}}, False),
    ],
)
def test_an_outside_reward_switches_the_reward_stage_off(
    tmp_path: Path, sections: dict[str, Any], enabled: bool
) -> None:
    config = Config.model_validate(sections)
    assert config.reward.enabled is enabled
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml").reward == config.reward
