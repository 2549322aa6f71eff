"""`feedback`: completions of the run's own models, who judges them, and how judgements become training rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config.scorer_section import ScorerSection
from pipelines.config.section import Section, cosmetic

RUN_NAMES = ("policy", "base", "sft", "ppo")
"""What models of the run itself are called."""


class SampledModel(Section):
    """One of several models that `rlhf sample` mixes."""

    model: str = Field(
        description="policy (the newest of the run), base, sft, ppo, or the hub id or directory of another model."
    )
    revision: str | None = Field(None, description="Commit of the hub repository.")
    num_completions: int = Field(2, ge=1, description="Completions of each prompt by this model.")
    temperature: float | None = Field(None, gt=0, description="null: as `feedback.sample`.")


class SampleSection(Section):
    """Completions that are to be judged."""

    models: list[SampledModel] = Field([], description="Who answers; empty: the newest policy of the run alone.")
    num_completions: int = Field(4, ge=1, description="Completions of each prompt, where `models` is empty.")
    num_prompts: int | None = Field(
        None,
        ge=1,
        description="Most prompts, held-out ones among them; null: all. Later rounds go on where the one before ended.",
    )
    max_prompt_length: int | None = Field(None, ge=1, description="Tokens of a prompt; null: ppo.max_prompt_length.")
    max_new_tokens: int | None = Field(None, ge=1, description="Tokens of a completion; null: ppo.response_length.")
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0, description="Draw from the k likeliest tokens; 0: from all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens of this probability together.")
    near_duplicate: float = Field(
        0.95, gt=0, le=1, description="Similarity from which a completion counts as a repetition of another; 1: equal."
    )
    redraws: int = Field(2, ge=0, description="How often repetitions and blank completions are drawn again.")
    batch_size: int = Field(
        32, ge=1, description="Completions in one generation; which numbers are drawn depends on it."
    )


class QuestionSection(Section):
    """One question that annotators answer about every task."""

    name: str = Field(description="Its key in labels and files, such as overall or helpful.")
    kind: Literal["ranking", "pairwise", "binary", "scale", "demonstration"] = "ranking"
    text: str = Field("", description="The words on the page; empty: those of the kind.")
    points: int = Field(5, ge=2, le=10, description="Of a scale: from 1 to this.")
    low: str = Field("", description="Words for 0, or for 1 on a scale.")
    high: str = Field("", description="Words for 1, or for the highest point.")
    required: bool = True

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", value):
            raise ValueError("the name of a question is of small letters, digits and underscores, such as `overall`")
        if value == "comment":
            raise ValueError("`comment` is what annotators may always add to an answer: give the question another name")
        return value


class LabelSection(Section):
    """What annotators are asked, and how tasks are shared out."""

    questions: list[QuestionSection] = Field([QuestionSection(name="overall")], min_length=1)
    guidelines: Path | None = Field(None, strict=False, description="Markdown file that the page shows.")
    annotators: list[str] = Field([], description="Names of the people; `rlhf label --annotator` adds more.")
    overlap: int = Field(1, ge=1, description="How many annotators judge the same task.")
    controls: Path | None = Field(
        None,
        strict=False,
        description="Tasks, comparisons or judgements whose answer is known, mixed in to see who pays attention.",
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

    annotators: int = Field(5, ge=1)
    noise: float = Field(0.3, ge=0, description="Deviation of a judgement from one time to the next.")
    bias: float = Field(0.2, ge=0, description="Deviation of a person's taste from the common one.")
    length_bias: float = Field(0.0, description="What ten more words are worth to the pool; below 0: they cost.")
    position_bias: float = Field(0.0, description="What standing first on the page is worth to the pool.")
    tie_below: float = Field(0.0, ge=0, description="Differences up to this are called a tie.")
    scorer: ScorerSection | None = Field(
        None, description="What the truth is; null: the gold scorer of the self-made task."
    )


class PairsSection(Section):
    """How several annotators' labels become rows to train on."""

    question: str | None = Field(None, description="The question to go by; null: the first one.")
    method: Literal["mean_rank", "majority", "bradley_terry", "plackett_luce"] = Field(
        "mean_rank",
        description="mean_rank: the average of the ranks; majority: more annotators prefer it than not; "
        "bradley_terry, plackett_luce: strengths fitted to all judgements of the task.",
    )
    ties: Literal["drop", "half"] = Field("drop", description="half: a tied pair is kept in both orders.")
    min_annotators: int = Field(1, ge=1, description="Fewer labels of a pair: it is left out.")
    min_agreement: float = Field(
        0.0, ge=0, le=1, description="Least share of the annotators, a tie being half, on the side of the winner."
    )
    min_margin: float = Field(0.0, ge=0, description="Least margin, in the units of the method.")
    weights: Literal["none", "reliability"] = Field(
        "none", description="reliability: annotators count by how well they agree with the others and the controls."
    )
    leave_out: list[str] = Field([], description="Annotators whose labels count for nothing.")


class FeedbackSection(Section):
    """Who compares the answers: nobody here (`file`: rows of `data` as they are), simulated annotators, or people."""

    source: Literal["file", "simulated", "human"] = "file"
    rounds: int = cosmetic(
        1, ge=1, description="How often answers are sampled and judged and the reward model and PPO go on from there."
    )
    sample: SampleSection = SampleSection()
    label: LabelSection = LabelSection()
    simulated: SimulatedSection = SimulatedSection()
    pairs: PairsSection = PairsSection()

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
