"""Our PPO beside the last TRL that had PPO (1.12.0): seconds an update and peak memory.

Same random models, prompts and work: full fine-tuning of four separate models in fp32 on one CPU thread. The stop token
is outside the vocabulary of the models, so every response has the full length. TRL's accelerator is told how many
micro-batches a minibatch has: left alone, TRL steps once an epoch and ignores `num_mini_batches`.

    python -m benchmarks.versus_trl ours --shape a --updates 3
    python -m benchmarks.versus_trl compare --trl-python other-venv/bin/python
    python -m benchmarks.versus_trl ours --shape c --device cuda    # and `trl`, with TRL 1.12.0 on PYTHONPATH
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Shape:
    """The models, and the work of one update."""

    hidden: int
    layers: int
    heads: int
    vocab: int
    episodes: int
    prompt: int
    response: int
    updates: int
    epochs: int = 2
    minibatches: int = 4
    micro_batch: int = 16

    @property
    def rows(self) -> int:
        """Rows in one backward: a minibatch may be smaller than a micro-batch."""
        return min(self.micro_batch, self.episodes // self.minibatches)

    @property
    def stop(self) -> int:
        """The first id that no model can draw; the next one pads."""
        return self.vocab


SHAPES = {
    "a": Shape(hidden=128, layers=2, heads=8, vocab=768, episodes=64, prompt=24, response=48, updates=11),
    "b": Shape(hidden=384, layers=6, heads=6, vocab=4096, episodes=32, prompt=64, response=64, updates=4),
    # for a GPU
    "c": Shape(hidden=1024, layers=12, heads=16, vocab=32000, episodes=64, prompt=128, response=128, updates=4),
}
LEARNING_RATE = 1e-6


def random_models(shape: Shape, device: str) -> tuple[Any, Any, Any, Any]:
    """Policy, its equal the reference, value, its equal the reward model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=2 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        num_labels=1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )

    def make(kind: Any) -> Any:
        torch.manual_seed(0)
        return kind(config).eval().to(device)

    return (
        make(LlamaForCausalLM),
        make(LlamaForCausalLM),
        make(LlamaForSequenceClassification),
        make(LlamaForSequenceClassification),
    )


def tokenizer(shape: Shape) -> Any:
    """One word an id; stop and pad stand beyond the models' vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{index}": index for index in range(shape.vocab + 2)}
    raw = Tokenizer(models.WordLevel(words, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=f"w{shape.stop}", pad_token=f"w{shape.stop + 1}", padding_side="left"
    )


def prompts(shape: Shape, updates: int) -> list[list[int]]:
    """Random ids, all of one length."""
    import torch

    draw = torch.Generator().manual_seed(0)
    return torch.randint(3, shape.vocab, (shape.episodes * updates, shape.prompt), generator=draw).tolist()


@dataclass
class Measured:
    """What one program gave.

    Attributes:
        seconds: of each update.
        cpu: processor seconds of each update but the first: what other programs on the machine disturb least.
        generation, scoring: their share of `seconds`.
        steps: optimizer steps an update.
        before: MiB with the models loaded and nothing run.
    """

    seconds: list[float]
    cpu: list[float]
    generation: list[float]
    scoring: list[float]
    steps: float
    parameters: int
    before: float


def resident() -> float:
    """MiB of this process now."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def differences(marks: list[float]) -> list[float]:
    """From each mark to the next."""
    return [end - start for start, end in pairwise(marks)]


