"""Tiny random models and tokenizers, built where they are needed: nothing is downloaded, nothing is committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = [
    "hello world how are you today",
    "the cat sat on the mat and looked at the dog",
    "please write a short story about a red ball",
    "thank you very much for your kind answer",
    "1 2 3 4 5 6 7 8 9 0 . , ! ?",
]


# Real templates: without a system turn the first two write one of their own, and end a turn by another token than </s>.
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_TEMPLATE = (  # Qwen2.5, without its part for tools
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if (message.role == 'user') or (message.role == 'system' and not loop.first) "
    "or (message.role == 'assistant') %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
MISTRAL_TEMPLATE = (  # of the first Mistral Instruct: it writes BOS itself
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)


def tiny_tokenizer(
    *,
    template: str | None = CHAT_TEMPLATE,
    pad: str | None = "<pad>",
    bos: str | None = None,
    eos: str = "</s>",
    more: tuple[str, ...] = (),
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of about 350 tokens.

    Args:
        pad: None: no pad token; `"</s>"`: pad == eos.
        bos: a token that the tokenizer puts before every text; None: it puts none.
        eos: what ends a text.
        more: further special tokens.
    """
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", *([bos] if bos else []), *more]
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(CORPUS, trainer)
    if bos is not None:
        raw.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=eos, bos_token=bos, pad_token=pad, extra_special_tokens=special[2:]
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_llama(
    tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, hidden: int = 32, layers: int = 2
) -> PreTrainedModel:
    """A Llama-like model: rotary positions, no biases."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.2,
        )
    )


def tiny_gpt2(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> PreTrainedModel:
    """A GPT-2-like model: absolute positions, Conv1D, tied embeddings."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=256,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.2,
        )
    )


WINDOW = 5
"""Tokens that a sliding layer of the tiny models below sees: fewer than the rows of the tests have."""
SLIDING: dict[str, Any] = {"sliding_window": WINDOW}
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
GROUPED: dict[str, Any] = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
LAYERS = ["sliding_attention", "full_attention"]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "qwen2": ("qwen2", {**SHAPE, "num_key_value_heads": 2}),
    "qwen3": ("qwen3", GROUPED | {"tie_word_embeddings": True}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}),
    "gpt-neox": ("gpt_neox", SHAPE | {"rotary_pct": 0.5}),
    "gemma": ("gemma", GROUPED),
    "gemma2": ("gemma2", GROUPED | SLIDING | {"layer_types": LAYERS, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", GROUPED | SLIDING | {"layer_types": LAYERS, "query_pre_attn_scalar": 8}),
    "mistral": ("mistral", GROUPED | SLIDING),
    "granite": ("granite", GROUPED | {"logits_scaling": 2.0}),
    "mamba": ("mamba", {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "initializer_range": 0.2}),
    "mixtral": ("mixtral", GROUPED | {"num_local_experts": 4}),
}
"""Causal families: the model type of transformers, and a small shape."""
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SHAPE,
    "roberta": SHAPE | {"type_vocab_size": 1},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 256},
}


def tiny_causal(family: str, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A causal model of one of `FAMILIES`, in evaluation mode; `changes` to its configuration."""
    kind, shape = FAMILIES[family]
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(_config(kind, tokenizer, {**shape, **changes})).eval()


def tiny_classifier(family: str, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> PreTrainedModel:
    """A classifier with one label of one of `ENCODERS` or `FAMILIES`, in evaluation mode."""
    kind, shape = (family, ENCODERS[family]) if family in ENCODERS else FAMILIES[family]
    torch.manual_seed(seed)
    config = _config(kind, tokenizer, {**shape, "num_labels": 1})
    return AutoModelForSequenceClassification.from_config(config).eval()


def _config(kind: str, tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> Any:
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return AutoConfig.for_model(kind, vocab_size=len(tokenizer), **special, **shape)


def tiny_bert(tokenizer: PreTrainedTokenizerFast, *, num_labels: int = 1, seed: int = 0) -> PreTrainedModel:
    """A BERT-like text classifier."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=256,
            num_labels=num_labels,
            pad_token_id=tokenizer.pad_token_id or 0,
            initializer_range=0.2,
        )
    )


def save_pair(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> Path:
    """Save model and tokenizer as a plain Hugging Face directory."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
