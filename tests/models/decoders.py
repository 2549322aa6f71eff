"""Tiny models of the decoders of transformers, and all stages of training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pipelines.ppo import stage as ppo
from pipelines.reward import stage as reward
from pipelines.sft import stage as sft
from tests.models.helpers import comparisons, config_for, demonstrations, run_stage, write_data
from tests.tiny import save_pair, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
STAGES = ("sft", "reward", "ppo")
SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "moe_intermediate_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    "intermediate_size": 64,
    "head_dim": 8,
    "moe_k": 2,
    "initializer_range": 0.2,
}
"""Settings under the names of all families, each used where a configuration has it."""
LATENT = {
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "num_key_value_heads": 4,
}
STATE = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
LINEAR = {
    "num_hidden_layers": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
SHAPES: dict[str, dict[str, Any]] = {
    "axk1": LATENT | {"head_dim": 4},
    "bamba": STATE | {"attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "cwm": {"bos_token_id": 0},
    "deepseek_v2": LATENT | {"topk_method": "greedy", "num_experts_per_tok": 2},
    "deepseek_v3": LATENT | {"head_dim": 4},
    "falcon": {"head_dim": None, "num_key_value_heads": None},
    "falcon_h1": STATE | {"mamba_d_ssm": 64},
    "glm4_moe_lite": LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": STATE | {"layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {
        **dict.fromkeys(("attn_layer_period", "expert_layer_period"), 2),
        **dict.fromkeys(("attn_layer_offset", "expert_layer_offset"), 1),
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lfm3": {"num_hidden_layers": 4},
    "longcat_flash": LATENT | {"head_dim": 4},
    "mamba2": {"num_heads": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "ministral": {"head_dim": 8},
    "minicpm3": LATENT,
    "modernbert-decoder": {"bos_token_id": 0, "num_hidden_layers": 3},
    "qwen3_5_moe_text": LINEAR | {"shared_expert_intermediate_size": 32},
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR | {"shared_expert_intermediate_size": 32},
    "youtu": LATENT | {"head_dim": 4},
}
"""Settings of a family beside or instead of `SMALL`; None: its own value."""
_NAMES = """
    afmoe apertus arcee aria_text axk1 bamba beam biogpt bitnet bloom codegen cohere cohere2 cohere2_moe cpmant ctrl
    cwm deepseek_v2 deepseek_v3 diffllama doge ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_h1
    falcon_mamba flex_olmo flint gemma gemma2 gemma3_text glm glm4 glm4_moe glm4_moe_lite gpt2 gpt_bigcode gpt_neo
    gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa granitemoehybrid
    granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax internlm3 iquestcoder jais2
    jamba jetmoe kolibri1 laguna lfm2 lfm2_moe lfm3 llama llama4_text longcat_flash mamba mamba2 mellum
    mimo_v2_flash minicpm3 minimax minimax_m2 ministral ministral3 mistral mixtral modernbert-decoder mpt nanochat
    nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3
    qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next recurrent_gemma rwkv seed_oss smollm3 solar_open stablelm
    starcoder2 vaultgemma xglm xlm youtu
"""
DECODERS = _NAMES.split()
"""Kinds of decoders in transformers 5.23, without those that only see or hear, and those of which no tiny one can be
made by a handful of settings."""
REFUSED = {
    **{(kind, mode): "cannot be the base" for kind in ("cpmant", "recurrent_gemma", "rwkv", "xlm") for mode in (0, 1)},
    ("laguna", 1): "no reward model can be made of this base under LoRA",
    ("longcat_flash", 1): "no reward model can be made of this base under LoRA",
}
"""By kind, and whether under LoRA: those that are refused before SFT, with what the reason begins with."""


def tiny_decoder(kind: str) -> PreTrainedModel:
    """A tiny model of a kind, with random weights that are equal for equal versions."""
    known = AutoConfig.for_model(kind)
    shape = {name: value for name, value in SMALL.items() if getattr(known, name, None) is not None}
    special = {"eos_token_id": TOKENIZER.eos_token_id, "pad_token_id": TOKENIZER.pad_token_id, "bos_token_id": None}
    wanted = {**shape, **special, "vocab_size": len(TOKENIZER), **SHAPES.get(kind, {})}
    defaults = {name for name, value in SHAPES.get(kind, {}).items() if value is None}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{name: value for name, value in wanted.items() if name not in defaults})
    return AutoModelForCausalLM.from_config(config)


def run_all_stages(kind: str, use_peft: bool, directory: Path) -> dict[str, dict[str, Any]]:
    """Run SFT, reward model and PPO for two steps each; the metrics of the stages that were completed."""
    base, run = save_pair(tiny_decoder(kind), TOKENIZER, directory / "base"), directory / "run"
    steps = {"max_steps": 2, "per_device_train_batch_size": 4, "warmup_ratio": 0.0, "learning_rate": 1e-3}
    config = config_for(
        base,
        model={"use_peft": use_peft, "lora_r": 2},
        sft=steps,
        reward=steps | {"normalization_prompts": 2},
        ppo={
            **dict.fromkeys(("rollout_batch_size", "per_device_train_batch_size"), 4),
            **dict.fromkeys(("num_mini_batches", "num_ppo_epochs"), 1),
            "total_episodes": 8,
            "response_length": 6,
        },
    )
    pairs, more = comparisons(8), comparisons(4, start=60)
    write_data(run, "demonstrations", demonstrations(8), demonstrations(2, start=60))
    write_data(run, "comparisons", pairs, more)
    write_data(
        run, "prompts", [{"prompt": row["prompt"]} for row in pairs], [{"prompt": row["prompt"]} for row in more]
    )
    needs = {
        "sft": ("data/demonstrations",),
        "reward": ("data/comparisons", "sft"),
        "ppo": ("data/prompts", "sft", "reward"),
    }
    runners = {"sft": sft.run, "reward": reward.run, "ppo": ppo.run}
    return {stage: run_stage(run, stage, runners[stage], config, *needs[stage]) for stage in STAGES}
