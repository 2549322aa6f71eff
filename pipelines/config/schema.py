"""The whole configuration: a section a stage, and what must hold across sections."""

from __future__ import annotations

from pydantic import model_validator

from pipelines.config.base import Section
from pipelines.config.data import DataSection
from pipelines.config.eval import EvalSection
from pipelines.config.feedback import FeedbackSection
from pipelines.config.model import ModelSection
from pipelines.config.ppo import PpoSection
from pipelines.config.reward import RewardSection
from pipelines.config.run import RunSection
from pipelines.config.scorer import ScorerSection
from pipelines.config.sft import SftSection


class Config(Section):
    """One YAML file."""

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    sft: SftSection = SftSection()
    feedback: FeedbackSection = FeedbackSection()
    reward: RewardSection = RewardSection()
    ppo: PpoSection = PpoSection()
    eval: EvalSection = EvalSection()

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
            if scorer.uses("gold") and self.data.task is None:
                raise ValueError(f"{where} names the gold scorer, which only a self-made task (data.task) has")
        if self.eval.enabled and not self.eval_scorers:
            raise ValueError("eval has no scorer: set eval.scorers, or eval.enabled: false")
        return self

    @property
    def sft_trains_adapter(self) -> bool:
        """Whether SFT trains an adapter; a model built from scratch is always trained whole."""
        return self.model.use_peft and self.model.init == "pretrained"

    @property
    def eval_scorers(self) -> list[ScorerSection]:
        """Who judges: the configured scorers, else what PPO trained on and, for a self-made task, its gold scorer."""
        if self.eval.scorers:
            return self.eval.scorers
        trained_on = [self.ppo.reward] if self.ppo.enabled else []
        return [*trained_on, *([ScorerSection(kind="gold")] if self.data.task else [])]
