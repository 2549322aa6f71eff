"""Tiny PPO runs: healthy ones, and ones that are broken on purpose, each in the way that one alarm is there for."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typing_extensions import override

from pipelines.config.ppo_section import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.data.rows import Message
from pipelines.models.generate import sample
from pipelines.ppo.alarms.alarms import Alarm
from pipelines.ppo.engines import RolloutEngine
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.roles import Roles
from pipelines.ppo.rollout import PpoContext, TextReward
from pipelines.ppo.train import Log, Training
from pipelines.run.reporting import SilentReporter
from pipelines.scorers.function import FunctionScorer, RewardFunction
from tests.ppo.cast import cast

WORDS = ["a", "b", "c", "d", "e", "f", "g", "</s>"]
EOS = 7
ROWS = 32
PROMPTS: list[EncodedPrompt] = [
    {"prompt_ids": ids, "messages": (Message(role="user", content=" ".join(WORDS[i] for i in ids)),)}
    for ids in ([2, 3], [3, 2, 4], [5], [6, 2])
]
SETTINGS: Mapping[str, Any] = {
    "rollout_batch_size": ROWS,
    "num_ppo_epochs": 2,
    "num_mini_batches": 2,
    "per_device_train_batch_size": ROWS,
    "response_length": 12,
    "learning_rate": 1e-3,
    "value_learning_rate": 5e-3,
    "kl_coef": 0.1,
    "missing_eos_penalty": 0.0,
}
Wrap = Callable[[Roles, TransformersEngine], RolloutEngine]


@dataclass(frozen=True)
class Run:
    """A run of 32 responses an update.

    Attributes:
        what: what is wrong with it, in words.
        reward: makes the reward function, once a run.
        settings: changes to `SETTINGS`.
        engine: puts another rollout engine in the place of the right one.
    """

    what: str
    reward: Callable[[], RewardFunction]
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: Wrap = lambda roles, right: right


def words(score: Callable[[list[str]], float]) -> Callable[[], RewardFunction]:
    """A reward on the words of each completion."""
    return lambda: lambda prompts, completions: [score(text.split()) for text in completions]


def noise() -> RewardFunction:
    """Numbers that have nothing to do with the answers."""
    draw = Random(0)
    return lambda prompts, completions: [draw.gauss(0, 1) for _ in completions]


def growing() -> RewardFunction:
    """Scores that are a thousand times as large from the sixth batch on, as when a server changes its model."""
    scales = itertools.chain([1.0] * 5, itertools.repeat(1000.0))
    return lambda prompts, completions: [
        scale * a_first(text.split()) for scale in [next(scales)] for text in completions
    ]


def a_first(text: list[str]) -> float:
    """Share of `a` among the first four words: neither long nor short answers are better."""
    return text[:4].count("a") / 4


@dataclass(frozen=True)
class Stale(RolloutEngine):
    """An engine that never sees the policy's new weights, as one that was given a copy at the start."""

    roles: Roles
    right: TransformersEngine

    @override
    def generate(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
        right = self.right
        with self.roles.reference.active() as model:
            return sample(
                model,
                prompts,
                max_new_tokens=right.response_length,
                temperature=right.temperature,
                eos_token_id=right.eos_token_id,
                batch_size=right.batch_size,
                seed=seed,
            )


@dataclass(frozen=True)
class LeavesDropoutOn(RolloutEngine):
    """An engine that hands the policy back in training mode, dropout on."""

    roles: Roles
    right: RolloutEngine

    @override
    def generate(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
        responses = self.right.generate(prompts, seed=seed)
        model = self.roles.policy.model.train()
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.3
        return responses


HEALTHY = Run("nothing: a share of `a` among the first four words", words(a_first))
BROKEN: dict[str, Run] = {
    "kl_high": Run(
        "no KL penalty, learning rate times ten, and a limit of 10 nats",
        words(lambda text: text.count("a") / 4),
        {"learning_rate": 1e-2, "kl_coef": 0.0, "kl_limit": 10.0},
    ),
    "kl_negative": Run("the engine samples with the weights of the start", words(a_first), engine=Stale),
    "length_running_away": Run(
        "a reward for every word", words(lambda text: len(text) / 4), {"response_length": 32, "learning_rate": 3e-3}
    ),
    "length_collapsing": Run(
        "a reward for the share of `a`: one word reaches it as well as ten",
        words(lambda text: text.count("a") / max(1, len(text))),
        {"learning_rate": 3e-3},
    ),
    "finished_falling": Run(
        "a reward for not ending", words(lambda text: float(len(text) == 12)), {"learning_rate": 3e-3}
    ),
    "entropy_collapse": Run("a learning rate of 1", words(a_first), {"learning_rate": 1.0}),
    "clip_fraction": Run(
        "learning rate times twenty, and six epochs", words(a_first), {"learning_rate": 2e-2, "num_ppo_epochs": 6}
    ),
    "explained_variance": Run("a reward of pure noise", noise),
    "score_with_length": Run(
        "a reward that counts `a` where it should take a share",
        words(lambda text: text.count("a") / 4),
        {"response_length": 24, "learning_rate": 2e-3},
    ),
    "scores_clipped": Run("a reward far from unit scale", words(lambda text: 10.0 * text.count("a"))),
    "ratio_at_start": Run("dropout is on in training", words(a_first), engine=LeavesDropoutOn),
    "grad_norm": Run("scores become a thousand times as large", growing, {"reward_clip": None}),
}
"""By the alarm that each is made for."""


def alarms_of(run: Run, seed: int = 0, *, updates: int = 25, until: str | None = None) -> list[Alarm]:
    """The alarms that a run sets off.

    Args:
        seed: of the model and of the training.
        updates: its length.
        until: the run ends with this alarm.
    """
    fired: list[Alarm] = []

    def see(name: str, values: Mapping[str, Any]) -> None:
        if name == "alarms":
            fired.append(Alarm(**values))
        if any(alarm.name == until for alarm in fired):
            raise _EndedError

    with contextlib.suppress(_EndedError):
        training_of(run, seed, updates=updates, log=see).run()
    return fired


def training_of(run: Run, seed: int = 0, *, updates: int, log: Log, **settings: Any) -> Training:
    """A training that is ready to run.

    Args:
        seed: of the model and of the training.
        updates: its length.
        log: gets every line of its logs.
        settings: changes to those of the run.
    """
    section = PpoSection(**{**SETTINGS, **run.settings, **settings}, total_episodes=updates * ROWS)
    return _training(run, section, seed, log)


class _EndedError(Exception):
    pass


def _training(run: Run, settings: PpoSection, seed: int, log: Log) -> Training:
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="g"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = ChatEncoder(PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="</s>"))
    roles = cast(_model(seed))
    right = TransformersEngine(roles, EOS, settings.response_length, settings.temperature, ROWS)
    return Training(
        context=PpoContext(
            roles=roles,
            engine=run.engine(roles, right),
            reward=TextReward(FunctionScorer("toy", run.reward(), "toy:reward"), encoder),
            encoder=encoder,
            eos_token_id=EOS,
            settings=settings,
            accelerator=Accelerator(cpu=True),
            seed=seed,
        ),
        prompts=PROMPTS,
        held_out=[],
        reporter=SilentReporter(),
        log=log,
    )


def _model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=EOS,
            initializer_range=0.1,
        )
    )
