"""PPO from start to end: the only file that knows all its parts.

`Training._update` is one update in five numbered steps, `rollout.collect` the second of them. The held-out prompts are
answered every `eval_steps` updates. Every `save_steps` updates everything that changes is saved, so that a killed
training resumes as if it had not been interrupted.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from accelerate.utils import broadcast
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from pipelines.data.encode import EncodedPrompt
from pipelines.errors import TrainingError
from pipelines.ppo.alarms.actions import KL_COEF_FACTOR, LEAST_KL_COEF, Action, Actions, is_quiet
from pipelines.ppo.alarms.alarms import Alarms
from pipelines.ppo.checkpoint import RandomNumbers, Stateful, load_state, save_state
from pipelines.ppo.good_state import GoodState
from pipelines.ppo.heldout import Best, Heldout, Log, heldout_objective
from pipelines.ppo.learner import Learner, over_processes
from pipelines.ppo.metrics import NO_ADVANTAGE, Counts, Record, update_metrics
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.rollout import PpoContext, collect
from pipelines.ppo.schedules import KlController, PromptStream, learning_rate_factor
from pipelines.ppo.types import AS_IT_IS, Normalization, Rollout
from pipelines.report.unfinished import unfinished
from pipelines.run.checkpoints import Checkpoints
from pipelines.run.reporting import Reporter
from pipelines.run.signals import StopRequest

MOSTLY = 0.5
"""Share of responses without an advantage above which the first update warns."""


@dataclass(frozen=True)
class Training:
    """A PPO training.

    Attributes:
        context: models and settings.
        prompts: prompts to train on, of all processes.
        held_out: prompts answered every `eval_steps` updates; some of the answers are written to samples.jsonl.
        reporter: shows progress and warnings.
        log: writes one line to the named .jsonl.
        normalization: normalization of the run's reward model; `AS_IT_IS` for any other source.
        checkpoints: where the training is saved and resumed from; None: it is not saved.
        stop: request of a signal to stop.
        best: afterwards, the best policy by the held-out prompts.
        actions: afterwards, what alarms have done to the training.
        label: name of the training in messages.
    """

    context: PpoContext
    prompts: Sequence[EncodedPrompt]
    held_out: Sequence[EncodedPrompt]
    reporter: Reporter
    log: Log
    normalization: Normalization = AS_IT_IS
    checkpoints: Checkpoints | None = None
    stop: StopRequest = field(default_factory=lambda: StopRequest(lambda text: None))
    best: Best = field(default_factory=Best)
    actions: Actions = field(default_factory=Actions)
    label: str = "ppo"

    def run(self) -> Record:
        """Train the policy in place, from the newest complete checkpoint where there is one.

        Returns:
            Metrics of the start and the end, evaluations and alarms.

        Raises:
            TrainingError: a score, a loss or a gradient is not finite; no step was taken with it.
            KeyboardInterrupt, SystemExit: a signal asked to stop; the last update is saved.
        """
        settings = self.context.settings
        self._prepare()
        parts = self._parts()
        completed = self._resume(parts)
        if completed == 0:
            self._evaluate(0, parts)
            if parts.good is not None:
                parts.good.begin()
        with self.stop.deferred(), self.reporter.task(self.label, self.last_update, completed) as progress:
            for update in range(completed + 1, self.last_update + 1):
                rollout = self._update(update, parts)
                if update % settings.evaluation_interval == 0 or update == self.last_update:
                    self._evaluate(update, parts)
                stopping = self._stop_requested()
                if stopping or update % settings.save_steps == 0 or update == self.last_update:
                    self._refuse_diverged(rollout)
                    self._save(update, parts)
                progress.advance(1, **parts.record.progress())
                if stopping or self.actions.stopped is not None:
                    break
        return parts.record

    @property
    def last_update(self) -> int:
        """Number of the last update: that of an alarm that stopped the training, else that of the settings."""
        settings = self.context.settings
        return self.actions.stopped or settings.last_update or settings.num_updates

    def _prepare(self) -> None:
        settings = self.context.settings
        self.context.roles.freeze_but_trained()
        if settings.gradient_checkpointing:
            self.context.roles.enable_gradient_checkpointing()
        if settings.cuts_sampling:
            self.reporter.warn(
                "ppo.top_k and ppo.top_p cut what is sampled, but the probability ratios and the KL are of the whole "
                "policy: the gradient is biased, and the KL can fall below 0"
            )

    def _parts(self) -> _Parts:
        settings, accelerator = self.context.settings, self.context.accelerator
        roles = self.context.roles
        policy, value = roles.policy.parameters(), roles.value.parameters() if roles.value is not None else []
        groups = [{"params": policy, "lr": settings.learning_rate}]
        if value:
            groups.append({"params": value, "lr": settings.value_learning_rate})
        optimizer = torch.optim.AdamW(groups, eps=settings.adam_eps, weight_decay=0.0, fused=True)
        for parameter in (*policy, *value):
            broadcast(parameter.data)  # what a process drew by itself
        normalizer, alarms = Normalizer(settings, self.normalization), Alarms(settings)
        good = None
        if settings.on_alarm == "act":
            going_back: dict[str, Stateful] = {"optimizer": optimizer, "normalizer": normalizer, "alarms": alarms}
            good = GoodState(roles.trained, going_back)
        return _Parts(
            learner=Learner(roles.trained, policy, value, optimizer, settings, accelerator),
            scheduler=LambdaLR(optimizer, self._rate_factor),
            controller=KlController(settings),
            normalizer=normalizer,
            stream=PromptStream(self.prompts, self.context.seed, accelerator.process_index, accelerator.num_processes),
            alarms=alarms,
            actions=self.actions,
            good=good,
            best=self.best,
            record=Record(),
            counts=Counts(),
            heldout=Heldout(self.context, self.held_out, self.log),
            shuffle=torch.Generator().manual_seed(self.context.seed + 100_003 * accelerator.process_index),
        )

    def _update(self, update: int, parts: _Parts) -> Rollout:
        """Make one update."""
        settings, accelerator, controller = self.context.settings, self.context.accelerator, parts.controller
        reduce = over_processes(accelerator)
        started = time.perf_counter()
        # 1. Draw prompts.
        share = settings.rollout_batch_size // accelerator.num_processes
        prompts = parts.stream.take(share // settings.num_generations)
        # 2. Collect a rollout: `num_generations` responses to each prompt, side by side.
        rollout, timing, figures = collect(
            self.context,
            [prompt for prompt in prompts for _ in range(settings.num_generations)],
            kl_coef=controller.coef,
            normalizer=parts.normalizer,
            seed=self._rollout_seed(update),
        )
        # 3. Learn from it.
        train_policy = update > settings.value_warmup_updates
        result = parts.learner.update(rollout, parts.shuffle, train_policy=train_policy)
        # 4. Measure, and move learning rates and the KL coefficient.
        seconds = time.perf_counter() - started
        metrics = update_metrics(rollout, result, controller.coef, timing, seconds, reduce)
        rates = map(float, parts.scheduler.get_last_lr())
        metrics |= {
            **dict(zip(("lr", "value_lr"), rates, strict=False)),  # the second where there is a value model
            "episode": update * settings.rollout_batch_size,
            **parts.counts.over_all(figures, reduce, accelerator.num_processes),
        }
        parts.scheduler.step()
        if train_policy:  # else the KL stays 0 and says nothing about the coefficient
            controller.update(metrics["objective/kl"], settings.rollout_batch_size)
        # 5. Log, and raise alarms.
        parts.record.see(metrics)
        if update % settings.logging_steps == 0 or update in (1, self.last_update):
            self.log("metrics", {"update": update, **metrics})
            accelerator.log(metrics, step=update)
        if update == 1:
            self._say_unfinished(metrics["val/finished"])
            self._say_equal(metrics.get(NO_ADVANTAGE, 0.0))
        self._raise_alarms(update, metrics, parts)
        return rollout

    def _rate_factor(self, completed: int) -> float:
        """Factor of both learning rates after `completed` updates: that of the schedule, halved at every return."""
        return learning_rate_factor(self.context.settings, completed) * self.actions.rate_factor

    def _rollout_seed(self, update: int) -> int:
        """Seed of the responses of an update; every process and every update has its own."""
        rank: int = self.context.accelerator.process_index
        return self.context.seed * 1_000_003 + update + 100_000_007 * rank

    def _say_unfinished(self, finished: float) -> None:
        """Say it where many of the first responses do not end: PPO only makes likelier what the policy does already."""
        told = unfinished(finished, self.context.settings.response_length, "the responses of the first update")
        if told is not None:
            hint = "train SFT longer, name the token that ends a turn in ppo.stop_tokens, or raise ppo.response_length"
            self.reporter.warn(f"{self.label}: {told}\n  {hint}")

    def _say_equal(self, share: float) -> None:
        """Say it where most of the first responses have the reward of all others to their prompt."""
        if share > MOSTLY:
            self.reporter.warn(
                f"{self.label}: {share:.0%} of the responses of the first update teach nothing: all responses to their "
                "prompt have the same reward\n  more responses to each prompt, a higher ppo.temperature, or a reward "
                "that tells more answers apart"
            )

    def _raise_alarms(self, update: int, metrics: Mapping[str, float], parts: _Parts) -> None:
        for name in self.actions.due_again(update):
            parts.alarms.rearm(name)
        alarms = parts.alarms.see(update, metrics)
        done = {} if parts.good is None else self._act(update, self.actions.decide(update, alarms), parts, parts.good)
        for alarm in alarms:
            line = asdict(alarm) | done
            parts.record.alarms.append(line)
            self.log("alarms", line)
            self.reporter.warn(f"{self.label}, update {update}: {alarm.message}\n  {alarm.hint}")
        if alarms and done.get("done"):
            self.reporter.warn(f"{self.label}, update {update}: {done['done']}")

    def _act(self, update: int, action: Action, parts: _Parts, good: GoodState) -> dict[str, str]:
        """Do what the alarms of an update call for; return the fields that say so in alarms.jsonl."""
        before, done = parts.controller.coef, ""
        if action in (Action.RAISE_KL_COEF, Action.GO_BACK):
            parts.controller.strengthen(KL_COEF_FACTOR, LEAST_KL_COEF)
            done = f"kl_coef was raised from {before:.3g} to {parts.controller.coef:.3g}"
        if action in (Action.GO_BACK, Action.STOP):
            self.actions.returned = (update, good.restore())
            self._set_rates(parts)
        if action is Action.GO_BACK:
            done = f"went back to the state after update {good.update}, with half the learning rates; {done}"
        if action is Action.STOP:
            done = f"stopped; the policy after update {good.update}, the last good one, is kept"
        good.see(update, quiet=action is Action.NONE and is_quiet(parts.alarms.active))
        return {"action": action.word, "done": done}

    @staticmethod
    def _set_rates(parts: _Parts) -> None:
        """Set the learning rates, which went back with the optimizer, to those of the next update."""
        rates = [base * parts.scheduler.lr_lambdas[0](parts.scheduler.last_epoch) for base in parts.scheduler.base_lrs]
        for group, rate in zip(parts.learner.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        parts.scheduler.load_state_dict(parts.scheduler.state_dict() | {"_last_lr": rates})

    def _evaluate(self, update: int, parts: _Parts) -> None:
        """Answer the held-out prompts, and keep the policy if it is the best so far within the KL limit."""
        answers = parts.heldout.answer(update)
        if answers is None:
            return
        objective = functools.partial(heldout_objective, normalizer=parts.normalizer, kl_coef=parts.controller.coef)
        figures = answers.figures() | {"eval/objective": objective(answers)}
        self.log("heldout", {"update": update, **figures})
        parts.record.evaluated(figures)
        self.context.accelerator.log(figures, step=update)
        if figures["eval/kl"] <= self.context.settings.kl_limit:
            parts.best.offer(self.actions.origin(update), figures, answers, objective, self.policy_weights)

    def policy_weights(self) -> dict[str, Tensor]:
        """Return the current parameters of the policy by name."""
        own = {id(parameter) for parameter in self.context.roles.policy.parameters()}
        return {name: value for name, value in self.context.roles.trained.named_parameters() if id(value) in own}

    @torch.no_grad()
    def load_policy(self, weights: Mapping[str, Tensor]) -> None:
        """Set the parameters of the policy to `weights`, as `policy_weights` returned them."""
        for name, parameter in self.policy_weights().items():
            parameter.copy_(weights[name])

    def _resume(self, parts: _Parts) -> int:
        """Load the newest complete checkpoint; return the number of updates it holds, 0 without one."""
        checkpoint = self.checkpoints.newest() if self.checkpoints else None
        if self.checkpoints is None or checkpoint is None:
            return 0
        load_state(checkpoint.path, self.context.roles.trained, parts.stateful(), parts.rng, self.context.accelerator)
        if self.context.accelerator.is_main_process:
            self.checkpoints.restore_logs(checkpoint)
        self.reporter.info(f"{self.label}: goes on from update {checkpoint.step}")
        return checkpoint.step

    def _refuse_diverged(self, rollout: Rollout) -> None:
        """Refuse to save a policy or a value model whose outputs are no longer finite: nothing could resume from it."""
        roles, settings = self.context.roles, self.context.settings
        chunk = settings.rollout_forward_batch_size
        rows = rollout.rows(range(min(chunk, len(rollout))))  # a diverged model may give some row finite numbers
        outputs = [roles.policy_logprobs(rows, settings.temperature, chunk)]
        outputs += [roles.values(rows, chunk)] if roles.value is not None else []
        if not all(bool(torch.isfinite(output).all()) for output in outputs):
            raise TrainingError(
                "the policy or the value model gives numbers that are not finite; they were not saved",
                hint="lower ppo.learning_rate or ppo.value_learning_rate; the last checkpoint is from before",
            )

    def _save(self, update: int, parts: _Parts) -> None:
        if self.checkpoints is None:
            return
        if self.context.accelerator.is_main_process:
            self.checkpoints.begin(update)
        self.context.accelerator.wait_for_everyone()
        directory = self.checkpoints.path(update)
        save_state(directory, self.context.roles.trained, parts.stateful(), parts.rng, self.context.accelerator)
        if self.context.accelerator.is_main_process:
            self.checkpoints.complete(update)
        self.context.accelerator.wait_for_everyone()

    def _stop_requested(self) -> bool:
        """Whether a signal reached any process: all of them save and stop at the same update."""
        if self.context.accelerator.num_processes == 1:
            return self.stop.requested
        requests = torch.tensor(float(self.stop.requested), device=self.context.accelerator.device)
        requested = bool(over_processes(self.context.accelerator)(requests) > 0)
        if requested and not self.stop.requested:
            signal.raise_signal(signal.SIGTERM)
        return requested


@dataclass(frozen=True)
class _Parts:
    """Everything that changes from update to update, beside the weights."""

    learner: Learner
    scheduler: LambdaLR
    controller: KlController
    normalizer: Normalizer
    stream: PromptStream
    alarms: Alarms
    actions: Actions
    good: GoodState | None
    best: Best
    record: Record
    counts: Counts
    heldout: Heldout
    shuffle: torch.Generator

    def stateful(self) -> dict[str, Stateful]:
        """State that the first process saves for all."""
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
            **({} if self.good is None else {"actions": self.actions, "good": self.good}),
        }

    @property
    def rng(self) -> RandomNumbers:
        """State that every process saves for itself."""
        return RandomNumbers(self.shuffle)
