"""`feedback`: completions of the run's own models, their annotators, and training rows from the labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config.model_section import check_trusted
from pipelines.config.scorer_section import ScorerSection
from pipelines.config.section import Section, cosmetic

RUN_NAMES = ("policy", "base", "sft", "ppo")
"""Names of the models of the run itself."""


class SampledModel(Section):
    """One of several models that `rlhf sample` mixes."""

    model: str = Field(
        description="Model that answers: policy (the newest of the run), base, sft, ppo, or the hub id or directory of "
        "another model."
    )
    revision: str | None = Field(None, description="Commit of the hub repository; null: the newest one.")
    trust_remote_code: bool = Field(
        False,
        description="Whether to run code of this model's repository, which needs `revision`, or of its directory.",
    )
    num_completions: int = Field(2, ge=1, description="Number of completions of each prompt by this model.")
    temperature: float | None = Field(
        None, gt=0, description="Sampling temperature of this model; null: that of `feedback.sample`."
    )

    @model_validator(mode="after")
    def _trusted_code_is_pinned(self) -> SampledModel:
        if self.trust_remote_code:
            check_trusted(self.model, self.revision)
        return self

    def results_view(self) -> dict[str, Any]:
        """Values that affect results; runs begun before trust was named per model have none."""
        return {key: value for key, value in super().results_view().items() if value or key != "trust_remote_code"}


class SampleSection(Section):
    """Completions that are to be judged."""

    models: list[SampledModel] = Field([], description="Models that answer; empty: only the newest policy of the run.")
    num_completions: int = Field(
        4, ge=1, description="Number of completions of each prompt, used if `models` is empty."
    )
    num_prompts: int | None = Field(
        None,
        ge=1,
        description="Maximum number of prompts of a round, held-out ones included; null: all. Each round continues "
        "where the previous one ended.",
    )
    max_prompt_length: int | None = Field(
        None, ge=1, description="Maximum length of a prompt in tokens; null: ppo.max_prompt_length."
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="Maximum length of a completion in tokens; null: ppo.response_length."
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    top_k: int = Field(0, ge=0, description="Number of most likely tokens to sample from; 0: all tokens.")
    top_p: float = Field(1.0, gt=0, le=1, description="Probability mass of the most likely tokens to sample from.")
    near_duplicate: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Similarity from which a completion counts as a repetition of another one; 1: only equal "
        "completions do.",
    )
    redraws: int = Field(2, ge=0, description="Number of times that repeated and blank completions are drawn again.")
    batch_size: int = Field(
        32, ge=1, description="Number of completions in one generation batch; the sampled tokens depend on it."
    )


class QuestionSection(Section):
    """One question that annotators answer about every task."""

    name: str = Field(description="Key of the question in labels and files, such as overall or helpful.")
    kind: Literal["ranking", "pairwise", "binary", "scale", "demonstration"] = Field(
        "ranking",
        description="Kind of answer: ranking of all answers, pairwise choice, binary (yes or no), scale of points, or "
        "demonstration (a written answer).",
    )
    text: str = Field("", description="Text of the question on the page; empty: a default text for the kind.")
    points: int = Field(5, ge=2, le=10, description="Number of points of a scale, which starts at 1.")
    low: str = Field("", description="Meaning of 0 in a binary question, or of 1 on a scale.")
    high: str = Field("", description="Meaning of 1 in a binary question, or of the highest point of a scale.")
    required: bool = Field(True, description="Whether the question must be answered.")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", value):
            raise ValueError("the name of a question is of small letters, digits and underscores, such as `overall`")
        if value == "comment":
            raise ValueError("`comment` is what annotators may always add to an answer: give the question another name")
        return value


class LabelSection(Section):
    """Questions to the annotators, and distribution of the tasks."""

    questions: list[QuestionSection] = Field(
        [QuestionSection(name="overall")], min_length=1, description="Questions to the annotators about every task."
    )
    guidelines: Path | None = Field(
        None, strict=False, description="Markdown file with guidelines that the page shows; null: none."
    )
    annotators: list[str] = Field([], description="Names of the annotators; `rlhf label --annotator` adds more.")
    overlap: int = Field(1, ge=1, description="Number of annotators who judge the same task.")
    controls: Path | None = Field(
        None,
        strict=False,
        description="File of tasks, comparisons or judgements with known answers, mixed in to measure attention; "
        "null: none.",
    )
    control_share: float = Field(0.1, ge=0, le=0.5, description="Share of control tasks in an annotator's queue.")

    @field_validator("questions")
    @classmethod
    def _agree(cls, value: list[QuestionSection]) -> list[QuestionSection]:
        names = [question.name for question in value]
        if len(set(names)) < len(names):
            raise ValueError("two questions have the same name")
        writing = [question for question in value if question.kind == "demonstration"]
        if writing and len(value) > 1:
            raise ValueError("a question of kind demonstration stands alone")
        return value

    @model_validator(mode="after")
    def _enough_people(self) -> LabelSection:
        if 0 < len(self.annotators) < self.overlap:
            raise ValueError(
                f"overlap {self.overlap}: so many annotators judge each task, but only {len(self.annotators)} are named"
            )
        return self

    @field_validator("annotators")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len({name.casefold() for name in value}) < len(value) or any(not name.strip() for name in value):
            raise ValueError("annotators need distinct names that are not blank")
        return value


class SimulatedSection(Section):
    """A pool of simulated annotators: each sees the scorer's truth through a taste and slips of their own."""

    annotators: int = Field(5, ge=1, description="Number of simulated annotators.")
    noise: float = Field(
        0.3,
        ge=0,
        description="Standard deviation of an annotator's judgement of the same answer from one time to the next.",
    )
    bias: float = Field(0.2, ge=0, description="Standard deviation of the annotators' personal tastes.")
    length_bias: float = Field(
        0.0, description="Value of ten more words to all annotators; negative: they dislike length."
    )
    position_bias: float = Field(0.0, description="Value to all annotators of being shown first on the page.")
    tie_below: float = Field(0.0, ge=0, description="Maximum difference between two answers that is called a tie.")
    scorer: ScorerSection | None = Field(
        None, description="Scorer of the true quality; null: the gold scorer of the self-made task."
    )


