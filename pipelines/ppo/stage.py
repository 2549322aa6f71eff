"""The `ppo` stage: load roles, prompts and reward source, train, publish the policy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from transformers import GenerationConfig, PreTrainedTokenizerBase, set_seed

from pipelines.config.ppo_section import PpoSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.canonical import read_rows
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt, encode_prompts
from pipelines.data.prompts import sample_prompts
from pipelines.data.refusals import RefusedRows
from pipelines.data.rows import Prompt
from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.models.base_fit import check_vocabulary
from pipelines.models.base_model import prompt_limit
from pipelines.models.base_ref import BaseRef
from pipelines.models.generate import end_token_ids, stop_token_ids
from pipelines.models.machine import choose_threads, resolve_device
from pipelines.models.policies import open_config, open_tokenizer
from pipelines.models.publish import publish_model
from pipelines.models.published_reward import PublishedReward
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.heldout import CRITERION
from pipelines.ppo.load_roles import RoleSources, build_roles
from pipelines.ppo.metrics import Record
from pipelines.ppo.reward_gate import check_reward_model
from pipelines.ppo.rollout import PpoContext, Reward, RoleReward, RoleScorer, TextReward
from pipelines.ppo.train import Training
from pipelines.ppo.types import AS_IT_IS, Normalization
from pipelines.run.manifest import Manifest
from pipelines.run.processes import world_size
from pipelines.run.stage import StageContext, tracked_as
from pipelines.scorers import load_scorer


def run(ctx: StageContext) -> dict[str, Any]:
    """Train the policy against the reward source; publish `model/`, its logs and, if it is another policy, `best/`.

    Runs in every process of a parallel run; the first one publishes.
    """
    config, settings = ctx.config, ctx.config.ppo
    accelerator = _accelerator(ctx)
    device = accelerator.device
    set_seed(config.run.seed)
    sft = ctx.inputs.get("sft")
    reward_model = ctx.inputs.get("reward") if settings.reward.uses("run") else None
    tokenizer = open_tokenizer(sft, config.model)
    stop_token_ids(tokenizer, settings.stop_tokens)  # refused before any model is loaded
    encoder = ChatEncoder(tokenizer)
    limit = prompt_limit(settings, open_config(sft, config.model), ctx.reporter)
    prompts, held_out = _prompts(ctx, encoder, limit)

    if settings.idle_settings:
        idle = ", ".join(f"ppo.{name}" for name in settings.idle_settings)
        ctx.reporter.info(f"{ctx.label}: {settings.advantage_estimator} has no value model; without effect: {idle}")

    # only a reward model on the policy's own base and tokens can be a role; any other source reads text
    published = PublishedReward.read(reward_model) if reward_model is not None else None
    if reward_model is not None and (manifest := Manifest.read(reward_model)) is not None:
        check_reward_model(manifest.metrics, settings.reward_gate, ctx.reporter)
    judges = reward_model if published is not None and published.reads == "tokens" else None
    for part in settings.reward.flat():
        if published is not None and part.kind == "run":
            published.check_output(part.output)
    normalization = _normalization(published, settings)
    if settings.reward_normalization is None and settings.normalization == "running":
        ctx.reporter.info(
            f"{ctx.label}: an outside reward is scaled by all scores so far (ppo.reward_normalization: running)"
        )
    linear = normalization_of_logit(settings.reward, published, normalization)  # the value model's head is linear
    roles = build_roles(RoleSources(config, ctx.run_dir, sft, judges, linear, device, before=ctx.inputs.get("policy")))
    ends = end_token_ids(roles.policy.model, tokenizer, settings.stop_tokens)
    check_vocabulary(roles.policy.model, tokenizer)
    choose_threads(config.run, roles.policy.model.num_parameters(), ctx.reporter)

    def of_role(section: ScorerSection) -> RoleReward:
        reads = None if section.read_thoughts else encoder
        return RoleReward(roles, settings.rollout_forward_batch_size, ends, section.output, reads)

    reward: Reward
    if judges is not None and settings.reward.kind == "run":
        reward = of_role(settings.reward)
    else:
        of_run = (lambda name, section: RoleScorer(name, of_role(section), encoder)) if judges is not None else None
        reward = TextReward(load_scorer(settings.reward, ctx, device, of_run=of_run), encoder)
    engine = TransformersEngine(
        roles,
        ends,
        settings.response_length,
        settings.temperature,
        settings.rollout_forward_batch_size,
        settings.top_k,
        settings.top_p,
    )
    training = Training(
        context=PpoContext(roles, engine, reward, encoder, ends, settings, accelerator, config.run.seed),
        prompts=prompts,
        held_out=held_out,
        reporter=ctx.reporter,
        log=ctx.log,
        normalization=normalization,
        checkpoints=ctx.checkpoints,
        stop=ctx.stop,
        label=ctx.label,
    )
    try:
        record = training.run()
    finally:
        for tracker in accelerator.trackers:  # end_training() would destroy the process group that is still needed
            tracker.finish()
    if accelerator.is_main_process:
        _log_evaluations(ctx, record.metrics)
        _publish(ctx, training, as_sampled(settings, ends, tokenizer), tokenizer)
        _warn_of_alarms(ctx, record)
    ctx.notes.update(processes=accelerator.num_processes, alarms=record.alarms)
    return record.metrics


def _accelerator(ctx: StageContext) -> Accelerator:
    """Return the accelerator, and check that it sees every process that was started.

    Raises:
        EnvironmentProblem: fewer processes connected than were started.
        UsageError: the episodes of an update cannot be shared out evenly.
    """
    config, settings = ctx.config, ctx.config.ppo
    cpu = resolve_device(config.run).type == "cpu"
    accelerator = Accelerator(cpu=cpu, log_with=config.run.report_to or None, project_dir=ctx.trackers)
    processes = accelerator.num_processes
    if processes != world_size():
        raise EnvironmentProblem(
            f"{world_size()} processes were started, but only {processes} of them connected",
            hint="start them with torchrun --nproc-per-node",
        )
    for name in ("num_mini_batches", "num_generations"):
        if settings.rollout_batch_size % (processes * getattr(settings, name)):
            raise UsageError(
                f"rollout_batch_size {settings.rollout_batch_size} is not a multiple of {processes} processes times "
                f"{name} {getattr(settings, name)}",
                where="ppo.rollout_batch_size",
            )
    if config.run.report_to:
        project, name = tracked_as(ctx.out)
        accelerator.init_trackers(
            project,
            config={"ppo": json.dumps(settings.results_view())},
            init_kwargs={"trackio": {"name": name}, "wandb": {"name": name}, "swanlab": {"experiment_name": name}},
        )
    return accelerator


def _publish(
    ctx: StageContext, training: Training, generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write the last policy or the best one as `model/`; the best one as `best/` where the last is published."""
    settings, best, base = ctx.config.ppo, training.best, BaseRef.of(ctx.config)
    last = training.actions.origin(training.last_update)

    def write(name: str) -> None:
        policy = training.context.roles.policy
        publish_model(
            *(policy.model, tokenizer, ctx.out / name),
            base=base,
            run_dir=ctx.run_dir,
            adapter=policy.adapter or "",
            generation=generation,
        )

    if settings.load_best_model_at_end and best.update is None:
        ctx.reporter.warn(f"no held-out evaluation within kl_limit {settings.kl_limit:g}: the last policy is published")
    if best.update == 0:
        ctx.reporter.warn(
            f"no later evaluation beat the one before training: by the held-out objective {ctx.label} did not help"
        )
    take_best = settings.load_best_model_at_end and best.update is not None
    if not take_best:
        write("model")
    if best.update not in (None, last):
        training.load_policy(best.weights)
        write("model" if take_best else "best")
    elif take_best:
        write("model")
    published = best.update if take_best else last
    beside = "" if take_best or best.update in (None, last) else f"; best/ that after update {best.update}"
    updates, stopped = settings.num_updates, training.actions.stopped
    if stopped is not None:
        ctx.reporter.warn(
            f"{ctx.label}: an alarm stopped it after update {stopped} of {updates}: the policy after update {last}, "
            f"the last good one, {'counts as the last' if take_best else 'is published'}"
        )
        ctx.notes["stopped_after_update"] = stopped
    ctx.reporter.info(f"{ctx.label}: model/ is the policy after update {published} of {updates}{beside}")
    ctx.notes.update(
        base=base.as_dict(),
        published_update=published,
        best={"update": best.update, "criterion": CRITERION, **best.figures},
    )


