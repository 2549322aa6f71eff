"""`data`: sources of demonstrations, comparisons and prompts, and their split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipelines.config.section import Section

TagName = Literal[
    "role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"
]
Tags = dict[TagName, str]
"""Names of the keys and the speakers of turns in a dialogue, under LLaMA-Factory's names for them."""


SplitBy = Literal["question", "opening"]
OnBadRow = Literal["fail", "drop"]


class Source(Section):
    """Source of rows: a data file, a directory, a hub data set, or an entry of a dataset_info.json."""

    path: str = Field(
        description="Data file (.json .jsonl .txt .csv .tsv, each also .gz; .parquet .arrow .feather), directory, hub "
        "data set (owner/name), or LLaMA-Factory's dataset_info.json.",
    )
    name: str | None = Field(
        None, description="Configuration of a hub data set, or entry of a dataset_info.json; null: the only one."
    )
    split: str = Field("train", description="Split of a hub data set or directory.")
    revision: str | None = Field(None, description="Commit, branch or tag of a hub data set; null: the newest commit.")
    format: str | None = Field(None, description="Name of the row format; null: detected from the first rows.")
    columns: dict[str, str] = Field(
        {}, description="Map from canonical column names to those of the file, e.g. {prompt: question}."
    )
    tags: Tags = Field(
        {},
        description="Names of the keys and speakers of `conversations` if they differ from ShareGPT's (from, value, "
        "human, gpt), e.g. {role_tag: role, content_tag: content, user_tag: user, assistant_tag: assistant}.",
    )
    verdicts: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {},
        description="Number of the answer, counted from 1, that a verdict stands for, and 0 for a tie, e.g. {'1': 1, "
        "'0': 2}: needed where a number beside answers by letter may be either.",
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of rows, taken from the start; null: all rows.")
    sample: int | None = Field(
        None, ge=1, description="Number of rows drawn at random from these, the same ones every time; null: all rows."
    )
    weight: float = Field(
        1.0,
        gt=0,
        description="Weight of the source in training: 0.5 leaves out half of its prompts, 2 uses every row twice. "
        "Held-out rows are not affected.",
    )

    def results_view(self) -> dict[str, Any]:
        """Values that affect results; sources of before there were `verdicts` have none."""
        view = super().results_view()
        return view if self.verdicts else {key: value for key, value in view.items() if key != "verdicts"}


class TaskSource(Section):
    """A self-made task that generates its own data."""

    name: str = Field("support", description="Name of the task.")
    demonstrations: int = Field(3000, ge=1, description="Number of generated demonstrations.")
    comparisons: int = Field(5000, ge=0, description="Number of generated comparisons.")
    prompts: int = Field(2000, ge=1, description="Number of generated prompts.")


class DataSection(Section):
    """Sources, each a path, a mapping with `path`, or a list of these.

    A source may hold a richer kind than asked for: comparisons serve as demonstrations (the chosen answer) and as
    prompts, demonstrations serve as prompts. `prompts` left empty takes those of the comparisons, else of the
    demonstrations.
    """

    task: TaskSource | None = Field(
        None, description="Self-made task that generates the data; null: rows are read from the sources below."
    )
    demonstrations: list[Source] = Field([], description="Sources of demonstrations, for SFT.")
    comparisons: list[Source] = Field([], description="Sources of comparisons, for the reward model.")
    judgements: list[Source] = Field(
        [], description="Sources of single answers with a label, for reward.objective: pointwise."
    )
    prompts: list[Source] = Field(
        [],
        description="Sources of prompts, for PPO; empty: the prompts of the comparisons, or else of the "
        "demonstrations.",
    )
    eval_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the prompts that is held out of every stage, chosen by hash; at least two prompts, or "
        "one of two.",
    )
    split_by: SplitBy = Field(
        "question",
        description="Part of a prompt that decides whether it is held out: question (the first user turn, without case "
        "and differences between blanks), or opening (all turns up to it, as they are written). A run that was begun "
        "before there was a choice keeps opening.",
    )
    on_bad_row: OnBadRow = Field(
        "fail",
        description="Treatment of bad rows: fail ends the stage; drop leaves them out and lists them in rejects.jsonl.",
    )

    @property
    def sources(self) -> list[Source]:
        """All that are named, of every kind."""
        return [*self.demonstrations, *self.comparisons, *self.judgements, *self.prompts]

    @field_validator("demonstrations", "comparisons", "judgements", "prompts", mode="before")
    @classmethod
    def _as_sources(cls, value: Any) -> Any:
        entries = value if isinstance(value, list) else [] if value is None else [value]
        return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]
