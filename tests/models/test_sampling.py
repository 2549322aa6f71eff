from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

from pipelines.errors import UsageError
from pipelines.models.generate import end_token_ids, sample
from pipelines.models.sequence_scores import pad_left, pad_right, pool_last, position_ids, score_ids
from tests.models.helpers import outside_base
from tests.models.test_adapters import CPU, carrier, section
from tests.tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

EOS = 1
PROMPTS = [[3, 20, 21, 4], [3, 4], [3, 30, 31, 32, 33, 34, 4], [5]]
both = pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])


def draw(model: Any, prompts: list[list[int]] = PROMPTS, **kwargs: Any) -> list[list[int]]:
    wanted = {"max_new_tokens": 6, "temperature": 1.0, "eos_token_id": EOS, "batch_size": 2, "seed": 0}
    return sample(model, prompts, **wanted | kwargs)


@both
def test_frequencies_are_those_of_the_softmax(make: Any) -> None:
    """Whatever the model's own generation config says."""
    model = make(tiny_tokenizer()).eval()
    model.generation_config = GenerationConfig(
        do_sample=True, top_k=2, top_p=0.5, min_p=0.2, repetition_penalty=2.0, eos_token_id=[1, 7], min_new_tokens=4
    )
    own = model.generation_config
    for temperature in (1.0, 0.7):
        drawn = draw(model, [[3, 20, 21, 4]] * 6000, max_new_tokens=1, temperature=temperature, batch_size=3000)
        counts = torch.bincount(torch.tensor([row[0] for row in drawn]), minlength=len(tiny_tokenizer())) / 6000
        with torch.no_grad():
            expected = (model(input_ids=torch.tensor([[3, 20, 21, 4]])).logits[0, -1] / temperature).softmax(-1)
        assert float((counts - expected).abs().max()) < 0.03
        assert int((counts > 0).sum()) > 100
    assert model.generation_config is own


@both
def test_padding_does_not_move_the_distribution(make: Any) -> None:
    model = make(tiny_tokenizer()).eval()
    ids, mask = pad_left(PROMPTS, CPU)
    together = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits[:, -1]
    for index, prompt in enumerate(PROMPTS):
        alone = model(input_ids=torch.tensor([prompt])).logits[0, -1]
        assert torch.allclose(together[index], alone, atol=1e-4)
    nearly_greedy = {"temperature": 1e-4, "max_new_tokens": 5}
    assert draw(model, batch_size=4, **nearly_greedy) == [draw(model, [p], **nearly_greedy)[0] for p in PROMPTS]


def test_a_response_ends_on_eos_or_at_the_limit() -> None:
    responses = draw(tiny_llama(tiny_tokenizer()), [[3, 4]] * 300, max_new_tokens=40, batch_size=150)
    finished = [row for row in responses if row[-1] == EOS]
    assert 0 < len(finished) < 300
    assert all(row.count(EOS) <= 1 for row in responses)
    assert all(len(row) == 40 for row in responses if row[-1] != EOS)


def test_a_response_ends_on_any_stop_token() -> None:
    model = tiny_llama(tiny_tokenizer())
    stops = (EOS, 50, 120)
    responses = draw(model, [[3, 4]] * 300, max_new_tokens=40, batch_size=150, eos_token_id=stops)
    assert {row[-1] for row in responses if len(row) < 40} == set(stops)
    assert all(token not in stops for row in responses for token in row[:-1])


def test_stop_tokens_are_ids_of_the_tokenizer() -> None:
    tokenizer = tiny_tokenizer(more=("<|im_end|>",))
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    newline = tokenizer.convert_tokens_to_ids("Ċ")
    assert end_token_ids(nn.Module(), tokenizer, []) == (EOS,)
    assert end_token_ids(nn.Module(), tokenizer, ["<|im_end|>", "\n", "</s>", "Ċ"]) == (EOS, turn, newline)
    for wrong in ("<|eot|>", "", "hello world"):
        with pytest.raises(UsageError, match="is not one token") as refused:
            end_token_ids(nn.Module(), tokenizer, ["\n", wrong])
        assert repr(wrong) in refused.value.message
        assert refused.value.where == "ppo.stop_tokens"