def measure_ours(shape: Shape, updates: int, device: str) -> Measured:
    """`pipelines.ppo.train.Training` on roles built as the program builds them for full fine-tuning."""
    from accelerate import Accelerator

    from pipelines.config.ppo_section import PpoSection
    from pipelines.data.chat import ChatEncoder
    from pipelines.data.rows import Message
    from pipelines.ppo.engines.transformers_engine import TransformersEngine
    from pipelines.ppo.roles import PolicyAndValue, Role, Roles, score_head, value_head
    from pipelines.ppo.rollout import PpoContext, RoleReward
    from pipelines.ppo.train import Training
    from pipelines.ppo.types import Normalization
    from pipelines.run.reporting import SilentReporter

    policy, reference, trunk, judge = random_models(shape, device)
    weight = judge.score.weight
    value = Role(trunk, None, value_head(shape.hidden, weight, Normalization()))
    value.head.to(device)
    roles = Roles(
        PolicyAndValue(Role(policy), value), Role(reference), Role(judge, None, score_head(weight).to(device))
    )
    settings = PpoSection(
        total_episodes=shape.episodes * updates,
        rollout_batch_size=shape.episodes,
        num_ppo_epochs=shape.epochs,
        num_mini_batches=shape.minibatches,
        per_device_train_batch_size=shape.rows,
        rollout_forward_batch_size=shape.episodes,
        max_prompt_length=shape.prompt,
        response_length=shape.response,
        learning_rate=LEARNING_RATE,
        value_learning_rate=LEARNING_RATE,
        num_eval_prompts=0,
    )
    lines: list[dict[str, float]] = []
    clock: list[float] = []

    def log(name: str, values: Any) -> None:
        lines.append(dict(values))
        clock.append(time.process_time())

    words = (Message(role="user", content="w3"),)
    training = Training(
        context=PpoContext(
            roles=roles,
            engine=TransformersEngine(roles, shape.stop, shape.response, settings.temperature, shape.episodes),
            reward=RoleReward(roles, shape.episodes),
            encoder=ChatEncoder(tokenizer(shape)),
            eos_token_id=shape.stop,
            settings=settings,
            accelerator=Accelerator(cpu=device == "cpu"),
            seed=0,
        ),
        prompts=[{"prompt_ids": ids, "messages": words} for ids in prompts(shape, updates)],
        held_out=[],
        reporter=SilentReporter(),
        log=log,
    )
    before = resident()
    training.run()
    assert all(line["val/response_length"] == shape.response for line in lines)
    return Measured(
        seconds=[line["time/seconds"] for line in lines],
        cpu=differences(clock),
        generation=[line["time/generation"] for line in lines],
        scoring=[line["time/scoring"] for line in lines],
        steps=sum(line["val/optimizer_steps"] for line in lines) / updates,
        parameters=policy.num_parameters(),
        before=before,
    )


