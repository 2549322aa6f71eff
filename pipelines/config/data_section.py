"""`data`: where demonstrations, comparisons and prompts come from, and how they are split."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from pipelines.config.section import Section

TagName = Literal[
    "role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"
]
Tags = dict[TagName, str]
"""What a dialogue calls the keys and the speakers of its turns, under the names that LLaMA-Factory gives them."""


class Source(Section):
    """Where rows come from: a data file, a directory, a hub data set, or an entry of a dataset_info.json."""

    path: str = Field(
        description="A file (.json .jsonl .txt .csv .tsv, each also .gz; .parquet .arrow .feather), a directory, "
        "a hub data set (owner/name), or LLaMA-Factory's dataset_info.json.",
    )
    name: str | None = Field(None, description="Configuration of a hub data set, or entry of the dataset_info.json.")
    split: str = Field("train", description="Split of a hub data set or directory.")
    revision: str | None = Field(None, description="Commit, branch or tag of a hub data set.")
    format: str | None = Field(None, description="Name of the format; default: told from the first rows.")
    columns: dict[str, str] = Field({}, description="Canonical name: name in the file, e.g. {prompt: question}.")
    tags: Tags = Field(
        {},
        description="Keys and speakers of `conversations`, where they are not ShareGPT's own (from, value, human, "
        "gpt), e.g. {role_tag: role, content_tag: content, user_tag: user, assistant_tag: assistant}.",
    )
    limit: int | None = Field(None, ge=1, description="Take at most so many rows, from the start.")
    sample: int | None = Field(None, ge=1, description="Of these, draw so many at random, always the same ones.")
    weight: float = Field(
        1.0,
        gt=0,
        description="How much it counts in training: 0.5 leaves out half of its prompts, 2 gives each row twice. "
        "Held-out rows stay as they are.",
    )


class TaskSource(Section):
    """A self-made task that generates its own data."""

    name: str = "support"
    demonstrations: int = Field(3000, ge=1)
    comparisons: int = Field(5000, ge=0)
    prompts: int = Field(2000, ge=1)


class DataSection(Section):
    """Sources, each a path, a mapping with `path`, or a list of these.

    A source may hold a richer kind than asked for: comparisons serve as demonstrations (the chosen answer) and as
    prompts, demonstrations serve as prompts. `prompts` left empty takes those of the comparisons, else of the
    demonstrations.
    """

    task: TaskSource | None = Field(None, description="Generate the data of a self-made task instead of reading files.")
    demonstrations: list[Source] = Field([])
    comparisons: list[Source] = Field([])
    judgements: list[Source] = Field([], description="Answers with a label, for reward.objective: pointwise.")
    prompts: list[Source] = Field([])
    eval_fraction: float = Field(0.1, gt=0, lt=1, description="Share of the prompts held out of every stage, by hash.")
    on_bad_row: Literal["fail", "drop"] = Field("fail", description="drop: leave bad rows out and list them.")

    @property
    def sources(self) -> list[Source]:
        """All that are named, of every kind."""
        return [*self.demonstrations, *self.comparisons, *self.judgements, *self.prompts]

    @field_validator("demonstrations", "comparisons", "judgements", "prompts", mode="before")
    @classmethod
    def _as_sources(cls, value: Any) -> Any:
        entries = value if isinstance(value, list) else [] if value is None else [value]
        return [{"path": entry} if isinstance(entry, str) else entry for entry in entries]
