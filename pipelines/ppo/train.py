"""PPO from start to end: the only file that knows all its parts.

Every update is five steps: draw prompts, collect a rollout, learn from it, log and watch, now and then answer held-out
prompts. After some of them all that changes is saved, so that a killed training goes on as if nothing had been.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from pipelines.config.ppo_section import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.errors import TrainingError
from pipelines.ppo.alarms.alarms import Alarms
from pipelines.ppo.checkpoint import RandomNumbers, Stateful, load_state, save_state
from pipelines.ppo.engines.transformers_engine import RolloutEngine
from pipelines.ppo.heldout import Best, Heldout, Log
from pipelines.ppo.learner import Learner, over_processes
from pipelines.ppo.metrics import Counts, Record, update_metrics
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.roles import Roles
from pipelines.ppo.rollout import Reward, Timing, collect
from pipelines.ppo.schedules import KlController, PromptStream, learning_rate_factor
from pipelines.ppo.types import AS_IT_IS, Normalization, Rollout
from pipelines.run.checkpoints import Checkpoints
from pipelines.run.reporting import Reporter
from pipelines.run.signals import StopRequest


@dataclass(frozen=True)
class Training:
    """What a PPO training is made of.

    Attributes:
        prompts: to be answered in training, those of all processes.
        held_out: answered every `eval_steps` updates; some of the answers are written to samples.jsonl.
        eos_token_id: the id or ids that end a response.
        log: writes one line to the named .jsonl.
        normalization: of the run's reward model; as it is for any other source.
        checkpoints: where the training is saved, and goes on from; None: it is not saved.
        stop: whether somebody wants it to stop.
        best: afterwards the best policy by the held-out prompts.
    """

    roles: Roles
    engine: RolloutEngine
    reward: Reward
    encoder: ChatEncoder
    eos_token_id: int | Sequence[int]
    prompts: Sequence[EncodedPrompt]
    held_out: Sequence[EncodedPrompt]
    settings: PpoSection
    accelerator: Accelerator
    reporter: Reporter
    log: Log
    seed: int
    normalization: Normalization = AS_IT_IS
    checkpoints: Checkpoints | None = None
    stop: StopRequest = field(default_factory=lambda: StopRequest(lambda text: None))
    best: Best = field(default_factory=Best)

    def run(self) -> Record:
        """Train the policy in place, from the newest complete checkpoint where there is one.

        Returns:
            What the training went through: metrics of its start and end, evaluations, alarms.

        Raises:
            TrainingError: a score, a loss or a gradient is not finite; no step was taken with it.
            KeyboardInterrupt, SystemExit: a signal asked for it; the last update is saved.
        """
        settings = self.settings
        self._prepare()
        parts = self._parts()
        done = self._resume(parts)
        if done == 0:
            self._evaluate(0, parts)
        label = f"ppo, on from update {done}" if done else "ppo"
        with self.stop.deferred(), self.reporter.task(label, settings.num_updates - done) as progress:
            for update in range(done + 1, settings.num_updates + 1):
                rollout = self._update(update, parts)
                if update % settings.evaluation_interval == 0 or update == settings.num_updates:
                    self._evaluate(update, parts)
                stopping = self._somebody_wants_to_stop()
                if stopping or update % settings.save_steps == 0 or update == settings.num_updates:
                    self._refuse_diverged(rollout)
                    self._save(update, parts)
                progress.advance(1, **parts.record.shown())
                if stopping:
                    break
        return parts.record

    def _prepare(self) -> None:
        settings = self.settings
        self.roles.freeze_but_trained()
        if settings.gradient_checkpointing:
            self.roles.enable_gradient_checkpointing()
        if settings.top_k > 0 or settings.top_p < 1:
            self.reporter.warn(
                "ppo.top_k and ppo.top_p cut what is sampled, but the probability ratios and the KL are of the whole "
                "policy: the gradient is biased, and the KL can fall below 0"
            )

    def _parts(self) -> _Parts:
        settings, accelerator = self.settings, self.accelerator
        policy, value = self.roles.policy.parameters(), self.roles.value.parameters()
        optimizer = torch.optim.AdamW(
            [
                {"params": policy, "lr": settings.learning_rate},
                {"params": value, "lr": settings.value_learning_rate},
            ],
            eps=settings.adam_eps,
            weight_decay=0.0,
        )
        module = accelerator.prepare_model(self.roles.trained)
        return _Parts(
            learner=Learner(module, policy, value, optimizer, settings, accelerator),
            scheduler=LambdaLR(optimizer, lambda done: learning_rate_factor(settings, done)),
            controller=KlController(settings),
            normalizer=Normalizer(settings, self.normalization),
            stream=PromptStream(self.prompts, self.seed, accelerator.process_index, accelerator.num_processes),
            alarms=Alarms(settings),
            best=self.best,
            record=Record(),
            counts=Counts(),
            heldout=self._heldout(),
            shuffle=torch.Generator().manual_seed(self.seed + 100_003 * accelerator.process_index),
        )

    def _heldout(self) -> Heldout:
        return Heldout(
            prompts=self.held_out,
            roles=self.roles,
            engine=self.engine,
            reward=self.reward,
            encoder=self.encoder,
            settings=self.settings,
            eos_token_id=self.eos_token_id,
            accelerator=self.accelerator,
            log=self.log,
            seed=self.seed,
        )

    def _update(self, update: int, parts: _Parts) -> Rollout:
        """Draw prompts, collect a rollout, learn from it, log and watch."""
        settings, controller = self.settings, parts.controller
        started = time.perf_counter()
        share = settings.rollout_batch_size // self.accelerator.num_processes
        prompts = parts.stream.take(share // settings.num_generations)
        rollout, timing, figures = self._collect(prompts, update, controller.coef, parts.normalizer)
        train_policy = update > settings.value_warmup_updates
        result = parts.learner.update(rollout, parts.shuffle, train_policy=train_policy)
        seconds = time.perf_counter() - started
        reduce = over_processes(self.accelerator)
        metrics = update_metrics(rollout, result, controller.coef, timing, seconds, reduce)
        policy_rate, value_rate = parts.scheduler.get_last_lr()
        metrics |= {
            "lr": float(policy_rate),
            "value_lr": float(value_rate),
            "episode": update * settings.rollout_batch_size,
            **parts.counts.over_all(figures, reduce, self.accelerator.num_processes),
        }
        parts.scheduler.step()
        if train_policy:  # else the KL stays 0 and says nothing of the coefficient
            controller.update(metrics["objective/kl"], settings.rollout_batch_size)
        parts.record.see(metrics)
        if update % settings.logging_steps == 0 or update in (1, settings.num_updates):
            self.log("metrics", {"update": update, **metrics})
            self.accelerator.log(metrics, step=update)
        self._watch(update, metrics, parts)
        return rollout

    def _collect(
        self, prompts: Sequence[EncodedPrompt], update: int, kl_coef: float, normalizer: Normalizer
    ) -> tuple[Rollout, Timing, Mapping[str, float]]:
        """A rollout of `num_generations` responses to each prompt, side by side."""
        return collect(
            [prompt for prompt in prompts for _ in range(self.settings.num_generations)],
            self.roles,
            self.engine,
            self.reward,
            self.settings,
            kl_coef=kl_coef,
            normalizer=normalizer,
            reduce=over_processes(self.accelerator),
            eos_token_id=self.eos_token_id,
            device=self.accelerator.device,
            seed=self.seed * 1_000_003 + update + 100_000_007 * self.accelerator.process_index,
        )

    def _watch(self, update: int, metrics: Mapping[str, float], parts: _Parts) -> None:
        for alarm in parts.alarms.see(update, metrics):
            parts.record.alarms.append(asdict(alarm))
            self.log("alarms", asdict(alarm))
            self.reporter.warn(f"ppo, update {update}: {alarm.message}\n  {alarm.hint}")

    def _evaluate(self, update: int, parts: _Parts) -> None:
        """Answer the held-out prompts, and keep the policy if it is the best so far within the KL limit."""
        figures = parts.heldout.evaluate(update)
        if not figures:
            return
        parts.record.evaluated(figures)
        self.accelerator.log(figures, step=update)
        if figures["eval/kl"] <= self.settings.kl_limit:
            parts.best.offer(update, figures, self.policy_weights)

    def policy_weights(self) -> dict[str, Tensor]:
        """The parameters of the policy by name, as they are now."""
        own = {id(parameter) for parameter in self.roles.policy.parameters()}
        return {name: value for name, value in self.roles.trained.named_parameters() if id(value) in own}

    @torch.no_grad()
    def load_policy(self, weights: Mapping[str, Tensor]) -> None:
        """Put the parameters of `policy_weights` back."""
        for name, parameter in self.policy_weights().items():
            parameter.copy_(weights[name])

    def _resume(self, parts: _Parts) -> int:
        """Go back to the newest complete checkpoint; the number of updates done."""
        checkpoint = self.checkpoints.newest() if self.checkpoints else None
        if self.checkpoints is None or checkpoint is None:
            return 0
        load_state(checkpoint.path, self.roles.trained, parts.stateful(), parts.rng, self.accelerator)
        if self.accelerator.is_main_process:
            self.checkpoints.restore_logs(checkpoint)
        self.reporter.info(f"ppo: goes on from update {checkpoint.step}")
        return checkpoint.step

    def _refuse_diverged(self, rollout: Rollout) -> None:
        """Never save a policy or a value model that no longer gives finite numbers: nothing could go on from it."""
        row, temperature = rollout.rows(slice(0, 1)), self.settings.temperature
        outputs = self.roles.policy_logprobs(row, temperature, 1), self.roles.values(row, 1)
        if not all(bool(torch.isfinite(output).all()) for output in outputs):
            raise TrainingError(
                "the policy or the value model gives numbers that are not finite; they were not saved",
                hint="lower ppo.learning_rate or ppo.value_learning_rate; the last checkpoint is from before",
            )

    def _save(self, update: int, parts: _Parts) -> None:
        if self.checkpoints is None:
            return
        if self.accelerator.is_main_process:
            self.checkpoints.begin(update)
        self.accelerator.wait_for_everyone()
        directory = self.checkpoints.path(update)
        save_state(directory, self.roles.trained, parts.stateful(), parts.rng, self.accelerator)
        if self.accelerator.is_main_process:
            self.checkpoints.complete(update)
        self.accelerator.wait_for_everyone()

    def _somebody_wants_to_stop(self) -> bool:
        """Whether any process was told to stop: all of them save and stop at the same update."""
        if self.accelerator.num_processes == 1:
            return self.stop.requested
        wishes = torch.tensor(float(self.stop.requested), device=self.accelerator.device)
        wanted = bool(over_processes(self.accelerator)(wishes) > 0)
        if wanted and not self.stop.requested:
            signal.raise_signal(signal.SIGTERM)
        return wanted


@dataclass(frozen=True)
class _Parts:
    """All that changes from update to update beside the weights."""

    learner: Learner
    scheduler: LambdaLR
    controller: KlController
    normalizer: Normalizer
    stream: PromptStream
    alarms: Alarms
    best: Best
    record: Record
    counts: Counts
    heldout: Heldout
    shuffle: torch.Generator

    def stateful(self) -> dict[str, Stateful]:
        """What the first process saves for all."""
        return {
            "optimizer": self.learner.optimizer,
            "scheduler": self.scheduler,
            "controller": self.controller,
            "normalizer": self.normalizer,
            "stream": self.stream,
            "alarms": self.alarms,
            "best": self.best,
            "record": self.record,
            "counts": self.counts,
        }

    @property
    def rng(self) -> RandomNumbers:
        """What every process saves for itself."""
        return RandomNumbers(self.shuffle)
