"""The whole configuration: one section a stage, and the conditions across sections."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.config.baselines_section import BaselinesSection, Estimator
from pipelines.config.data_section import DataSection
from pipelines.config.eval_section import EvalSection
from pipelines.config.feedback_section import FeedbackSection
from pipelines.config.model_section import ModelSection
from pipelines.config.ppo_section import PpoSection
from pipelines.config.reward_section import RewardSection
from pipelines.config.run_section import RunSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.config.section import Section
from pipelines.config.training_section import SftSection


class Config(Section):
    """One YAML file."""

    run: RunSection = Field(RunSection(), description="The run as a whole: directory, seed, device.")
    model: ModelSection = Field(ModelSection(), description="The base model, its precision and its adapters.")
    data: DataSection = Field(DataSection(), description="Sources of the rows, and the split.")
    sft: SftSection = Field(SftSection(), description="Supervised fine-tuning on demonstrations.")
    feedback: FeedbackSection = Field(
        FeedbackSection(), description="Sampling, labels and pairs: judgements of the run's own answers."
    )
    reward: RewardSection = Field(RewardSection(), description="The reward model.")
    ppo: PpoSection = Field(PpoSection(), description="Proximal policy optimization.")
    baselines: BaselinesSection = Field(
        BaselinesSection(), description="Baselines of PPO: policies trained in a simpler way."
    )
    eval: EvalSection = Field(EvalSection(), description="Comparison of base, SFT and PPO on held-out prompts.")

    @model_validator(mode="after")
    def _reward_model_as_needed(self) -> Config:
        """Switch the reward stage off where PPO has another reward and nothing else asks for it or for a label."""
        asked_for = "enabled" in self.reward.model_fields_set or self.feedback.source != "file"
        scorers = [*([self.ppo.reward] if self.ppo.enabled else []), *self.eval.scorers]
        used = not self.ppo.enabled or self.feedback.rounds > 1 or any(scorer.uses("run") for scorer in scorers)
        if not asked_for and not used:
            object.__setattr__(self, "reward", self.reward.model_copy(update={"enabled": False}))
        return self

    @model_validator(mode="after")
    def _template_on_the_date(self) -> Config:
        if self.run.date is not None:
            object.__setattr__(self, "model", self.model.on(self.run.date))
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        if self.model.init == "scratch" and not self.sft.enabled:
            raise ValueError("model.init: scratch needs sft.enabled: true (SFT is what builds the model)")
        if self.model.init == "scratch" and self.sft.max_length > self.model.scratch.max_position_embeddings:
            raise ValueError("sft.max_length is above model.scratch.max_position_embeddings")
        uses = [("ppo.reward", self.ppo.reward)] if self.ppo.enabled else []
        uses += [("eval.scorers", scorer) for scorer in self.eval_scorers] if self.eval.enabled else []
        for where, scorer in uses:
            if scorer.uses("run") and not self.reward.enabled:
                raise ValueError(f"{where} uses the run's reward model, but reward.enabled is false")
            outputs = {part.output for part in scorer.flat() if part.kind == "run"}
            if self.reward.objective == "pairwise" and outputs - {"logit"}:
                raise ValueError(
                    f"{where} wants a probability of the run's reward model: set reward.objective: pointwise"
                )
            if scorer.uses("judge"):
                self._check_judge(where, scorer)
            if scorer.uses("gold") and self.data.task is None:
                raise ValueError(f"{where} names the gold scorer, which only a self-made task (data.task) has")
        if self.feedback.rounds > 1 and not (self.reward.enabled and self.ppo.enabled):
            raise ValueError("feedback.rounds above 1 need reward.enabled and ppo.enabled: every round trains both")
        self._check_simulated()
        if "bon" in self.eval.policies and not self.ppo.enabled:
            raise ValueError("eval.policies: bon chooses by the reward of PPO, but ppo.enabled is false")
        if "dpo" in self.eval.policies and not self.learns_from_pairs:
            raise ValueError("eval.policies: dpo learns from the pairs of the run's reward model, which has none")
        if self.eval.enabled and not self.eval_scorers:
            raise ValueError("eval has no scorer: set eval.scorers, or eval.enabled: false")
        return self

    def _check_judge(self, where: str, scorer: ScorerSection) -> None:
        if where == "ppo.reward":
            raise ValueError("ppo.reward cannot be the independent judge: it judges what PPO optimizes")
        if not self.has_judge:
            raise ValueError(
                f"{where} names the independent judge, which a run has only where PPO optimizes the run's reward model "
                "and eval.independent_judge is auto"
            )
        if scorer.kind != "judge":
            raise ValueError(f"{where}: the independent judge cannot be a part of a {scorer.kind}: it may be missing")

    def _check_simulated(self) -> None:
        scorer = self.feedback.simulated.scorer
        if self.feedback.source != "simulated":
            return
        if (scorer is None or scorer.uses("gold")) and self.data.task is None:
            raise ValueError(
                "feedback.simulated goes by the gold scorer, which only a self-made task (data.task) has: name another "
                "in feedback.simulated.scorer, such as {kind: function, function: 'taste:score'}"
            )
        if self.reward.lower_is_better and self.trains_on("pairs"):
            raise ValueError("reward.lower_is_better: a 1 of simulated annotators always means good")
        if scorer is not None and (scorer.uses("run") or scorer.uses("judge")):
            raise ValueError(
                "feedback.simulated.scorer cannot be the run's reward model or its judge: they learn from these labels"
            )

    def trains_on(self, rows: Literal["comparisons", "judgements", "pairs"]) -> bool:
        """Whether the reward model reads these rows: those of `data`, or what the labels of this run became.

        Rows of `data` that are named are used beside those of the run. Where neither is there, the ones that the
        objective asks for are wanted, so that their stage says that they are missing.
        """
        if rows == "pairs":
            return self.feedback.source != "file" and self._asked != "demonstration"
        task = self.data.task
        here = {
            "comparisons": bool(task.comparisons if task else self.data.comparisons),
            "judgements": self.reward.objective == "pointwise" and bool(not task and self.data.judgements),
        }
        wanted = "comparisons" if self.reward.objective == "pairwise" else "judgements"
        return here[rows] or (rows == wanted and not any(here.values()) and not self.trains_on("pairs"))

    def as_baseline(self, estimator: Estimator) -> Config:
        """Return the configuration of a baseline: that of PPO but for the advantages, which need no value model."""
        changes = {
            "advantage_estimator": estimator,
            "num_generations": self.baselines.num_generations,
            "whiten_advantages": None,
            "gamma": 1.0,
            "value_warmup_updates": 0,
        }
        return self.model_copy(update={"ppo": self.ppo.model_copy(update=changes)})

    def as_dpo(self) -> Config:
        """Return the configuration of the baseline dpo: that of the reward model but for what is its own."""
        changes = self.baselines.dpo.model_dump(include={"learning_rate", "num_train_epochs"}) | {"max_steps": -1}
        return self.model_copy(update={"reward": self.reward.model_copy(update=changes)})

    @property
    def learns_from_pairs(self) -> bool:
        """Whether the reward model is trained on comparisons, which DPO can learn from as well."""
        return self.reward.enabled and (self.trains_on("comparisons") or self.trains_on("pairs"))

    @property
    def _asked(self) -> str:
        """The kind of the question that training goes by."""
        asked = {question.name: question.kind for question in self.feedback.label.questions}
        return asked[self.feedback.pairs.question or next(iter(asked))]

    @property
    def sft_trains_adapter(self) -> bool:
        """Whether SFT trains an adapter; a model built from scratch is always trained whole."""
        return self.model.use_peft and self.model.init == "pretrained"

    @property
    def eval_temperature(self) -> float:
        """Sampling temperature of the evaluation: that of the training, unless another one is set."""
        return self.eval.temperature or self.ppo.temperature

    @property
    def has_judge(self) -> bool:
        """Whether the run trains an independent judge: PPO optimizes the run's reward model, and it is assessed."""
        asked_for = self.eval.enabled and self.eval.independent_judge == "auto"
        return asked_for and self.reward.enabled and self.ppo.enabled and self.ppo.reward.uses("run")

    @property
    def eval_scorers(self) -> list[ScorerSection]:
        """Scorers of the evaluation: the configured ones, else PPO's reward and the gold scorer of a self-made task.

        The independent judge is always among them, if the run has one.
        """
        scorers = list(self.eval.scorers)
        if not scorers:
            scorers += [self.ppo.reward] if self.ppo.enabled else []
            scorers += [ScorerSection(kind="gold")] if self.data.task else []
        judges = [ScorerSection(kind="judge")] if self.has_judge else []
        return scorers + [judge for judge in judges if not any(scorer.uses("judge") for scorer in scorers)]
