"""The stage `baselines/dpo`: a policy trained on the pairs of the reward model, without one. Trained by TRL.

Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290) has the same optimum as PPO
with the KL weight beta against a Bradley-Terry reward model of the same pairs; it never samples.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]

from pipelines.config import Config
from pipelines.data.canonical import read_rows
from pipelines.data.encode import ChatEncoder, EncodedComparison, LengthReport, encode_comparisons
from pipelines.data.refusals import RefusedRows
from pipelines.data.rows import Comparison
from pipelines.data.split import prompt_key
from pipelines.errors import UsageError
from pipelines.models.adapters import DEFAULT, add_adapter, cast_trainable_to_fp32, lora_config, trainable_parameters
from pipelines.models.base_fit import check_vocabulary
from pipelines.models.base_model import check_4bit, length_limit, load_causal
from pipelines.models.base_ref import BaseRef
from pipelines.models.forward import TokenBatch, in_groups, response_logprobs
from pipelines.models.machine import autocast, choose_threads, resolve_device
from pipelines.models.policies import open_frozen_policy, open_policy, open_tokenizer
from pipelines.models.publish import publish_model
from pipelines.reward.assessment import pair_figures
from pipelines.reward.initial_model import pair_of_tokens
from pipelines.reward.shares import Share, rows_of, share_of_reward
from pipelines.reward.training_rows import Side, check_sides, comparison_files, sum_of_reports
from pipelines.run.stage import StageContext
from pipelines.trainers.training import no_telemetry, settings_kept, train, trainer_arguments

MOST_DIFFERENCE = 0.2
"""Maximum difference of TRL's log-probability of a token from ours in nats: bfloat16 makes a tenth of it."""


def run(ctx: StageContext) -> dict[str, Any]:
    """Train the SFT model on the comparisons that the reward model was trained on; publish `model/`.

    The settings are those of the section `reward` but for what `baselines.dpo` sets (`Config.as_dpo`).

    Returns:
        The stage's final metrics. The held-out accuracy is that of the reward that the policy stands for: its
        log-probability of an answer less the reference's.

    Raises:
        DataError: no pair is left to train or to judge on.
        TrainingError: training diverged.
        UsageError, ArtifactError, HubError, EnvironmentProblem: the base cannot be loaded or trained as configured.
    """
    config = ctx.config
    check_sides(ctx.inputs, judgements=False, who="a policy by DPO")
    device = resolve_device(config.run)
    check_4bit(config.model, device)
    set_seed(config.run.seed)
    tokenizer = open_tokenizer(ctx.inputs.get("sft"), config.model)
    model, reference = _policy_and_reference(ctx, tokenizer, device)
    choose_threads(config.run, model.num_parameters(), ctx.reporter)

    encoder, limit = ChatEncoder(tokenizer), length_limit(config.reward, model.config, ctx.reporter)
    share, withheld = share_of_reward(ctx.inputs, config)
    rows = _Rows.read(ctx, encoder, limit, "train", share)
    heldout = _Rows.read(ctx, encoder, limit, "heldout", "all")
    report = rows.report
    say = ctx.reporter.warn if report.dropped else ctx.reporter.info
    say(f"dpo: {report.used} pairs used, {report.dropped} dropped, {report.cut} cut; longest {report.longest}")

    before = _logprobs(model, heldout.pairs, config)  # the policy still is the reference
    with settings_kept(model):
        trainer = _trainer(ctx, model, reference, tokenizer, rows.pairs, device)
        _check_logprobs(trainer, model, heldout.pairs, config)
        trained = trainable_parameters(model)
        result = train(trainer, ctx, config.reward, "dpo")
    after = _logprobs(model, heldout.pairs, config)
    chosen, rejected = ((new - old).tolist() for new, old in zip(after, before, strict=True))
    figures = pair_figures([pair_of_tokens(pair) for pair in heldout.pairs], chosen, rejected, heldout.prompts)
    if figures["accuracy"] is not None:
        ctx.reporter.info(
            f"dpo: on {figures['pairs']:.0f} held-out pairs the chosen answer gained more than the rejected one in "
            f"{figures['accuracy']:.3f} [{figures['accuracy_low']:.3f}, {figures['accuracy_high']:.3f}]"
        )

    base = BaseRef.of(config)
    publish_model(model, tokenizer, ctx.out / "model", base=base, run_dir=ctx.run_dir)
    ctx.notes["base"] = base.as_dict()
    ctx.notes["rows"] = {"used": report.used, "dropped": report.dropped, "cut": report.cut, "refused": report.refused}
    lengths = ((len(pair["prompt_ids"]), len(pair["chosen_ids"]), len(pair["rejected_ids"])) for pair in rows.pairs)
    tokens = sum(2 * prompt + better + worse for prompt, better, worse in lengths)
    return {
        **{f"heldout_{name}_after": value for name, value in figures.items()},
        "rows_used": report.used,
        "rows_dropped": report.dropped,
        "rows_cut": report.cut,
        "rows_refused": report.refused,
        "rows_withheld": withheld,
        "rows_heldout": len(heldout.pairs),
        "train_loss": result.loss,
        "steps": result.steps,
        "tokens": round(tokens * result.epochs),
        "tokens_per_second": round(tokens * result.epochs / max(result.seconds, 1e-9), 1),
        "trainable_parameters": trained,
    }


