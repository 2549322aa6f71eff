from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from pipelines.chain.table import stages_of
from pipelines.config import Config, load_config
from pipelines.config.load import dump_config
from pipelines.config.model_section import ModelSection, ScratchModel
from pipelines.data.chat import ChatEncoder
from pipelines.data.rows import Message
from pipelines.errors import ArtifactError, HubError, UsageError
from pipelines.models.base_record import _has_now, with_recorded_base
from pipelines.models.policies import open_tokenizer
from pipelines.models.scratch import CHAT_TEMPLATE, build_scratch, train_scratch_tokenizer
from pipelines.models.tokenizer import load_tokenizer, plain_template, reward_pad_id, reward_tokenizer
from tests.models.helpers import TINY
from tests.tiny import CHAT_TEMPLATE as TINY_TEMPLATE
from tests.tiny import CORPUS, tiny_tokenizer

DIALOGUE = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hello world"},
    {"role": "user", "content": "how are you"},
    {"role": "assistant", "content": "thank you"},
]


def saved(directory: Path, **kwargs: Any) -> Path:
    tiny_tokenizer(**kwargs).save_pretrained(directory)
    return directory


def test_own_template_is_kept(tmp_path: Path) -> None:
    assert load_tokenizer(saved(tmp_path), ModelSection()).chat_template == TINY_TEMPLATE


def test_plain_template_is_added_where_there_is_none(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, template=None), ModelSection())
    text = tokenizer.apply_chat_template(DIALOGUE[:3], tokenize=False)
    assert text == "be kind\n\nUser: hello\n\nAssistant: hello world</s>"
    assert len(tokenizer) == len(tiny_tokenizer()), "no token was added"


@pytest.mark.parametrize("template", [plain_template(tiny_tokenizer()), CHAT_TEMPLATE])
def test_templates_only_append_and_end_on_eos(template: str) -> None:
    tokenizer = tiny_tokenizer(template=template)
    whole = tokenizer.apply_chat_template(DIALOGUE, tokenize=False)
    assert whole.endswith(tokenizer.eos_token)
    for end in range(1, len(DIALOGUE)):
        assert whole.startswith(tokenizer.apply_chat_template(DIALOGUE[:end], tokenize=False))
        if DIALOGUE[end]["role"] == "assistant":
            assert whole.startswith(
                tokenizer.apply_chat_template(DIALOGUE[:end], tokenize=False, add_generation_prompt=True)
            )


def test_plain_template_begins_with_bos_where_the_tokenizer_would() -> None:
    class Adds(type(tiny_tokenizer())):  # type: ignore[misc]
        def __call__(self, text: str, **kwargs: Any) -> dict[str, list[int]]:
            return {"input_ids": [self.bos_token_id, 7]}

    tokenizer = tiny_tokenizer()
    assert not plain_template(tokenizer).startswith("{{ bos_token }}")
    tokenizer.bos_token = "<pad>"
    tokenizer.__class__ = Adds
    assert plain_template(tokenizer).startswith("{{ bos_token }}")


def test_none_and_file(tmp_path: Path) -> None:
    saved(tmp_path)
    assert load_tokenizer(tmp_path, ModelSection(chat_template="none")).chat_template is None
    (tmp_path / "my.jinja").write_text("{{ messages[0].content }}")
    section = ModelSection(chat_template=str(tmp_path / "my.jinja"))
    assert load_tokenizer(tmp_path, section).chat_template == "{{ messages[0].content }}"
    with pytest.raises(UsageError) as caught:
        load_tokenizer(tmp_path, ModelSection(chat_template=str(tmp_path / "not there.jinja")))
    assert caught.value.where == "model.chat_template"


def test_what_cannot_be_loaded_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_tokenizer(tmp_path / "nowhere", ModelSection())
    assert caught.value.where == str(tmp_path / "nowhere")
    with pytest.raises(ArtifactError):
        load_tokenizer(tmp_path, ModelSection())
    with pytest.raises(HubError):
        load_tokenizer("nobody/has-this-model", ModelSection())
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "endless")
    with pytest.raises(UsageError) as caught:
        load_tokenizer(tmp_path / "endless", ModelSection())
    assert caught.value.where == str(tmp_path / "endless")