def measure_trl(shape: Shape, updates: int, device: str) -> Measured:
    """TRL's PPOTrainer, timed at two of its functions and at the end of each update."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset
    from transformers import TrainerCallback

    # the peer, in an environment of its own: no part of this program imports it
    peer = importlib.import_module("trl.experimental.ppo")
    ppo_trainer, PPOConfig, PPOTrainer = peer.ppo_trainer, peer.PPOConfig, peer.PPOTrainer

    policy, reference, value, judge = random_models(shape, device)
    marks: dict[str, list[float]] = {"end": [], "cpu": [], "generation": [], "scored": []}
    generate, whiten = ppo_trainer.batch_generation, ppo_trainer.masked_whiten
    steps = 0

    def timed_generation(*given: Any) -> Any:
        started = time.perf_counter()
        result = generate(*given)
        marks["generation"].append(time.perf_counter() - started)
        assert result[1].shape[1] == shape.response
        return result

    def last_of_scoring(*given: Any, **named: Any) -> Any:
        result = whiten(*given, **named)
        marks["scored"].append(time.perf_counter())
        return result

    ppo_trainer.batch_generation, ppo_trainer.masked_whiten = timed_generation, last_of_scoring

    class Clock(TrainerCallback):
        def on_train_begin(self, *given: Any, **named: Any) -> None:
            marks["end"].append(time.perf_counter())

        def on_step_end(self, *given: Any, **named: Any) -> None:
            marks["end"].append(time.perf_counter())
            marks["cpu"].append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder,
                total_episodes=shape.episodes * updates,
                per_device_train_batch_size=shape.rows,
                gradient_accumulation_steps=shape.episodes // shape.rows,
                num_mini_batches=shape.minibatches,
                num_ppo_epochs=shape.epochs,
                local_rollout_forward_batch_size=shape.episodes,
                response_length=shape.response,
                stop_token="eos",
                missing_eos_penalty=1.0,
                temperature=1.0,
                learning_rate=LEARNING_RATE,
                num_sample_generations=0,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=device == "cpu",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            processing_class=tokenizer(shape),
            model=policy,
            ref_model=reference,
            reward_model=judge,
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": prompts(shape, updates)}),
            eval_dataset=Dataset.from_dict({"input_ids": prompts(shape, 1)}),
            callbacks=[Clock()],
        )
        # else one step an epoch
        trainer.accelerator.gradient_accumulation_steps = shape.episodes // shape.minibatches // shape.rows

        def count(*given: Any) -> None:
            nonlocal steps
            steps += 1

        trainer.optimizer.optimizer.register_step_post_hook(count)
        before = resident()
        trainer.train()
    scoring = [
        scored - start - generation
        for start, generation, scored in zip(marks["end"], marks["generation"], marks["scored"], strict=False)
    ]
    return Measured(
        seconds=differences(marks["end"]),
        cpu=differences(marks["cpu"]),
        generation=marks["generation"],
        scoring=scoring,
        steps=steps / updates,
        parameters=policy.num_parameters(),
        before=before,
    )


def measure(program: str, name: str, updates: int, device: str) -> dict[str, Any]:
    """Run the updates; the first one warms up and is not counted."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
    shape = SHAPES[name]
    found = {"ours": measure_ours, "trl": measure_trl}[program](shape, updates, device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    assert found.steps == shape.epochs * shape.minibatches, f"{found.steps} optimizer steps an update"
    seconds, generation, scoring = found.seconds[1:], found.generation[1:], found.scoring[1:]
    training = [all_ - made - scored for all_, made, scored in zip(seconds, generation, scoring, strict=True)]
    return {
        "program": program,
        "shape": name,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "updates_counted": len(seconds),
        "parameters": found.parameters,
        "optimizer_steps": found.steps,
        "update_s": {"median": median(seconds), "min": min(seconds), "max": max(seconds)},
        "cpu_s": median(found.cpu),
        "generation_s": median(generation),
        "scoring_s": median(scoring),
        "training_s": median(training),
        "before_mib": found.before,
        "peak_mib": peak,
        "versions": {package: version(package) for package in ("torch", "transformers", "trl", "accelerate")}
        | {"python": platform.python_version()},
    }


def compare(trl_python: str, names: list[str], pairs: int, updates: int | None) -> Path:
    """Both programs in turn, each run a process of its own; writes the table."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    runs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for name in names:
        for _ in range(pairs):
            pair = []
            for program, python in (("ours", sys.executable), ("trl", trl_python)):
                count = str(updates or SHAPES[name].updates)
                command = [python, "-m", "benchmarks.versus_trl", program, "--shape", name, "--updates", count]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                line = done.stdout.strip().splitlines()[-1]
                print(line, flush=True)
                pair.append(json.loads(line))
            runs.setdefault(name, []).append((pair[0], pair[1]))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date.today().isoformat()}-versus-trl-1.12.md"
    path.write_text(report(runs))
    return path


def report(runs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]) -> str:
    """The table in Markdown."""
    ours, trl = (next(iter(runs.values()))[0][side]["versions"] for side in (0, 1))
    lines = [
        "# PPO beside TRL 1.12.0",
        "",
        f"{date.today().isoformat()}; {platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread.",
        "",
        f"- ours: {', '.join(f'{name} {number}' for name, number in ours.items() if name != 'trl')}",
        f"- TRL: {', '.join(f'{name} {number}' for name, number in trl.items())}",
        "",
        "Full fine-tuning, four separate models, fp32, random weights, every response of full length, the same number",
        "of optimizer steps (TRL's accumulation set right: left alone it steps once an epoch). Runs alternate; the",
        'first update of each is not counted. Seconds and MiB are medians over the runs; "before" is the memory with',
        "the models loaded and nothing run.",
        "",
        "Not equal, because the programs differ: ours works out the sampled tokens' log-probabilities once more by the",
        "forward that trains, and clips gradients; TRL takes them from the scores that `generate` keeps, never clips,",
        "computes logits of the prompt too, and steps with fused AdamW (the default of transformers).",
    ]
    for name, pairs in runs.items():
        shape = asdict(SHAPES[name])
        steps = pairs[0][0]["optimizer_steps"]
        lines += [
            "",
            f"## Shape {name}: {pairs[0][0]['parameters'] / 1e6:.1f} M parameters",
            "",
            f"Hidden {shape['hidden']}, {shape['layers']} layers, vocabulary {shape['vocab']}; {shape['episodes']} "
            f"episodes, prompt {shape['prompt']}, response {shape['response']}, {shape['epochs']} epochs x "
            f"{shape['minibatches']} minibatches ({steps:.0f} optimizer steps), {SHAPES[name].rows} rows in a "
            f"backward; {len(pairs)} pairs of runs, {pairs[0][0]['updates_counted']} updates counted in each.",
            "",
            "| | update s | fastest - slowest | processor s | generation | scoring | training | peak MiB | before |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for side, label in enumerate(("ours", "TRL")):
            side_runs = [pair[side] for pair in pairs]
            of = {
                key: median(run[key] for run in side_runs)
                for key in side_runs[0]
                if key.endswith(("_s", "_mib")) and key != "update_s"
            }
            update = median(run["update_s"]["median"] for run in side_runs)
            low = min(run["update_s"]["min"] for run in side_runs)
            high = max(run["update_s"]["max"] for run in side_runs)
            parts = " | ".join(f"{of[key]:.2f}" for key in ("cpu_s", "generation_s", "scoring_s", "training_s"))
            memory = f"{of['peak_mib']:.0f} | {of['before_mib']:.0f}"
            lines.append(f"| {label} | {update:.2f} | {low:.2f} - {high:.2f} | {parts} | {memory} |")
        lines += [
            "",
            "| ours / TRL in each pair (below 1: ours is better) | median | min | max |",
            "|---|---|---|---|",
        ]
        for label, key in (
            ("seconds an update", "update_s"),
            ("processor seconds an update", "cpu_s"),
            ("generation", "generation_s"),
            ("scoring", "scoring_s"),
            ("training", "training_s"),
            ("peak memory", "peak_mib"),
        ):
            numbers = [[run[key]["median"] if key == "update_s" else run[key] for run in pair] for pair in pairs]
            ratios = [left / right for left, right in numbers]
            lines.append(f"| {label} | {median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |")
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    """The commands."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = options.add_subparsers(dest="command", required=True)
    for program in ("ours", "trl"):
        one = commands.add_parser(program)
        one.add_argument("--shape", choices=SHAPES, default="a")
        one.add_argument("--updates", type=int, default=3, help="the first is not counted")
        one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    both = commands.add_parser("compare")
    both.add_argument("--trl-python", required=True, help="python of an environment with TRL 1.12.0")
    both.add_argument("--shapes", nargs="+", choices=SHAPES, default=["a", "b"])
    both.add_argument("--pairs", type=int, default=3)
    both.add_argument("--updates", type=int, default=None, help="of every run; else the shape's own number")
    return options


def main() -> None:
    """Print one JSON line, or write the table."""
    arguments = parser().parse_args()
    if arguments.command == "compare":
        print(compare(arguments.trl_python, arguments.shapes, arguments.pairs, arguments.updates).name)
        return
    print(json.dumps(measure(arguments.command, arguments.shape, arguments.updates, arguments.device)))


if __name__ == "__main__":
    main()
