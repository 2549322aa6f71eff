"""Every family of models gives the same numbers here as alone in plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

from pipelines.config.model_section import ModelSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.rows import Message
from pipelines.errors import UsageError
from pipelines.models.base_model import load_causal
from pipelines.models.base_ref import BaseRef
from pipelines.models.decode import can_decode, draw
from pipelines.models.forward import TokenBatch, hidden_states, response_logprobs
from pipelines.models.generate import sample
from pipelines.models.publish import publish_model
from pipelines.scorers import Completion
from pipelines.scorers.classifier import ClassifierScorer
from tests.tiny import (
    ENCODERS,
    FAMILIES,
    WINDOW,
    save_pair,
    tiny_causal,
    tiny_classifier,
    tiny_tokenizer,
)

CPU = torch.device("cpu")
TOKENIZER = tiny_tokenizer()
EOS = int(TOKENIZER.eos_token_id)
TEMPERATURE = 0.7
PROMPTS = [[20, 21], [30, 31, 32, 33, 34, 35, 36, 37, 38], [40, 41, 42, 43, 44]]
RESPONSES = [[50, 51, 52, 53, 54, 55, 56, 57], [60, EOS], [70, 71, 72, EOS]]
SLIDING = ["gemma2", "gemma3", "mistral"]

families = pytest.mark.parametrize("family", FAMILIES)


@torch.no_grad()
def plain_logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """[S, V] of one row without padding, mask or positions, as any user of transformers computes it."""
    logits: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return logits


def plain_logprobs(model: PreTrainedModel, prompt: list[int], response: list[int]) -> torch.Tensor:
    """[T] log-probabilities of a response by `plain_logits`."""
    logits = plain_logits(model, prompt + response)[len(prompt) - 1 : -1] / TEMPERATURE
    return logits.log_softmax(-1)[torch.arange(len(response)), response]


@families
def test_padding_on_either_side_moves_no_logprob_and_no_score(family: str) -> None:
    model = tiny_causal(family, TOKENIZER)
    batch = TokenBatch.of(PROMPTS, RESPONSES, EOS)
    assert bool((~batch.attention_mask[:, 0]).any())
    assert bool((~batch.attention_mask[:, -1]).any())
    with torch.no_grad():
        logprobs = response_logprobs(model, batch, TEMPERATURE).logprobs
        hidden = hidden_states(model, batch)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        expected = plain_logprobs(model, prompt, response)
        torch.testing.assert_close(logprobs[row, : len(response)], expected, atol=1e-5, rtol=1e-5)
        own = hidden[row, batch.attention_mask[row]]
        with torch.no_grad():
            alone = model.base_model(input_ids=torch.tensor([prompt + response])).last_hidden_state[0]
        torch.testing.assert_close(own, alone, atol=1e-5, rtol=1e-4)


@families
def test_generation_in_a_batch_is_generation_alone(family: str) -> None:
    model = tiny_causal(family, TOKENIZER)
    settings: dict[str, Any] = {"max_new_tokens": 12, "top_k": 1, "eos_token_id": EOS}
    together = sample(model, PROMPTS, batch_size=3, seed=0, **settings)
    alone = [sample(model, [prompt], batch_size=1, seed=0, **settings)[0] for prompt in PROMPTS]
    assert together == alone
    assert max(map(len, together)) > WINDOW
    for prompt, response in zip(PROMPTS, together, strict=True):
        for place, token in enumerate(response):
            assert int(plain_logits(model, prompt + response[:place])[-1].argmax()) == token


@families
def test_what_is_sampled_follows_the_plain_logits(family: str) -> None:
    """Token by token without a cache from the same draws: temperature and soft-capping are in both paths."""

    def multinomial(logits: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(logits.softmax(-1), 1)

    model = tiny_causal(family, TOKENIZER)
    prompt = PROMPTS[1]
    response = sample(
        model, [prompt], max_new_tokens=10, temperature=TEMPERATURE, eos_token_id=EOS, batch_size=1, seed=5
    )[0]
    expected: list[int] = []
    with torch.random.fork_rng():
        torch.manual_seed(5)
        while len(expected) < len(response):
            logits = plain_logits(model, prompt + expected)[-1:] / TEMPERATURE
            expected.append(int(draw(logits)[0] if can_decode(model, len(prompt) + 10) else multinomial(logits)))
    assert response == expected


@pytest.mark.parametrize("family", SLIDING)
def test_rows_are_longer_than_the_sliding_window(family: str) -> None:
    """Otherwise the tests above would prove nothing about it."""
    narrow, wide = tiny_causal(family, TOKENIZER), tiny_causal(family, TOKENIZER, sliding_window=128)
    wide.load_state_dict(narrow.state_dict())
    batch = TokenBatch.of(PROMPTS, RESPONSES, EOS)
    with torch.no_grad():
        ours, without = (response_logprobs(model, batch, 1.0).logprobs for model in (narrow, wide))
    assert float((ours - without)[batch.response_mask].abs().max()) > 1e-2


def test_final_soft_capping_bounds_what_training_and_sampling_see() -> None:
    capped = tiny_causal("gemma2", TOKENIZER)
    free = tiny_causal("gemma2", TOKENIZER, final_logit_softcapping=None)
    free.load_state_dict(capped.state_dict())
    assert float(plain_logits(free, PROMPTS[1]).abs().max()) > 3.0 > float(plain_logits(capped, PROMPTS[1]).abs().max())
    batch = TokenBatch.of(PROMPTS, RESPONSES, EOS)
    settings: dict[str, Any] = {"max_new_tokens": 10, "eos_token_id": EOS, "batch_size": 3, "seed": 1}
    with torch.no_grad():
        ours, uncapped = (response_logprobs(model, batch, 1.0).logprobs for model in (capped, free))
    assert float((ours - uncapped)[batch.response_mask].abs().max()) > 1e-2
    assert sample(capped, PROMPTS, **settings) != sample(free, PROMPTS, **settings)


@pytest.mark.parametrize("tied", [True, False])
@families
def test_tied_embeddings_stay_tied_through_saving_and_loading(tmp_path: Path, family: str, tied: bool) -> None:
    model = tiny_causal(family, TOKENIZER, tie_word_embeddings=tied)
    section = ModelSection(name_or_path="base")
    publish_model(model, TOKENIZER, tmp_path / "model", base=BaseRef.outside(section), run_dir=tmp_path)
    opened = load_causal(section, tmp_path / "model", CPU)
    shared = opened.get_input_embeddings().weight is opened.get_output_embeddings().weight
    assert shared == tied
    assert torch.equal(plain_logits(opened, PROMPTS[1]), plain_logits(model, PROMPTS[1]))


@pytest.mark.parametrize("family", [*ENCODERS, "gpt2", "llama", "gpt-neox", "gemma3"])
def test_an_outside_classifier_scores_a_batch_as_it_scores_each_text_alone(tmp_path: Path, family: str) -> None:
    tokenizer = tiny_tokenizer(template=None, bos="<s>")
    if family == "distilbert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    model = tiny_classifier(family, tokenizer)
    save_pair(model, tokenizer, tmp_path)
    scorer = ClassifierScorer.load(family, ScorerSection(kind="classifier", path=str(tmp_path)), CPU)
    texts = [("hello world", "the cat"), ("please write a short story about a red ball", "no"), ("how", "thank " * 30)]
    prompts = [(Message(role="user", content=prompt),) for prompt, _ in texts]
    scores = scorer(prompts, [Completion(answer, (), True) for _, answer in texts])
    with torch.no_grad():
        for score, (prompt, answer) in zip(scores, texts, strict=True):
            encoded = tokenizer(prompt, answer, return_tensors="pt", return_token_type_ids=False)
            assert score == pytest.approx(model(input_ids=encoded["input_ids"]).logits.item(), abs=1e-5)


UNFIT: dict[str, dict[str, Any]] = {
    "bert": ENCODERS["bert"],
    "roberta": ENCODERS["roberta"],
    "bart": {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "xlnet": {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_base_that_would_train_on_wrong_numbers_is_refused(tmp_path: Path, kind: str) -> None:
    config = AutoConfig.for_model(kind, vocab_size=len(TOKENIZER), **UNFIT[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=f"a {kind} model cannot be the base"):
        load_causal(ModelSection(name_or_path=str(tmp_path)), tmp_path, CPU)


def test_an_encoder_decoder_is_refused_by_its_kind(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "t5", vocab_size=len(TOKENIZER), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4
    )
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="a t5 model cannot be opened as AutoModelForCausalLM") as error:
        load_causal(ModelSection(name_or_path=str(tmp_path)), tmp_path, CPU)
    assert error.value.where == str(tmp_path)
