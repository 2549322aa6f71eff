"""Sampling from a causal model, with nothing inherited from its generation config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import GenerationConfig


def neutral_config(
    *, max_new_tokens: int, temperature: float, eos_token_id: int, pad_token_id: int
) -> GenerationConfig:
    """Plain sampling from softmax(logits / temperature): every field that could bend it is set to its neutral value."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
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
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
    )


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    eos_token_id: int,
    batch_size: int,
    seed: int | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Sample one response for each prompt.

    Args:
        model: a causal model, or a PeftModel whose active adapter answers.
        prompts: token ids, none empty; prompts of similar length go together.
        max_new_tokens: most tokens of a response.
        eos_token_id: the one id that ends a response.
        batch_size: prompts in one generation; the draws depend on it.
        seed: for draws that neither use nor change the global random state; None draws from the global state.
        on_batch: called with the number of prompts answered by each batch.

    Returns:
        The ids of each response, in the order of `prompts`; its last id is the EOS if and only if it finished.

    Raises:
        ValueError: a prompt is empty.
    """
    if any(not len(prompt) for prompt in prompts):
        raise ValueError("an empty prompt cannot be answered")
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    device = next(base.parameters()).device
    config = neutral_config(
        max_new_tokens=max_new_tokens, temperature=temperature, eos_token_id=eos_token_id, pad_token_id=eos_token_id
    )
    responses: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    with _generating(base, config), _seeded(seed, device):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = pad_left([prompts[index] for index in chosen], device)
            # no position_ids: generate() makes and extends its own from the mask
            output = base.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]
            for index, row in zip(chosen, output[:, ids.shape[1] :].tolist(), strict=True):
                responses[index] = row[: row.index(eos_token_id) + 1] if eos_token_id in row else row
            if on_batch is not None:
                on_batch(len(chosen))
    return responses


def pad_left(rows: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """``input_ids`` and ``attention_mask``, both [B, longest]; padded with id 0, the mask made from lengths."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[index, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


@contextmanager
def _generating(model: nn.Module, config: GenerationConfig) -> Iterator[None]:
    """Evaluation mode and a generation config of ours: a field left None would be filled from the model's own."""
    modes = [(module, module.training) for module in model.modules()]
    own = model.generation_config
    model.eval()
    model.generation_config = config  # type: ignore[assignment]
    try:
        yield
    finally:
        model.generation_config = own
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
