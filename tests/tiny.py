"""Tiny random models and tokenizers, built where they are needed: nothing is downloaded, nothing is committed."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
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


def tiny_tokenizer(*, template: str | None = CHAT_TEMPLATE, pad: str | None = "<pad>") -> PreTrainedTokenizerFast:
    """A byte-level BPE of about 350 tokens; `pad=None`: no pad token, `pad="</s>"`: pad == eos."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="</s>", pad_token=pad, extra_special_tokens=special[2:]
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