def test_a_word_that_the_tokenizer_does_not_know_is_no_stop_token() -> None:
    raw = Tokenizer(WordLevel({"a": 0, "<unk>": 1, "</s>": 2}, unk_token="<unk>"))
    words = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    assert end_token_ids(nn.Module(), words, ["a"]) == (2, 0)
    with pytest.raises(UsageError, match="'b'"):
        end_token_ids(nn.Module(), words, ["b"])


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}])
def test_a_cut_leaves_the_likeliest_tokens(cut: dict[str, Any]) -> None:
    model = tiny_llama(tiny_tokenizer()).eval()
    with torch.no_grad():
        likeliest = int(model(input_ids=torch.tensor([[3, 4]])).logits[0, -1].argmax())
    assert draw(model, [[3, 4]] * 50, max_new_tokens=1, batch_size=50, temperature=5.0, **cut) == [[likeliest]] * 50


def test_seed_order_and_state() -> None:
    model = tiny_llama(tiny_tokenizer()).train()
    model.model.layers[0].eval()
    before = torch.get_rng_state()
    done: list[int] = []
    first = draw(model, on_batch=done.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert draw(model) == first != draw(model, seed=1)
    assert done == [2, 2]
    assert model.training
    assert not model.model.layers[0].training
    torch.manual_seed(5)
    unseeded = draw(model, seed=None)
    torch.manual_seed(5)
    assert draw(model, seed=None) == unseeded
    with pytest.raises(ValueError, match="no tokens"):
        draw(model, [[]])


def test_state_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama(tiny_tokenizer()).train()
    own = model.generation_config
    monkeypatch.setattr(model, "forward", lambda **kwargs: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        draw(model)
    assert model.training
    assert model.generation_config is own


def test_the_active_adapter_answers(tmp_path: Path) -> None:
    from pipelines.models.adapters import adapter

    carried = carrier(section(outside_base(tmp_path)), "policy", "value")
    answers = {}
    for name in ("policy", "value", None):
        with adapter(carried, name):
            answers[name] = draw(carried, max_new_tokens=12)
    assert answers["policy"] != answers["value"] != answers[None]


def test_pooling_ignores_what_is_padded() -> None:
    hidden = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    spoiled = hidden.masked_fill(mask[..., None] == 0, float("nan"))
    assert pool_last(spoiled, mask).tolist() == [[3.0, 4.0, 5.0], [21.0, 22.0, 23.0]]
    with pytest.raises(ValueError, match="no token"):
        pool_last(hidden, torch.zeros(2, 4))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_score_depends_on_its_row_alone(tmp_path: Path, kind: str) -> None:
    from pipelines.models.base_model import load_sequence_classifier

    base = outside_base(tmp_path, kind, pad="</s>")
    model = load_sequence_classifier(section(base), base, CPU, new_head=True)
    rows = [[*prompt, 50, EOS] for prompt in PROMPTS] + [[3, 0, 0, 0], [3, EOS, EOS]]
    together = score_ids(model, rows, 6)
    assert together == pytest.approx([score_ids(model, [row], 1)[0] for row in rows], abs=1e-5)
    assert together == pytest.approx(score_ids(model, rows, 2), abs=1e-5)
    ids, mask = pad_right(rows[:1], CPU)
    assert ids.tolist() == rows[:1]
    assert mask.all()


@pytest.mark.parametrize("lora", [False, True])
def test_the_ends_of_the_generation_config_end_a_response_too(lora: bool) -> None:
    tokenizer = tiny_tokenizer(bos="<s>", more=("<end_of_turn>",))
    end_of_turn, bos = tokenizer.convert_tokens_to_ids(["<end_of_turn>", "<s>"])
    model: Any = tiny_llama(tokenizer)
    model.generation_config.eos_token_id = [bos, tokenizer.eos_token_id, end_of_turn]
    if lora:
        model = get_peft_model(model, LoraConfig(r=1))
    assert end_token_ids(model, tokenizer) == (tokenizer.eos_token_id, end_of_turn)