def _log_evaluations(ctx: StageContext, metrics: Mapping[str, float]) -> None:
    """Log what the held-out prompts say of the whole training."""
    if not {"start/eval/objective", "eval/objective"} <= metrics.keys():
        return
    changes = ", ".join(
        f"{words} {metrics[f'start/eval/{name}']:.3f} to {metrics[f'eval/{name}']:.3f}"
        for name, words in (("score", "score"), ("objective", "objective"), ("finished", "share finished"))
    )
    ctx.reporter.info(f"{ctx.label}: held-out {changes}, KL {metrics['eval/kl']:.2f} nats per response")


def as_sampled(settings: PpoSection, ends: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return a generation config by which the policy answers as it did in training, but for the length limit."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(ends) if len(ends) > 1 else ends[0],
        pad_token_id=ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )


def _warn_of_alarms(ctx: StageContext, record: Record) -> None:
    if record.alarms:
        acted = [{**alarm, "then": f": {alarm['action']}" if "action" in alarm else ""} for alarm in record.alarms]
        fired = ", ".join(f"{alarm['name']} (update {alarm['update']}{alarm['then']})" for alarm in acted)
        ctx.reporter.warn(f"{ctx.label} ended with alarms: {fired}; alarms.jsonl has their messages")


def _prompts(ctx: StageContext, encoder: ChatEncoder, limit: int) -> tuple[list[EncodedPrompt], list[EncodedPrompt]]:
    """Return training and held-out prompts; those above `limit` tokens are dropped, cut or refused, and counted."""
    train, heldout = (ctx.inputs["data/prompts"] / f"{side}.jsonl" for side in ("train", "heldout"))
    overlong, refusals = ctx.config.ppo.overlong, RefusedRows(ctx)
    prompts, lengths = encode_prompts(
        read_rows(train, Prompt), encoder, limit, overlong, name=train.name, refusals=refusals
    )
    ctx.notes["rows"] = asdict(lengths)
    report = ctx.reporter.warn if lengths.dropped else ctx.reporter.info
    counts = f"{lengths.used} prompts used, {lengths.dropped} above {limit} tokens left out, {lengths.cut} cut"
    report(f"{ctx.label}: {counts}")
    rows = (row.prompt for row in read_rows(heldout, Prompt))
    most, cut = ctx.config.ppo.num_eval_prompts, overlong == "cut"
    return prompts, sample_prompts(rows, encoder, limit, most, cut=cut, refusals=refusals)[0]


