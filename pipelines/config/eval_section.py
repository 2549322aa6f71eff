"""`eval`: the comparison of base, SFT and PPO on held-out prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config.scorer_section import ScorerSection, check_url
from pipelines.config.section import Section, cosmetic


class LanguageModelSection(Section):
    """A judge that reads both answers, in both orders, and says which one is better."""

    url: str = Field(
        description="Address of the chat completions, such as http://localhost:8000/v1/chat/completions; ${NAME} in it "
        "stands for a variable of the environment."
    )
    model: str = Field(description="Name of the model, as the server knows it.")
    token_env: str | None = Field(None, description="Environment variable whose value is sent as a bearer token.")
    num_prompts: int = Field(
        200, ge=2, description="Maximum number of held-out prompts whose answers it compares; two requests each."
    )
    max_tokens: int = Field(1024, ge=1, description="Maximum number of tokens of its reply, its thoughts included.")
    timeout: float = cosmetic(120.0, gt=0, description="Seconds to wait for one reply.")
    retries: int = cosmetic(
        4,
        ge=0,
        description="Number of retries after a 5xx answer, a timeout, a lost connection or an unreadable reply.",
    )
    concurrency: int = cosmetic(4, ge=1, description="Number of requests at a time.")

    @field_validator("url")
    @classmethod
    def _an_address_that_can_be_asked(cls, value: str) -> str:
        check_url(value)
        return value


class EvalSection(Section):
    """All policies answer the same prompts; every scorer judges; intervals by bootstrap over prompts."""

    enabled: bool = Field(True, description="Whether the run has an evaluation.")
    policies: list[Literal["base", "sft", "ppo", "dpo", "rloo", "grpo", "bon"]] = Field(
        ["base", "sft", "ppo"],
        description="Policies to compare; the baseline (SFT, or the base without SFT) is always among them. dpo, rloo "
        "and grpo are those of `rlhf baseline`; bon takes the best of several answers of the baseline, see best_of_n.",
    )
    best_of_n: int = Field(
        16,
        ge=2,
        description="Number of answers that the policy bon draws from the baseline for each prompt; it takes the one "
        "that PPO's reward prefers.",
    )
    num_prompts: int = Field(200, ge=2, description="Maximum number of held-out prompts that every policy answers.")
    temperature: float | None = Field(
        None,
        gt=0,
        description="Sampling temperature of the answers; null: ppo.temperature, at which the policy trained.",
    )
    scorers: list[ScorerSection] = Field(
        [],
        description="Scorers that judge the answers; empty: the reward that PPO trained on, and the gold scorer of a "
        "self-made task.",
    )
    independent_judge: Literal["auto", "off"] = Field(
        "auto",
        description="Whether a quarter of the prompts with comparisons is kept from the reward model that PPO "
        "optimizes, for a second one that judges the answers (auto: where there are enough of them).",
    )
    language_model: LanguageModelSection | None = Field(
        None, description="A language model that compares the answers of PPO and the baseline; null: none."
    )
    constraints: Path | None = Field(
        None,
        strict=False,
        description="File of prompts with verifiable constraints in the form of IFEval, which every policy answers; "
        "null: none. Needs rlhf[constraints].",
    )
    bias: bool | Annotated[Path, Field(strict=False)] = Field(
        False,
        description="Whether every policy answers counterfactual prompts, in which only the person differs; or a file "
        "of further traits beside the program's own.",
    )
    toxicity: ScorerSection | None = Field(
        None,
        description="Classifier that reads the answers alone and gives each the probability of being toxic, with "
        "`output: probability`; null: none.",
    )
    bootstrap_samples: int = Field(2000, ge=100, description="Number of bootstrap resamples behind every interval.")
    batch_size: int = Field(
        32, ge=1, description="Number of rows in one generation batch; the sampled tokens depend on it."
    )
    side_by_side: int = cosmetic(
        3, ge=0, description="Number of prompts shown under the table with the answers side by side."
    )

    @model_validator(mode="after")
    def _toxicity_is_a_probability(self) -> EvalSection:
        scorer = self.toxicity
        if scorer is not None and (scorer.kind, scorer.output, scorer.lower_is_better) != (
            "classifier",
            "probability",
            False,
        ):
            raise ValueError(
                "`toxicity` must be of kind classifier with output: probability, and without lower_is_better"
            )
        return self

    def results_view(self) -> dict[str, Any]:
        """Values that affect results, so that older runs stay complete: the judge is one of the scorers."""
        left_out = {"independent_judge", *(["best_of_n"] if "bon" not in self.policies else [])}
        left_out |= {key for key in ("language_model", "constraints", "toxicity") if getattr(self, key) is None}
        # of a file the content counts, which is among the sources of the stage
        left_out |= set() if self.bias else {"bias"}
        view = super().results_view() | {"constraints": self.constraints is not None, "bias": bool(self.bias)}
        return {key: value for key, value in view.items() if key not in left_out}

    @property
    def files(self) -> tuple[Path, ...]:
        """Files with prompts of further tests."""
        return tuple(path for path in (self.constraints, self.bias) if isinstance(path, Path))
