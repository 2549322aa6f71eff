"""Sampling from a causal model, with nothing inherited from its generation config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from pipelines.errors import RlhfError, UsageError
from pipelines.models.adapters import merged
from pipelines.models.decode import NOT_FINITE, can_decode, decode, until_end
from pipelines.models.sequence_scores import pad_left


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, stop_tokens: Sequence[str]) -> list[int]:
    """Ids of EOS and of stop tokens, in this order.

    Raises:
        UsageError: one of them is not one token of this tokenizer.
    """
    vocabulary = tokenizer.get_vocab()
    ids = [tokenizer.eos_token_id]
    for token in stop_tokens:
        token_ids = (
            [vocabulary[token]] if token in vocabulary else tokenizer(token, add_special_tokens=False)["input_ids"]
        )
        if len(token_ids) != 1 or token_ids[0] == tokenizer.unk_token_id:
            raise UsageError(
                f"{token!r} is not one token of the tokenizer",
                where="ppo.stop_tokens",
                hint="name a token of its vocabulary, such as the one that ends a turn in the chat template",
            )
        ids.append(token_ids[0])
    return ids


def end_token_ids(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, stop_tokens: Sequence[str] = ()
) -> tuple[int, ...]:
    """Ids that end a response of a model: EOS, `stop_tokens`, and those of its generation config, each once.

    Chat models often name the token that ends a turn in their generation config alone (Gemma: `<end_of_turn>`).

    Args:
        model: causal model, or an adapter on one.
        tokenizer: has an EOS token.
        stop_tokens: spelled as in the vocabulary (`<|im_end|>`), or text that is one token (a line break).

    Raises:
        UsageError: one of them is not one token of this tokenizer.
    """
    ids = stop_token_ids(tokenizer, stop_tokens)
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    published = [listed] if isinstance(listed, int) else list(listed or ())
    # some files list BOS as well, which would end an answer at its first token
    return tuple(dict.fromkeys([*ids, *(index for index in published if index != tokenizer.bos_token_id)]))


def closed(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """A response as reward models are trained to read it: EOS is appended where it ended on another stop token.

    Args:
        ids: of the response.
        ends: of `end_token_ids`, EOS first.
    """
    return [*ids, ends[0]] if ids[-1] in ends[1:] and ids[-1] != ends[0] else list(ids)


def neutral_config(
    *,
    max_new_tokens: int,
    temperature: float,
    eos_token_id: Sequence[int],
    pad_token_id: int,
    top_k: int = 0,
    top_p: float = 1.0,
) -> GenerationConfig:
    """Plain sampling from softmax(logits / temperature): every field that could change it is set to its neutral value.

    Only `top_k` and `top_p` change it, where they are set.
    """
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=True,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        typical_p=1.0,
        epsilon_cutoff=0.0,
        eta_cutoff=0.0,
        repetition_penalty=1.0,
        encoder_repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        num_beams=1,
        num_return_sequences=1,
        min_length=0,
        use_cache=True,
        eos_token_id=list(eos_token_id),
        pad_token_id=pad_token_id,
    )


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    eos_token_id: int | Sequence[int],
    batch_size: int,
    seed: int | None = None,
    on_batch: Callable[[int], None] | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
) -> list[list[int]]:
    """Sample one response for each prompt.

    Args:
        model: a causal model, or a PeftModel whose active adapter answers.
        prompts: token ids, none empty; prompts of similar length go together.
        max_new_tokens: maximum tokens of a response.
        eos_token_id: the id or ids that end a response.
        batch_size: responses in one generation; the draws depend on it.
        seed: for draws that neither use nor change the global random state; None draws from the global state.
        on_batch: called with the number of prompts answered by each batch.
        top_k: number of the most likely tokens to draw from; 0: all.
        top_p: draw from the most likely tokens with this total probability.

    Returns:
        The ids of each response, in the order of `prompts`; its last id is an ending one if and only if it finished.

    Raises:
        ValueError: a prompt is empty.
    """
    if any(not len(prompt) for prompt in prompts):
        raise ValueError("a prompt has no tokens")
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    device = next(base.parameters()).device
    ends = (eos_token_id,) if isinstance(eos_token_id, int) else tuple(eos_token_id)
    config = neutral_config(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        eos_token_id=ends,
        pad_token_id=ends[0],
        top_k=top_k,
        top_p=top_p,
    )
    own_loop = can_decode(base, max(map(len, prompts), default=0) + max_new_tokens)
    responses: list[list[int]] = [[] for _ in prompts]
    first = {tuple(prompt): index for index, prompt in reversed(list(enumerate(prompts)))}
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), first[tuple(prompts[index])]))
    with _generating(base, config), _seeded(seed, device), merged(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = [prompts[index] for index in chosen]
            drawn = decode(base, batch, config) if own_loop else _generate(base, batch, config)
            for index, response in zip(chosen, drawn, strict=True):
                responses[index] = response
            if on_batch is not None:
                on_batch(len(chosen))
    return responses


def _generate(model: Any, prompts: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[int]]:
    """Sample by `generate` of transformers, which knows every kind of cache."""
    ids, mask = pad_left(prompts, model.device)
    # no position_ids: generate() makes and extends its own from the mask
    output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return [until_end(row, config.eos_token_id) for row in output[:, ids.shape[1] :].tolist()]


@contextmanager
def refuse_not_finite_draws(error: RlhfError) -> Iterator[None]:
    """Raise `error` where sampling fails because the model's probabilities are not finite.

    Args:
        error: names the model and what to do about it; torch knows only that it cannot draw.
    """
    try:
        yield
    except RuntimeError as cause:
        if NOT_FINITE not in str(cause):
            raise
        raise error from cause


@contextmanager
def _generating(model: nn.Module, config: GenerationConfig) -> Iterator[None]:
    """Set evaluation mode and our generation config: a field left None would be filled from the model's own."""
    modes = [(module, module.training) for module in model.modules()]
    original = model.generation_config
    model.eval()
    model.generation_config = config  # type: ignore[assignment]
    try:
        yield
    finally:
        model.generation_config = original
        for module, training in modes:
            module.training = training


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
