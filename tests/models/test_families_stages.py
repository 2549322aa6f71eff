"""Every family of models and every kind of tokenizer goes through the stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from pipelines.config.model_section import ModelSection
from pipelines.config.ppo_section import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.data.rows import Message
from pipelines.models.base_model import disable_dropout
from pipelines.models.policies import open_reward
from pipelines.models.published_reward import PublishedReward
from pipelines.models.sequence_scores import score_ids
from pipelines.models.tokenizer import load_tokenizer, reward_tokenizer
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.rollout import PpoContext, TextReward, collect
from pipelines.ppo.types import AS_IT_IS
from pipelines.reward import stage as reward
from tests.models.helpers import comparisons, config_for, run_stage, write_data
from tests.ppo.cast import Kind, cast, learner, random_adapter
from tests.tiny import (
    CHAT_TEMPLATE,
    FAMILIES,
    MISTRAL_TEMPLATE,
    QWEN_TEMPLATE,
    SMOLLM2_TEMPLATE,
    save_pair,
    tiny_causal,
    tiny_tokenizer,
)

CPU = torch.device("cpu")
TOKENIZER = tiny_tokenizer(more=("<|endoftext|>",))  # the class of Qwen2 adds it
EOS = int(TOKENIZER.eos_token_id)
TEMPERATURE = 0.7
PROMPTS = [[20, 21], [30, 31, 32, 33, 34, 35, 36, 37, 38], [40, 41, 42, 43, 44], [9]]

BOTH = ("llama", "gpt2")
families_and_kinds = pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param(family, kind, marks=() if family in BOTH or place % 2 == turn else pytest.mark.slow)
        for place, family in enumerate(FAMILIES)
        for turn, kind in enumerate(("full", "lora"))
    ],
)
"""Every family, every second one under LoRA, two of them both ways; the rest of the product is slow."""


class CountsTokens:
    """A scorer that likes long answers."""

    name = "length"

    def __call__(self, prompts: Any, completions: Any) -> list[float]:
        return [float(len(answer.ids)) for answer in completions]


@families_and_kinds
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
        {"prompt_ids": ids, "messages": (Message(role="user", content="hello"),)} for ids in PROMPTS
    ]
    engine = TransformersEngine(roles, EOS, settings.response_length, TEMPERATURE, 4)
    scorer = TextReward(CountsTokens(), ChatEncoder(TOKENIZER))
    rollout, *_ = collect(
        PpoContext(
            roles=roles,
            engine=engine,
            reward=scorer,
            encoder=ChatEncoder(TOKENIZER),
            eos_token_id=EOS,
            settings=settings,
            accelerator=Accelerator(cpu=True),
            seed=0,
        ),
        prompts,
        kl_coef=settings.kl_coef,
        normalizer=Normalizer(settings, AS_IT_IS),
        seed=3,
    )
    assert torch.equal(rollout.logprobs, rollout.ref_logprobs)
    before = rollout.logprobs
    update = learner(roles, settings).update(rollout, torch.Generator().manual_seed(0))
    assert update.first_ratio_deviation < 1e-5
    assert update.policy_grad_norm > 0
    assert not torch.equal(roles.policy_logprobs(rollout, TEMPERATURE, 4), before)
    assert torch.equal(roles.reference_logprobs(rollout, TEMPERATURE, 4), rollout.ref_logprobs)


@families_and_kinds
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
    model, _ = open_reward(PublishedReward.read(run / "reward"), config.model, CPU)
    one_by_one = [score_ids(model, [row["input_ids"]], 1)[0] for row in golden]
    assert one_by_one == pytest.approx([row["score"] for row in golden], abs=1e-5)
    if kind == "full":  # as any user of transformers reads it: one row, no padding
        plain = AutoModelForSequenceClassification.from_pretrained(run / "reward" / "model").eval()
        with torch.no_grad():
            scores = [plain(input_ids=torch.tensor([row["input_ids"]])).logits.item() for row in golden]
        assert scores == pytest.approx(one_by_one, abs=1e-5)


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
