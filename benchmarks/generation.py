"""Processor seconds of sampling responses, by the program's own loop and by `generate` of transformers.

The shape is real, the weights are random. Both ways run in turn in one process, so that their ratio means something on
a busy machine. Without ends every response has the full length; with them a third of it on average.

    python -m benchmarks.generation --shape a b c --kind full lora
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import mean, median
from typing import Any
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from pipelines.models import generate
from pipelines.models.generate import sample

EOS = 1


@dataclass(frozen=True)
class Shape:
    """A model, and the responses that it samples.

    Attributes:
        responses: to each prompt.
        end: probability of the ending token, about.
    """

    model: dict[str, Any]
    rows: int
    prompt: tuple[int, int]
    response: int
    responses: int = 1
    end: float = 0.0


SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "vocab_size": 4096,
}
# SmolLM2-135M
CHAT: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
QUICKSTART: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 768,
}
SHAPES = {
    "q": Shape(QUICKSTART, 64, (20, 40), 48, end=1 / 16),
    "a": Shape(SMALL, 64, (32, 32), 64),
    "b": Shape(CHAT, 16, (30, 80), 48),
    "c": Shape(CHAT, 16, (30, 80), 48, end=1 / 16),
    "d": Shape(CHAT, 16, (200, 200), 16, responses=4),
}


def random_model(shape: Shape, kind: str) -> torch.nn.Module:
    """A model of random weights; its ending token is as likely as the shape says."""
    torch.manual_seed(0)
    config = LlamaConfig(**shape.model, max_position_embeddings=2048, bos_token_id=None, eos_token_id=EOS)
    model: Any = LlamaForCausalLM(config).eval()
    bias = torch.zeros(config.vocab_size)
    bias[EOS] = torch.tensor(shape.end * config.vocab_size).log().clamp(min=-30.0)
    model.lm_head.bias = torch.nn.Parameter(bias)
    if kind == "lora":
        lora = LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    return model.requires_grad_(False)  # type: ignore[no-any-return]


@contextmanager
def by_transformers() -> Iterator[None]:
    """Sampling as families with special caches are sampled, adapters unmerged."""
    with (
        mock.patch.object(generate, "can_decode", return_value=False),
        mock.patch.object(generate, "merged", nullcontext),
    ):
        yield


def measure(name: str, kind: str, repeats: int) -> dict[str, object]:
    """Run both ways in turn; the first run of each warms up and is not counted."""
    shape = SHAPES[name]
    model = random_model(shape, kind)
    numbers = torch.Generator().manual_seed(0)
    lengths = torch.randint(shape.prompt[0], shape.prompt[1] + 1, (shape.rows // shape.responses,), generator=numbers)
    prompts = [
        torch.randint(2, shape.model["vocab_size"], (int(length),), generator=numbers).tolist() for length in lengths
    ]
    seconds: dict[str, list[float]] = {"generate": [], "loop": []}
    tokens: dict[str, list[float]] = {"generate": [], "loop": []}
    for repeat in range(repeats + 1):
        for way, how in (("generate", by_transformers), ("loop", nullcontext)):
            with how():
                start = time.process_time()
                responses = sample(
                    model,
                    [prompt for prompt in prompts for _ in range(shape.responses)],
                    max_new_tokens=shape.response,
                    eos_token_id=EOS,
                    batch_size=shape.rows,
                    seed=repeat,
                )
                if repeat:
                    seconds[way].append(time.process_time() - start)
                    tokens[way].append(mean(map(len, responses)))
    return {
        "shape": name,
        "kind": kind,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rows": shape.rows,
        "prompt": float(lengths.float().mean()),
        "tokens": {way: mean(values) for way, values in tokens.items()},
        "seconds": {way: median(values) for way, values in seconds.items()},
        "ratio": median(loop / old for old, loop in zip(*seconds.values(), strict=True)),
    }


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    options.add_argument("--kind", nargs="+", choices=["full", "lora"], default=["full", "lora"])
    options.add_argument("--repeats", type=int, default=5)
    return options


if __name__ == "__main__":
    arguments = parser().parse_args()
    torch.set_num_threads(1)
    for shape_name in arguments.shape:
        for kind_name in arguments.kind:
            json.dump(measure(shape_name, kind_name, arguments.repeats), sys.stdout)
            print(flush=True)
