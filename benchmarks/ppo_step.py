"""Seconds and peak memory of one PPO update on a model of random weights, through the program's own code.

The shape is real, the weights are not: time and memory do not depend on what a model has learned. A random model hardly
ever ends a response, so every response has the full length: the figures are those of the worst case. `--cut` cuts
responses after their generation, to the same lengths whatever was sampled. On a CPU the seconds are those of the
processor, which other programs disturb least.

    python -m benchmarks.ppo_step --shape 8b --load-in-4bit
    python -m benchmarks.ppo_step --device cpu --shape 135m --dtype float32 --roles full --reward-model --cut 24
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typing_extensions import override

from pipelines.config import Config
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.data.rows import Message
from pipelines.models.adapters import add_adapter, lora_config
from pipelines.ppo.engines import RolloutEngine
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.load_roles import RoleSources, build_roles
from pipelines.ppo.roles import Role, Roles, score_head
from pipelines.ppo.rollout import PpoContext, RoleReward, TextReward
from pipelines.ppo.train import Training
from pipelines.ppo.types import AS_IT_IS
from pipelines.run.reporting import SilentReporter
from pipelines.scorers.function import FunctionScorer

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "8m": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 7,
        "num_attention_heads": 8,
        "vocab_size": 4096,
        "tie_word_embeddings": True,
    },
    # SmolLM2-135M and 360M, and Llama-3.1-8B
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "small": {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    # Qwen2.5-0.5B and 1.5B, Llama-3.2-3B
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "3b": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}
EOS = 1


def random_model(shape: str, directory: Path, device: str, dtype: str = "bfloat16") -> int:
    """Write a model of random weights with a tokenizer of the same size; returns its parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **{"vocab_size": 512, **SHAPES[shape]}, max_position_embeddings=8192, bos_token_id=None, eos_token_id=EOS
    )
    with torch.device(device):
        torch.set_default_dtype(getattr(torch, dtype))
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(directory)
    words = {f"w{index}": index for index in range(config.vocab_size)}
    raw = Tokenizer(models.WordLevel(words, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w1", pad_token="w2").save_pretrained(directory)
    return model.num_parameters()


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Run the updates; the first one warms up, and counts only where it is the only one."""
    if arguments.device == "cpu":
        time.perf_counter = time.process_time
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        parameters = random_model(arguments.shape, directory, arguments.device, arguments.dtype)
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        config = Config.model_validate(
            {
                "model": {
                    "name_or_path": str(directory),
                    "dtype": arguments.dtype,
                    "use_peft": arguments.roles == "adapters",
                    "load_in_4bit": arguments.load_in_4bit,
                    "allow_cpu_4bit": True,
                },
                "sft": {"enabled": False},
                "reward": {"enabled": False},
                "eval": {"enabled": False},
                "ppo": {
                    "reward": {"kind": "function", "function": "benchmarks.ppo_step:length_reward"},
                    "total_episodes": arguments.batch * (arguments.updates + 1),
                    "rollout_batch_size": arguments.batch,
                    "num_mini_batches": arguments.mini_batches,
                    "num_ppo_epochs": arguments.epochs,
                    "per_device_train_batch_size": arguments.micro_batch,
                    "rollout_forward_batch_size": arguments.forward_batch,
                    "max_prompt_length": arguments.prompt,
                    "response_length": arguments.response,
                    "gradient_checkpointing": arguments.gradient_checkpointing,
                    "num_eval_prompts": 0,
                    "value_model": arguments.value_model,
                },
            }
        )
        settings, device = config.ppo, torch.device(arguments.device)
        started = time.perf_counter()
        before = psutil.Process().memory_info().rss
        roles = build_roles(RoleSources(config, directory.parent, None, None, AS_IT_IS, device))
        if arguments.reward_model:
            roles = with_reward_model(roles, config)
        loading = time.perf_counter() - started
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    encoder = ChatEncoder(tokenizer)
    size = roles.policy.model.config.vocab_size
    draw = torch.Generator().manual_seed(0)
    prompts: list[EncodedPrompt] = [
        {
            "prompt_ids": torch.randint(3, size, (length,), generator=draw).tolist(),
            "messages": (Message(role="user", content="w3"),),
        }
        for length in (arguments.prompt - row % (arguments.spread + 1) for row in range(arguments.batch))
    ]
    text = TextReward(FunctionScorer("length", length_reward, "length"), encoder)
    lines: list[dict[str, float]] = []
    training = Training(
        context=PpoContext(
            roles=roles,
            engine=CutResponses(
                TransformersEngine(
                    roles, EOS, settings.response_length, settings.temperature, settings.rollout_forward_batch_size
                ),
                arguments.cut,
            ),
            reward=RoleReward(roles, settings.rollout_forward_batch_size) if arguments.reward_model else text,
            encoder=encoder,
            eos_token_id=EOS,
            settings=settings,
            accelerator=Accelerator(cpu=device.type == "cpu"),
            seed=0,
        ),
        prompts=prompts,
        held_out=[],
        reporter=SilentReporter(),
        log=lambda name, values: lines.append(dict(values)),
    )
    training.run()
    counted = lines[1:] or lines

    def median(name: str) -> float:
        return sorted(line[name] for line in counted)[len(counted) // 2]

    seconds, generation, scoring = (median(f"time/{name}") for name in ("seconds", "generation", "scoring"))
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "shape": arguments.shape,
        "parameters": parameters,
        "weights": "nf4" if arguments.load_in_4bit else arguments.dtype,
        "episodes": arguments.batch,
        "prompt": arguments.prompt,
        "response": arguments.response,
        "mean_response": sum(line["val/response_length"] for line in counted) / len(counted),
        "epochs": arguments.epochs,
        "checkpointing": arguments.gradient_checkpointing,
        "loading_s": loading,
        "update_s": seconds,
        "generation_s": generation,
        "scoring_s": scoring,
        "training_s": seconds - generation - scoring,
        "tokens_per_second": arguments.batch * (arguments.prompt + arguments.response) / seconds,
        "generated_per_second": arguments.batch * arguments.response / generation,
        "peak_gib": peak / 2**30,
        "peak_above_imports_mib": (peak - (0 if on_gpu else before)) / 2**20,
        "kl_at_start": lines[0]["objective/kl"],
        "first_ratio_deviation": lines[0]["val/first_ratio_deviation"],
    }


@dataclass(frozen=True)
class CutResponses(RolloutEngine):
    """Responses of an engine, cut to between 1 and `most` tokens; 0: as they are."""

    engine: RolloutEngine
    most: int

    @override
    def generate(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
        responses = self.engine.generate(prompts, seed=seed)
        return [ids[: 1 + 37 * row % self.most] for row, ids in enumerate(responses)] if self.most else responses


def with_reward_model(roles: Roles, config: Config) -> Roles:
    """Roles with a reward model of random weights: an adapter on the base, or a model of its own."""
    if isinstance(roles.policy.model, PeftModel):
        model = add_adapter(roles.policy.model, "reward", lora_config(config.model, "CAUSAL_LM"), trainable=False)
        return replace(roles, reward=Role(model, "reward", _random_head(model)))
    model = copy.deepcopy(roles.reference.model)
    return replace(roles, reward=Role(model, None, _random_head(model)))


def _random_head(model: torch.nn.Module) -> torch.nn.Linear:
    return score_head(torch.randn(1, model.config.hidden_size)).to(model.device)  # type: ignore[union-attr, arg-type]


def length_reward(prompts: list[list[dict[str, str]]], completions: list[str]) -> list[float]:
    """Any cheap function: the work is in the model."""
    return [len(text) / 100 for text in completions]


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--shape", choices=SHAPES, default="tiny")
    options.add_argument("--device", default="cuda")
    options.add_argument("--dtype", default="bfloat16")
    options.add_argument("--roles", choices=("adapters", "full"), default="adapters")
    options.add_argument("--value-model", choices=("zero", "shared"), default="zero")
    options.add_argument("--reward-model", action="store_true")
    options.add_argument("--load-in-4bit", action="store_true")
    options.add_argument("--gradient-checkpointing", action="store_true")
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--micro-batch", type=int, default=8)
    options.add_argument("--forward-batch", type=int, default=64)
    options.add_argument("--prompt", type=int, default=128)
    options.add_argument("--response", type=int, default=128)
    options.add_argument("--spread", type=int, default=0, help="prompts are up to this many tokens shorter")
    options.add_argument("--cut", type=int, default=0, help="responses are cut to 1 to this many tokens; 0: to none")
    options.add_argument("--mini-batches", type=int, default=4)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--updates", type=int, default=3)
    return options


if __name__ == "__main__":
    json.dump(measure(parser().parse_args()), sys.stdout)
    print()