def _normalization(reward: PublishedReward | None, settings: PpoSection) -> Normalization:
    """Return the scale that the reward stage measured on SFT responses; scores of any other source stay as they are."""
    if reward is None or settings.reward.kind != "run" or settings.normalization == "none":
        return AS_IT_IS
    scale = reward.scale(settings.reward.output)
    return Normalization(scale.mean, scale.std)


def normalization_of_logit(
    source: ScorerSection, reward: PublishedReward | None, normalization: Normalization
) -> Normalization | None:
    """Return by which shift and scale the run's reward model's logit enters the score, beside what else does.

    Args:
        source: reward source.
        reward: the run's reward model; None: it is no part of the source.
        normalization: of a source that is the reward model itself.

    Returns:
        None where the score is no linear function of the logit: of a probability, in an ensemble, or not at all.
    """
    if reward is None or source.kind not in ("run", "sum"):
        return None
    if source.kind == "run":
        return normalization if source.output == "logit" else None
    runs = [part for part in source.parts if part.uses("run")]
    if any(part.kind != "run" or part.output != "logit" for part in runs):
        return None
    scale = reward.scale("logit")
    factors = [(part.weight / scale.std, scale.mean) if part.normalize else (part.weight, 0.0) for part in runs]
    slope, shift = sum(factor for factor, _ in factors), sum(factor * mean for factor, mean in factors)
    return Normalization(shift / slope, 1.0 / slope) if slope else None