def test_reward_pad_is_never_eos() -> None:
    assert reward_pad_id(tiny_tokenizer()) == 0
    for pad in (None, "</s>"):
        tokenizer = tiny_tokenizer(pad=pad)
        assert reward_pad_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|system|>")
        padded = reward_tokenizer(tokenizer)
        assert padded.pad_token_id == reward_pad_id(tokenizer) != padded.eos_token_id
        assert tokenizer.pad_token == pad, "the original is left alone"
        text = "hello world, thank you"
        assert padded(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_reward_pad_without_any_other_special_token() -> None:
    tokenizer = tiny_tokenizer(pad=None)
    tokenizer.extra_special_tokens = []
    tokenizer._extra_special_tokens = []
    assert set(tokenizer.all_special_ids) == {tokenizer.eos_token_id}
    pad = reward_pad_id(tokenizer)
    assert pad != tokenizer.eos_token_id
    assert tokenizer.convert_ids_to_tokens(pad).startswith("Ġ")
    text = " ".join(CORPUS)
    assert reward_tokenizer(tokenizer)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_scratch_tokenizer_is_deterministic_and_survives_saving(tmp_path: Path) -> None:
    scratch = ScratchModel.model_validate(TINY)
    first, second = (train_scratch_tokenizer(iter(CORPUS), scratch) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert len(first) <= scratch.vocab_size
    first.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = again.apply_chat_template(DIALOGUE[1:3], tokenize=False)
    assert text == "<|user|>hello<|assistant|>hello world<|end|>"
    ids = again(text)["input_ids"]
    assert [ids[0], ids[-1]] == again.convert_tokens_to_ids(["<|user|>", "<|end|>"])
    assert again.decode(again("naïve 日本 \n\t")["input_ids"]) == "naïve 日本 \n\t"
    assert (again.pad_token, again.eos_token, again.bos_token) == ("<|pad|>", "<|end|>", None)
    assert again.padding_side == "right"


def test_scratch_model_depends_on_its_seed_alone() -> None:
    scratch = ScratchModel.model_validate(TINY)
    tokenizer = train_scratch_tokenizer(CORPUS, scratch)
    before = torch.get_rng_state()
    first, same, other = (build_scratch(scratch, tokenizer, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert first.config.eos_token_id == tokenizer.eos_token_id
    assert first.config.vocab_size == len(tokenizer)


THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.mark.parametrize("template", [THINKING, "\n" + THINKING])
def test_values_of_a_template_hold_in_every_stage_and_where_it_is_served(tmp_path: Path, template: str) -> None:
    base = saved(tmp_path / "base", template=template)
    plain = load_tokenizer(base, ModelSection())
    section = ModelSection(chat_template_kwargs={"enable_thinking": False, "name": 'ü\'s "x"', "depth": 3, "no": None})
    tokenizer = load_tokenizer(base, section)
    expected = plain.apply_chat_template(DIALOGUE[1:2], add_generation_prompt=True, enable_thinking=False)["input_ids"]
    encoder = ChatEncoder(tokenizer)
    prompt = (Message(role="user", content="hello"),)
    assert encoder.prompt(prompt) == expected
    assert encoder.prompt(prompt) != ChatEncoder(plain).prompt(prompt)
    published = tmp_path / "sft" / "model"
    tokenizer.save_pretrained(published)
    (published / "config.json").write_text("{}")
    served = AutoTokenizer.from_pretrained(published)
    assert served.apply_chat_template(DIALOGUE[1:2], add_generation_prompt=True)["input_ids"] == expected
    as_asked = served.apply_chat_template(DIALOGUE[1:2], add_generation_prompt=True, enable_thinking=True)["input_ids"]
    assert as_asked == ChatEncoder(plain).prompt(prompt)
    again = open_tokenizer(tmp_path / "sft", section)
    assert again.chat_template == tokenizer.chat_template


def test_all_kinds_of_value_reach_the_template(tmp_path: Path) -> None:
    values: dict[str, Any] = {"a": True, "b": 3, "c": 0.5, "d": 'ü\'s "x" {{ b }}\n', "e": None}
    template = "{{ [a, b, c, d, e] | tojson }}{{ messages[0].content }}"
    tokenizer = load_tokenizer(saved(tmp_path, template=template), ModelSection(chat_template_kwargs=values))
    text = tokenizer.apply_chat_template(DIALOGUE[1:2], tokenize=False)
    assert json.loads(text.removesuffix("hello")) == list(values.values())


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "not a name", "a-b"])
def test_the_dialogue_is_no_value_of_a_template(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ModelSection(chat_template_kwargs={name: True})


def test_a_run_without_values_of_a_template_is_recorded_as_before() -> None:
    assert "chat_template_kwargs" not in ModelSection().results_view()
    assert ModelSection(chat_template_kwargs={"x": 1}).results_view()["chat_template_kwargs"] == {"x": 1}


LLAMA_3_2 = (  # the part of it that asks for the time
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    '{% set date_string = strftime_now("%d %b %Y") %}{% else %}{% set date_string = "26 Jul 2024" %}{% endif %}'
    "{% endif %}"
    "Today Date: {{ date_string }} {{ strftime_now('%Y-%m-%d') }}" + TINY_TEMPLATE
)


def on_day(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime.fromisoformat(day)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)


def test_a_template_writes_the_day_of_the_run_whatever_day_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = saved(tmp_path / "base", template=LLAMA_3_2)
    prompt = (Message(role="user", content="hello"),)
    ids = []
    for day in ("2026-11-27", "2027-01-02"):
        on_day(monkeypatch, day)
        tokenizer = load_tokenizer(base, ModelSection().on("2026-11-26"))
        ids.append(ChatEncoder(tokenizer).prompt(prompt))
    assert ids[0] == ids[1]
    assert tokenizer.decode(ids[0]).startswith("Today Date: 26 Nov 2026 2026-11-26")
    assert ChatEncoder(load_tokenizer(base, ModelSection())).prompt(prompt) != ids[0]
    # and where it is published
    tokenizer.save_pretrained(tmp_path / "published")
    served = AutoTokenizer.from_pretrained(tmp_path / "published")
    turns = [{"role": "user", "content": "hello"}]
    assert served.apply_chat_template(turns, add_generation_prompt=True)["input_ids"] == ids[0]


@pytest.mark.parametrize(
    ("call", "written"),
    [
        ('strftime_now("%d" ~ " %Y")', "07 2026"),
        ('strftime_now("%d %b" if add_generation_prompt else "%Y")', "07 Nov"),
        ("strftime_now ( '%d.%m.%Y' )", "07.11.2026"),
        ("strftime_now(format='%Y-%m-%d')", "2026-11-07"),
        ("strftime_now(style)", "7 November"),
        ("strftime_now('the day\\'s %Y\\n')", "the day's 2026\n"),
        ("strftime_now('%d 100%%') if strftime_now is defined", "07 100%"),
    ],
)
def test_a_template_may_ask_for_the_time_in_any_form(tmp_path: Path, call: str, written: str) -> None:
    template = "{% set style = '%-d %B' %}{% macro dated() %}{{ " + call + " }}{% endmacro %}{{ dated() }}"
    tokenizer = load_tokenizer(saved(tmp_path / "base", template=template), ModelSection().on("2026-11-07"))
    turns = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == written


def test_a_template_whose_file_is_gone_makes_no_stage_stale(tmp_path: Path) -> None:
    base, file = saved(tmp_path / "base"), tmp_path / "dated.jinja"
    file.write_text(LLAMA_3_2)
    stage = {stage.name: stage for stage in stages_of(Config())}["ppo"]
    flags = {"model.name_or_path": str(base), "model.chat_template": str(file), "run.date": "2026-11-26"}
    before = stage.section(load_config(None, (), flags))
    assert before["date"] == "2026-11-26"
    other = stage.section(load_config(None, (), flags | {"run.date": "2026-11-27"}))
    assert with_recorded_base(other, tmp_path, before) != before
    (tmp_path / "moved").mkdir()
    file.rename(tmp_path / "moved" / "dated.jinja")
    _has_now.cache_clear()
    assert with_recorded_base(stage.section(load_config(None, (), flags)), tmp_path, before) == before


@pytest.mark.parametrize(
    "other",
    [
        {"reward.base": "DATED"},
        {"ppo.reward": {"kind": "classifier", "path": "DATED"}},
        {"eval.scorers": [{"kind": "sum", "parts": [{"kind": "classifier", "path": "DATED"}]}]},
        {"feedback.sample.models": [{"model": "DATED", "num_completions": 2}]},
    ],
)
def test_the_day_counts_where_another_model_of_the_run_writes_it(tmp_path: Path, other: dict[str, Any]) -> None:
    base, dated = saved(tmp_path / "base"), saved(tmp_path / "dated", template=LLAMA_3_2)
    other = json.loads(json.dumps(other).replace("DATED", str(dated)))
    config = load_config(None, (), {"model.name_or_path": str(base), "run.date": "2026-11-26"} | other)
    assert {stage.name: stage for stage in stages_of(config)}["reward"].section(config)["date"] == "2026-11-26"


def test_the_day_of_a_run_is_recorded_and_counts_only_where_the_template_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Today(datetime.date):
        @classmethod
        def today(cls) -> Today:
            return cls(2026, 11, 26)

    monkeypatch.setattr("pipelines.config.load.datetime.date", Today)
    sft = {stage.name: stage for stage in stages_of(Config())}["sft"]
    plain, dated = (saved(tmp_path / name, template=text) for name, text in (("a", TINY_TEMPLATE), ("b", LLAMA_3_2)))
    for base, day in ((plain, None), (dated, "2026-11-26")):
        config = load_config(None, (), {"model.name_or_path": str(base)}, for_training=True)
        assert config.run.date == "2026-11-26"
        assert sft.section(config).get("date") == day
        # the day after, the run goes on with its own; a run of before there was one is no older for it
        (tmp_path / "config.yaml").write_text(dump_config(config))
        monkeypatch.setattr(Today, "today", classmethod(lambda cls: cls(2026, 11, 27)))
        again = load_config(
            None, (), {"model.name_or_path": str(base)}, recorded=tmp_path / "config.yaml", for_training=True
        )
        assert again.run.date == "2026-11-26"
        assert again.model.date == "2026-11-26"
        before = {key: value for key, value in sft.section(config).items() if key != "date"}
        assert with_recorded_base(sft.section(again), tmp_path, before) == before
        monkeypatch.setattr(Today, "today", classmethod(lambda cls: cls(2026, 11, 26)))


def test_what_is_no_day_is_refused() -> None:
    with pytest.raises(UsageError, match="a day such as 2026-11-27"):
        load_config(None, ["run.date=27.11.2026"])
