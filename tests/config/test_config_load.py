"""The configuration file: YAML 1.2, precedence, messages with a place, and the round trip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.config import Config, dump_config, explain_config, load_config
from pipelines.config.reference import OTHER_NAMES, all_keys
from pipelines.config.yaml12 import parse_yaml
from pipelines.errors import UsageError

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str, *sets: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load_config(write(tmp_path, text), sets)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2026-11-21", "2026-11-21"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("<<", "<<"),
        ("'1e5'", "1e5"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    data, _ = parse_yaml(f"key: {text}", "my.yaml")
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "my.yaml:3", "stands twice"),
        ("a: [1\nb: 2\n", "my.yaml:2", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "my.yaml:1", "not valid YAML"),
        ("a: !!timestamp 2026-11-21\n", "my.yaml:1", "not valid YAML"),
        ("a: !!int word\n", "my.yaml", "not valid YAML"),
        ("a: \x07\n", "my.yaml", "not valid YAML"),
        ("a: &x\n  b: *x\n", "my.yaml:2", "refers to itself"),
        ("a: 1\n---\nb: 2\n", "my.yaml:2", "not valid YAML"),
    ],
)
def test_broken_yaml_names_its_line(text: str, where: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_yaml(text, "my.yaml")
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("text", "where", "message", "hint"),
    [
        ("sft:\n  enabled: true\n  learning_rat: 1\n", "my.yaml:3", "unknown key `sft.learning_rat`", "learning_rate"),
        ("pppo: {}\n", "my.yaml:1", "unknown key `pppo`", "`ppo`"),
        ("model:\n  scratch:\n    hiden_size: 8\n", "my.yaml:3", "model.scratch.hiden_size", "hidden_size"),
        ("data:\n  prompts:\n  - path: a\n  - pth: b\n", "my.yaml:4", "data.prompts.1", "path"),
        ("ppo:\n  kl_coef: '0.1'\n", "my.yaml:2", "`ppo.kl_coef`: should be a valid number (got '0.1')", None),
        ("ppo:\n  kl_coef: -1\n", "my.yaml:2", "greater than or equal to 0", None),
        ("ppo:\n  kl_coef: .inf\n", "my.yaml:2", "finite", None),
        ("ppo:\n  total_episodes: 1e5\n", "my.yaml:2", "integer", None),
        ("sft:\n  enabled: 1\n", "my.yaml:2", "boolean", None),
        ("sft: 3\n", "my.yaml:1", "`sft`: should be a mapping of keys (got 3)", None),
        (
            "ppo:\n  reward:\n    kind: classifier\n    path: x\n    label: 1.5\n",
            "my.yaml:5",
            "`ppo.reward.label`",
            None,
        ),
        ("feedback:\n  label:\n    questions: [{name: comment}]\n", "my.yaml:3", "question another name", None),
        ("- 1\n", "my.yaml", "mapping of sections", None),
        ("ppo:\n  rollout_batch_size: 10\n", "my.yaml:1", "not a multiple", None),
    ],
)
def test_a_fault_names_place_and_remedy(tmp_path: Path, text: str, where: str, message: str, hint: str | None) -> None:
    error = refusal(tmp_path, text)
    assert (error.where, error.exit_code) == (f"{tmp_path}/{where}", 2)
    assert message in error.message
    assert hint is None or hint in (error.hint or "")


def test_several_faults_are_counted(tmp_path: Path) -> None:
    error = refusal(tmp_path, "ppo:\n  kl_coef: -1\n  gamma: 2\nmodel:\n  lora_target_modules: 3\n")
    assert "and 2 more" in error.message


def test_a_fault_of_set_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    error = refusal(tmp_path, "ppo:\n  gamma: 0.9\n", "ppo.kl_coeff=0.1")
    assert error.where == "--set ppo.kl_coeff"
    error = refusal(tmp_path, "ppo:\n  gamma: 0.9\n", "ppo.gamma=two")
    assert error.where == "--set ppo.gamma"


@pytest.mark.parametrize("entry", ["ppo.kl_coef", "=3", "ppo..kl_coef=1", "ppo.gamma.x=1"])
def test_set_wants_a_key_and_a_value(tmp_path: Path, entry: str) -> None:
    assert refusal(tmp_path, "ppo:\n  gamma: 0.9\n", entry).exit_code == 2


def test_precedence(tmp_path: Path) -> None:
    path = write(tmp_path, "ppo:\n  kl_coef: 0.2\n  gamma: 0.9\n  lam: 0.8\n")
    config = load_config(path, ["ppo.gamma=0.7", "ppo.lam=0.6"], {"ppo.lam": 0.5, "model.name_or_path": "m"})
    assert Config().ppo.kl_coef == 0.05
    assert (config.ppo.kl_coef, config.ppo.gamma, config.ppo.lam) == (0.2, 0.7, 0.5)


def test_a_flag_can_set_null(tmp_path: Path) -> None:
    path = write(tmp_path, "data:\n  task: {name: support}\n  comparisons: a.jsonl\n")
    assert load_config(path, (), {"data.task": None}).data.task is None


def test_set_reads_yaml_and_takes_dashes() -> None:
    config = load_config(None, ["ppo.kl-coef=1e-3", "run.report_to=[wandb]", "ppo.reward-clip=", "sft.packing=true"])
    assert (config.ppo.kl_coef, config.run.report_to, config.ppo.reward_clip) == (1e-3, ["wandb"], None)
    assert config.sft.packing is True


def test_aliased_sections_are_not_one_object(tmp_path: Path) -> None:
    path = write(tmp_path, "sft: &t\n  learning_rate: 0.1\nreward: *t\n")
    config = load_config(path, ["sft.learning_rate=0.2"])
    assert (config.sft.learning_rate, config.reward.learning_rate) == (0.2, 0.1)


def test_an_empty_file_or_section_means_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing\n")) == Config()
    assert load_config(write(tmp_path, "sft:\n  # packing: true\ndata:\n  prompts:\n")) == Config()
    assert load_config(write(tmp_path, "\ufeffppo:\n  gamma: 0.5\n")).ppo.gamma == 0.5


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such configuration"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "bytes.yaml")


@pytest.mark.parametrize("word", ["1e5", "no", "true", "null", "~", "", "12:30", "0x1f", "ä: #ö", "- a", "a\nb", "1.0"])
def test_dump_reads_back_to_the_same(tmp_path: Path, word: str) -> None:
    config = Config.model_validate(
        {
            "model": {"name_or_path": word},
            "sft": {"trainer": {word or "k": word, "list": [1, 1e-7, True, None]}, "learning_rate": 1e-5},
            "data": {"prompts": [{"path": word, "columns": {"prompt": word}}]},
        }
    )
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_sections_must_agree(tmp_path: Path) -> None:
    assert "reward.enabled" in refusal(tmp_path, "reward:\n  enabled: false\n").message
    assert "gold" in refusal(tmp_path, "eval:\n  scorers:\n  - kind: gold\n").message
    assert "sft.enabled" in refusal(tmp_path, "model:\n  init: scratch\nsft:\n  enabled: false\n").message


def test_cosmetic_values_stay_out_of_the_results_view() -> None:
    view = load_config(None, ["run.threads=2"]).run.results_view()
    assert view == {"seed": 0}
    assert "per_device_train_batch_size" not in Config().ppo.results_view()
    assert "batch_size" not in Config().ppo.reward.results_view()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_parse(path: Path) -> None:
    config = load_config(path)
    assert config == load_config(path)
    assert path.read_text(encoding="utf-8").startswith("#"), "its first comment is what `rlhf init --list` shows"


def test_a_key_of_a_mapping_is_named_as_the_file_names_it() -> None:
    with pytest.raises(UsageError) as caught:
        load_config(None, ["data.prompts={path: a, tags: {role: x}}"])
    assert caught.value.message.startswith("`data.prompts.0.tags.role`: should be 'role_tag'")


def test_the_explained_configuration_describes_every_key_and_reads_back(tmp_path: Path) -> None:
    config = load_config(SHIPPED[0])
    text = explain_config(config)
    assert load_config(write(tmp_path, text)) == config
    lines = text.splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r" *\w+:", line)]
    sections = [Config, *(field.annotation for field in Config.model_fields.values())]
    assert all(lines[number - 1].lstrip().startswith("#") for number in keys if not lines[number].startswith("    "))
    assert all(field.description for section in sections for field in section.model_fields.values())


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ("trainer.foo=1", "--set trainer.foo"),
        ("a.b.c=1", "--set a.b.c"),
        ("ppo.reward.kind=http", "--set ppo.reward.kind"),
        ("sft.max_length=x", "--set sft.max_length"),
    ],
)
def test_a_fault_of_an_option_is_not_that_of_the_file(tmp_path: Path, entry: str, where: str) -> None:
    assert refusal(tmp_path, "run:\n  seed: 1\n", entry).where == where
    assert str(refusal(tmp_path, "trainer:\n  bar: 1\n", "trainer.foo=1").where).endswith("my.yaml:1")


def test_a_fault_between_sections_names_the_file_and_the_options(tmp_path: Path) -> None:
    error = refusal(tmp_path, "model: {init: scratch}\n", "sft.enabled=false")
    assert error.where == f"{tmp_path / 'my.yaml'}, --set sft.enabled"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("model_name_or_path", "`model.name_or_path`"),
        ("model.model_name_or_path", "`model.name_or_path`"),
        ("learning_rate", "`sft.learning_rate`, `reward.learning_rate`, `ppo.learning_rate`"),
        ("report_to", "`run.report_to`"),
        ("output_dir", "`run.dir`"),
        ("lora_rank", "`model.lora_r`"),
        ("model.lora_rank", "`model.lora_r`"),
        ("cutoff_len", "`sft.max_length`"),
        ("sft.max_seq_length", "`sft.max_length`?"),
        ("ppo.beta", "`ppo.kl_coef`"),
        ("sft.seed", "`run.seed`"),
        ("trainer", "`sft.trainer`"),
        ("rewards", "`reward`"),
        ("batch_size", "`sft.per_device_train_batch_size`"),
        ("ppo.kl_coeff", "`ppo.kl_coef`"),
    ],
)
def test_a_key_of_another_program_is_told_as_it_is_called_here(tmp_path: Path, key: str, meant: str) -> None:
    assert meant in str(refusal(tmp_path, "", f"{key}=1").hint)


def test_the_other_names_lead_to_keys() -> None:
    known = {key.key for key in all_keys()}
    assert {key for keys in OTHER_NAMES.values() for key in keys} <= known


@pytest.mark.parametrize(
    ("value", "trackers"),
    [
        ("tensorboard", ["tensorboard"]),
        ("[tensorboard]", ["tensorboard"]),
        ("tensorboard,wandb", ["tensorboard", "wandb"]),
        ("none", []),
    ],
)
def test_trackers_need_no_brackets(value: str, trackers: list[str]) -> None:
    config = load_config(None, [f"run.report_to={value}"])
    assert config.run.report_to == trackers
    assert parse_yaml(dump_config(config), "x")[0]["run"]["report_to"] == trackers


def test_one_entry_is_a_list_of_it() -> None:
    sets = ["eval.policies=sft", "ppo.stop_tokens=END", "eval.scorers={kind: function, function: 'a:b'}"]
    config = load_config(None, sets)
    assert (config.eval.policies, config.ppo.stop_tokens) == (["sft"], ["END"])
    assert [scorer.function for scorer in config.eval.scorers] == ["a:b"]
    with pytest.raises(UsageError, match="policies"):
        load_config(None, ["eval.policies=3"])


def test_a_file_of_another_program_gets_all_its_keys_told(tmp_path: Path) -> None:
    error = refusal(tmp_path, "stage: ppo\nmodel_name_or_path: x\nlora_rank: 8\nlearning_rate: 1e-5\nmystery: 1\n")
    assert str(error.where).endswith("my.yaml:1")
    hint = str(error.hint)
    for words in ("known keys here", "`model_name_or_path` is `model.name_or_path`", "`lora_rank` is `model.lora_r`"):
        assert words in hint
    assert "mystery" not in hint