@dataclass(frozen=True)
class _Rows:
    """Pairs of one side of the split within the length limit, and a key of the prompt of each."""

    pairs: list[EncodedComparison]
    prompts: list[int]
    report: LengthReport

    @classmethod
    def read(cls, ctx: StageContext, encoder: ChatEncoder, limit: int, side: Side, share: Share) -> _Rows:
        section, by, refusals = ctx.config.reward, ctx.config.data.split_by, RefusedRows(ctx)
        pairs, prompts, reports = [], [], []
        for file in comparison_files(ctx.inputs, side):
            of_file = list(rows_of(read_rows(file.path, Comparison), share, by))
            encoded, report = encode_comparisons(
                of_file, encoder, limit, section.overlong, name=file.name, refusals=refusals
            )
            pairs += encoded
            prompts += [prompt_key(of_file[pair["number"]].prompt) for pair in encoded]
            reports.append(report)
        return cls(pairs, prompts, sum_of_reports(reports))


def _policy_and_reference(
    ctx: StageContext, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> tuple[PreTrainedModel | PeftModel, PreTrainedModel | None]:
    """The SFT model to train, and the same frozen; of an adapter the trainer makes the frozen copy itself."""
    config, sft = ctx.config, ctx.inputs.get("sft")
    section, base = config.model, BaseRef.of(config)
    if not section.use_peft:
        model = open_policy(sft, section, device)
        check_vocabulary(model, tokenizer)
        reference: Any = open_frozen_policy(sft, section, device, tokenizer, config.run.seed)
        return model, reference.requires_grad_(False)
    causal = load_causal(section, base.path(ctx.run_dir), device, revision=base.revision)
    check_vocabulary(causal, tokenizer)
    start = sft / "model" if sft is not None and config.sft_trains_adapter else lora_config(section, "CAUSAL_LM")
    return add_adapter(causal, DEFAULT, start, trainable=True), None


def _trainer(
    ctx: StageContext,
    model: PreTrainedModel | PeftModel,
    reference: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[EncodedComparison],
    device: torch.device,
) -> DPOTrainer:
    own = {
        "beta": ctx.config.baselines.dpo.beta,
        "max_length": None,  # the rows are within the limit
        "disable_dropout": True,
    }
    args = trainer_arguments(DPOConfig, ctx.config, "reward", ctx.out, device, own)
    no_telemetry()
    try:
        trainer = DPOTrainer(
            model=model,
            ref_model=reference,
            args=args,
            train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
            processing_class=copy.deepcopy(tokenizer),  # TRL gives it a pad token where it has none
        )
    except ValueError as error:
        raise UsageError(f"DPO cannot be set up: {error}", where="baselines.dpo") from error
    # TRL 1.16 would tokenize every row itself, and differently: ours take the place of the row above
    features = Features({name: List(Value("int32")) for name in ("prompt_ids", "chosen_ids", "rejected_ids")})
    columns = [{key: value for key, value in pair.items() if key in features} for pair in pairs]
    trainer.train_dataset = Dataset.from_list(columns, features)
    cast_trainable_to_fp32(model)
    return trainer


def _check_logprobs(
    trainer: DPOTrainer, model: PreTrainedModel | PeftModel, pairs: Sequence[EncodedComparison], config: Config
) -> None:
    """Refuse a model of which TRL gets other log-probabilities of the first tokens than the model's own forward gives.

    TRL applies the output layer by itself, and leaves out what a family has between trunk and output layer.
    """
    first: list[EncodedComparison] = [
        {**pair, "chosen_ids": pair["chosen_ids"][:1], "rejected_ids": pair["rejected_ids"][:1]}
        for pair in pairs[: config.reward.per_device_train_batch_size]
    ]
    device = trainer.accelerator.device
    batch = {name: value.to(device) for name, value in trainer.data_collator([dict(pair) for pair in first]).items()}
    sides = trainer.compute_ref_log_probs(trainer.ref_model or trainer.model, batch)  # type: ignore[no-untyped-call]
    ours, theirs = torch.cat(_logprobs(model, first, config)), torch.cat(sides).cpu().double()
    difference = float((theirs - ours).abs().mean())
    if difference > MOST_DIFFERENCE:
        raise UsageError(
            f"TRL's DPO trainer computes other log-probabilities than the model: {difference:.2g} nats a token apart",
            where="baselines.dpo",
            hint="this kind of model cannot be trained by DPO; `rlhf baseline rloo` can",
        )


@torch.no_grad()
def _logprobs(
    model: PreTrainedModel | PeftModel, pairs: Sequence[EncodedComparison], config: Config
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the chosen and of the rejected answers in nats: [pairs] each."""
    device, size = next(model.parameters()).device, 2 * config.reward.per_device_train_batch_size
    prompts = [pair["prompt_ids"] for pair in pairs]
    was_training = model.training
    model.eval()
    sides = []
    with autocast(config.model, device):
        for answers in ([pair["chosen_ids"] for pair in pairs], [pair["rejected_ids"] for pair in pairs]):
            batch = TokenBatch.of(prompts, answers, ())
            tokens = in_groups(batch, size, lambda part: response_logprobs(model, part.to(device), 1.0).logprobs.cpu())
            sides.append(torch.where(batch.response_mask, tokens.double(), 0.0).sum(-1))
    model.train(was_training)
    return sides[0], sides[1]