class PairsSection(Section):
    """Aggregation of labels into training rows."""

    question: str | None = Field(
        None, description="Name of the question whose labels are used; null: the first question."
    )
    method: Literal["mean_rank", "majority", "bradley_terry", "plackett_luce"] = Field(
        "mean_rank",
        description="Aggregation of several annotators: mean_rank compares average ranks; majority takes the answer "
        "that more annotators prefer; bradley_terry and plackett_luce fit strengths to all judgements of the task.",
    )
    ties: Literal["drop", "half"] = Field(
        "drop", description="Treatment of tied pairs: drop leaves them out; half keeps them in both orders."
    )
    min_annotators: int = Field(
        1, ge=1, description="Minimum number of labels of a pair; pairs with fewer are left out."
    )
    min_agreement: float = Field(
        0.0, ge=0, le=1, description="Minimum share of the annotators who prefer the winner; a tie counts half."
    )
    min_margin: float = Field(0.0, ge=0, description="Minimum margin of a pair, in the units of the method.")
    weights: Literal["none", "reliability"] = Field(
        "none",
        description="Weights of the annotators: none counts all alike; reliability weighs them by their agreement with "
        "the others and with the control tasks.",
    )
    leave_out: list[str] = Field([], description="Names of annotators whose labels are ignored.")


class FeedbackSection(Section):
    """Judgements of answers: existing rows of `data` (`file`), simulated annotators, or people."""

    source: Literal["file", "simulated", "human"] = Field(
        "file",
        description="Origin of the judgements: file uses the rows of `data` as they are; simulated asks simulated "
        "annotators; human asks people on the label page.",
    )
    rounds: int = cosmetic(
        1,
        ge=1,
        description="Number of rounds; each samples answers, collects labels, retrains the reward model and continues "
        "PPO.",
    )
    sample: SampleSection = Field(SampleSection(), description="Sampling of the completions to be judged.")
    label: LabelSection = Field(
        LabelSection(), description="Questions to the annotators, and distribution of the tasks."
    )
    simulated: SimulatedSection = Field(SimulatedSection(), description="Simulated annotators.")
    pairs: PairsSection = Field(PairsSection(), description="Conversion of labels into training rows.")

    @model_validator(mode="after")
    def _agree(self) -> FeedbackSection:
        if self.rounds > 1 and self.source == "file":
            raise ValueError("rounds need answers to be judged anew: set feedback.source to simulated or human")
        asked = {question.name: question.kind for question in self.label.questions}
        if self.source == "simulated" and "demonstration" in asked.values():
            raise ValueError("simulated annotators can judge answers, not write demonstrations: set source to human")
        if self.source == "simulated" and self.label.overlap > self.simulated.annotators:
            raise ValueError(
                f"label.overlap is {self.label.overlap}, but simulated.annotators is {self.simulated.annotators}"
            )
        chosen = self.pairs.question
        if chosen is not None and chosen not in asked:
            raise ValueError(f"feedback.pairs.question: no question is named {chosen}; there are {', '.join(asked)}")
        return self
