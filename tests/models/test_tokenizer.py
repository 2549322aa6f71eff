from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from pipelines.config.model_section import ModelSection, ScratchModel
from pipelines.errors import ArtifactError, HubError, UsageError
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
