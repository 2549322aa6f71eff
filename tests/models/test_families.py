"""Every family of models gives the same numbers here as alone in plain transformers, and goes through all stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from pipelines import reward
from pipelines.config.model import ModelSection
from pipelines.config.ppo import PpoSection
from pipelines.config.scorer import ScorerSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.data.rows import Message
from pipelines.errors import UsageError
from pipelines.models.artifact import open_reward
from pipelines.models.base import BaseRef, disable_dropout, load_causal
from pipelines.models.generate import sample
from pipelines.models.publish import publish_model
from pipelines.models.score import score_ids
from pipelines.models.tokenizer import load_tokenizer, reward_tokenizer
from pipelines.ppo.forward import hidden_states, response_logprobs
from pipelines.ppo.generation import TransformersEngine
from pipelines.ppo.rollout import TextReward, collect
from pipelines.ppo.types import TokenBatch
from pipelines.scorers import Completion
from pipelines.scorers.classifier import ClassifierScorer
from tests.models.helpers import comparisons, config_for, run_stage, write_data
from tests.ppo.cast import Kind, cast, learner, random_adapter
from tests.tiny import (
    CHAT_TEMPLATE,
    ENCODERS,
    FAMILIES,
    MISTRAL_TEMPLATE,
    QWEN_TEMPLATE,
    SMOLLM2_TEMPLATE,
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
full_and_lora = pytest.mark.parametrize("kind", ["full", "lora"])


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
        logprobs, _ = response_logprobs(model, batch, TEMPERATURE)
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
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1e-4, "eos_token_id": EOS}
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
    model = tiny_causal(family, TOKENIZER)
    prompt = PROMPTS[1]
    response = sample(
        model, [prompt], max_new_tokens=10, temperature=TEMPERATURE, eos_token_id=EOS, batch_size=1, seed=5
    )[0]
    expected: list[int] = []
    with torch.random.fork_rng():
        torch.manual_seed(5)
        while len(expected) < len(response):
            probabilities = (plain_logits(model, prompt + expected)[-1] / TEMPERATURE).softmax(-1)
            expected.append(int(torch.multinomial(probabilities[None], 1)))
    assert response == expected


@pytest.mark.parametrize("family", SLIDING)
def test_rows_are_longer_than_the_sliding_window(family: str) -> None:
    """Otherwise the tests above would prove nothing about it."""
    narrow, wide = tiny_causal(family, TOKENIZER), tiny_causal(family, TOKENIZER, sliding_window=128)
    wide.load_state_dict(narrow.state_dict())
    batch = TokenBatch.of(PROMPTS, RESPONSES, EOS)
    with torch.no_grad():
        ours, without = (response_logprobs(model, batch, 1.0)[0] for model in (narrow, wide))
    assert float((ours - without)[batch.response_mask].abs().max()) > 1e-2


def test_final_soft_capping_bounds_what_training_and_sampling_see() -> None:
    capped = tiny_causal("gemma2", TOKENIZER)
    free = tiny_causal("gemma2", TOKENIZER, final_logit_softcapping=None)
    free.load_state_dict(capped.state_dict())
    assert float(plain_logits(free, PROMPTS[1]).abs().max()) > 3.0 > float(plain_logits(capped, PROMPTS[1]).abs().max())
    batch = TokenBatch.of(PROMPTS, RESPONSES, EOS)
    settings: dict[str, Any] = {"max_new_tokens": 10, "eos_token_id": EOS, "batch_size": 3, "seed": 1}
    with torch.no_grad():
        ours, uncapped = (response_logprobs(model, batch, 1.0)[0] for model in (capped, free))
    assert float((ours - uncapped)[batch.response_mask].abs().max()) > 1e-2
    assert sample(capped, PROMPTS, **settings) != sample(free, PROMPTS, **settings)


class CountsTokens:
    """A scorer that likes long answers."""

    name = "length"

    def __call__(self, prompts: Any, completions: Any) -> list[float]:
        return [float(len(answer.ids)) for answer in completions]


@families
@full_and_lora
def test_kl_starts_at_zero_and_ratios_at_one(family: str, kind: Kind) -> None:
    settings = PpoSection(
        rollout_batch_size=4,
        num_mini_batches=2,
        num_ppo_epochs=1,
        per_device_train_batch_size=2,
        rollout_forward_batch_size=4,
        response_length=8,
        temperature=TEMPERATURE,
        learning_rate=1e-2,
    )
    base = tiny_causal(family, TOKENIZER)
    roles = cast(base, kind, sft=random_adapter(base) if kind == "lora" else None)
    for model in roles.models():
        disable_dropout(model)
    roles.enable_gradient_checkpointing()
    prompts: list[EncodedPrompt] = [
        {"prompt_ids": ids, "messages": (Message(role="user", content="hello"),)} for ids in [*PROMPTS, [9]]
    ]
    engine = TransformersEngine(roles, EOS, settings.response_length, TEMPERATURE, 4)
    scorer = TextReward(CountsTokens(), ChatEncoder(TOKENIZER), EOS)
    rollout, *_ = collect(prompts, roles, engine, scorer, settings, eos_token_id=EOS, device=CPU, seed=3)
    assert torch.equal(rollout.logprobs, rollout.ref_logprobs)
    before = rollout.logprobs
    update = learner(roles, settings).update(rollout, torch.Generator().manual_seed(0))
    assert update.first_ratio_deviation < 1e-5
    assert update.policy_grad_norm > 0
    assert not torch.equal(roles.policy_logprobs(rollout, TEMPERATURE, 4), before)
    assert torch.equal(roles.reference_logprobs(rollout, TEMPERATURE, 4), rollout.ref_logprobs)


@families
@full_and_lora
def test_reward_model_trains_a_step_and_reloads_with_equal_scores(tmp_path: Path, family: str, kind: Kind) -> None:
    base = save_pair(tiny_causal(family, TOKENIZER), TOKENIZER, tmp_path / "base")
    fields = {"use_peft": True, "lora_r": 4} if kind == "lora" else {}
    config = config_for(base, model=fields, sft={"enabled": False}, reward={"max_steps": 1, "warmup_ratio": 0.0})
    run = tmp_path / "run"
    write_data(run, "comparisons", comparisons(8), comparisons(4, start=60))
    metrics = run_stage(run, "reward", reward.run, config, "data/comparisons")
    assert metrics["steps"] == 1
    assert metrics["heldout_margin_after"] != metrics["heldout_margin_before"]
    golden = json.loads((run / "reward" / "golden.json").read_text())["rows"]
    model, _ = open_reward(run / "reward", config.model, CPU)
    one_by_one = [score_ids(model, [row["input_ids"]], 1)[0] for row in golden]
    assert one_by_one == pytest.approx([row["score"] for row in golden], abs=1e-5)
    if kind == "full":  # as any user of transformers reads it: one row, no padding
        plain = AutoModelForSequenceClassification.from_pretrained(run / "reward" / "model").eval()
        with torch.no_grad():
            scores = [plain(input_ids=torch.tensor([row["input_ids"]])).logits.item() for row in golden]
        assert scores == pytest.approx(one_by_one, abs=1e-5)


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


TOKENIZERS: dict[str, dict[str, Any]] = {
    "no pad": {"pad": None},
    "pad is eos": {"pad": "</s>"},
    "no template": {"template": None},
    "no template, bos": {"template": None, "bos": "<s>"},
    "own template, bos": {"template": MISTRAL_TEMPLATE, "bos": "<s>", "pad": None},
    "template without its bos": {"template": CHAT_TEMPLATE, "bos": "<s>"},
    "smollm2": {"template": SMOLLM2_TEMPLATE, "eos": "<|im_end|>", "more": ("<|im_start|>", "<|im_end|>")},
    "qwen": {"template": QWEN_TEMPLATE, "eos": "<|im_end|>", "more": ("<|im_start|>", "<|im_end|>"), "pad": "</s>"},
}
"""Whether one BOS opens a prompt is the template's word; without a template it is the tokenizer's."""


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_kind_of_tokenizer_encodes_prompts_and_answers(tmp_path: Path, name: str) -> None:
    tiny_tokenizer(**TOKENIZERS[name]).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path, ModelSection())
    encoder = ChatEncoder(tokenizer)
    messages = [Message(role="user", content="hello")]
    prompt, answer = encoder.prompt(messages), encoder.answer(messages, "the cat")
    assert answer[-1] == tokenizer.eos_token_id
    assert answer.count(tokenizer.eos_token_id) == 1
    assert encoder.decode(answer).strip() == "the cat"
    opened = name in ("no template, bos", "own template, bos")
    assert prompt.count(tokenizer.bos_token_id) == int(opened)
    assert not opened or prompt[0] == tokenizer.bos_token_id
    assert ("helpful" in tokenizer.decode(prompt)) == (name in ("smollm2", "qwen"))
    assert reward_tokenizer(tokenizer).pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["no pad", "own template, bos", "qwen"])
def test_a_reward_model_is_read_at_the_eos_whatever_the_tokenizer_pads_with(tmp_path: Path, name: str) -> None:
    made = tiny_tokenizer(**TOKENIZERS[name])
    base = save_pair(tiny_causal("llama", made), made, tmp_path / "base")
    config = config_for(base, sft={"enabled": False}, reward={"max_steps": 1, "max_length": 128})
    run = tmp_path / "run"
    write_data(run, "comparisons", comparisons(8), comparisons(4, start=60))
    run_stage(run, "reward", reward.run, config, "data/comparisons")
    golden = json.loads((run / "reward" / "golden.json").read_text())["rows"]
    assert {row["input_ids"][-1] for row in golden} == {made.eos_token_id}
    plain = AutoModelForSequenceClassification.from_pretrained(run / "reward" / "model").eval()
    padded = AutoTokenizer.from_pretrained(run / "reward" / "model")
    batch = padded.pad({"input_ids": [row["input_ids"] for row in golden]}, return_tensors="pt")
    with torch.no_grad():
        scores = plain(**batch).logits[:, 0].tolist()
    assert scores == pytest.approx([row["score"] for row in golden], abs=1e-5)
