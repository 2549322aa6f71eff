"""Reference of the configuration: what is said about a key is what the schema holds."""

from __future__ import annotations

import pytest

from pipelines.config import Config, load_config
from pipelines.config.reference import all_keys, find_key, values_at
from pipelines.config.yaml12 import parse_yaml
from pipelines.errors import UsageError


@pytest.mark.parametrize(
    ("dotted", "values", "default"),
    [
        ("ppo.kl_coef", "number ≥ 0", "0.05"),
        ("ppo.kl-coef", "number ≥ 0", "0.05"),
        ("run.threads", "integer ≥ 1, ≤ 4096 or null", "null"),
        ("data.eval_fraction", "number > 0, < 1", "0.1"),
        ("model.use_peft", "true or false", "false; on CUDA true"),
        ("ppo.learning_rate", "number > 0", "2e-06; with LoRA 2e-05"),
        ("sft.overlong", "drop | cut | fail", "drop"),
        ("reward.label_range", "list of 2 numbers or null", "null"),
        ("eval.policies", "list of base | sft | ppo | dpo | rloo | grpo | bon", '["base", "sft", "ppo"]'),
        ("feedback.label.questions.text", "text", '""'),
        ("data.comparisons.columns", "mapping to text", "{}"),
        ("data.comparisons.path", "text", None),
        ("ppo.reward.parts.weight", "number", "1.0"),
        ("model.scratch", "section", None),
    ],
)
def test_a_key(dotted: str, values: str, default: str | None) -> None:
    key = find_key(dotted)
    assert (key.values, key.default) == (values, default)


def test_every_default_reads_back_to_the_value_of_an_empty_configuration() -> None:
    config, compared = Config(), 0
    for key in all_keys():
        parent = key.key.rpartition(".")[0]
        if key.default is None or key.section or (parent and not isinstance(values_at(config, parent), dict)):
            continue
        assert values_at(config, key.key) == parse_yaml(key.default.partition("; ")[0], "default")[0], key.key
        compared += 1
    assert compared > 100


@pytest.mark.parametrize(
    ("dotted", "hint"),
    [
        ("kl_coef", "`ppo.kl_coef`"),
        ("learning_rate", "`reward.learning_rate`"),
        ("data.comparisons.wieght", "`data.comparisons.weight`"),
        ("ppo.kl_coef.x", "`ppo.kl_coef`"),
        ("", "run, model, data"),
    ],
)
def test_an_unknown_key_names_the_nearest(dotted: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_key(dotted)
    assert hint in str(caught.value.hint)


def test_the_values_of_list_entries() -> None:
    config = load_config(None, ["data.comparisons=[a.jsonl, {path: b.jsonl, weight: 2}]"])
    assert values_at(config, "data.comparisons.weight") == [1.0, 2.0]
    assert values_at(config, "data.task.name") is None


def test_only_keys_without_influence_on_results_are_marked() -> None:
    marked = {key.key for key in all_keys() if not key.affects_results}
    assert {"run.device", "run.report_to", "ppo.per_device_train_batch_size"} <= marked
    assert not marked & {"run.seed", "ppo.rollout_batch_size", "model.dtype"}
