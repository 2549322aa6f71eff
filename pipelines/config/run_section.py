"""`run`: directory, seed, device and trackers."""

from __future__ import annotations

import datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from pipelines.config.section import Section, cosmetic

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio", "swanlab", "comet_ml", "clearml", "dvclive", "aim"]


class RunSection(Section):
    """Settings of the run as a whole."""

    dir: str | None = cosmetic(None, description="Run directory; null: runs/<name of the configuration file>.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of everything random: data, training, sampling.")
    date: str | None = cosmetic(
        None,
        description="Day that chat templates write where they ask for the time (Llama 3.2, gpt-oss), such as "
        "2026-11-27; null: the day on which the run was begun. Published templates write it as well.",
    )
    device: Literal["auto", "cpu", "cuda"] = cosmetic("auto", description="Device: auto uses CUDA if it is available.")
    threads: int | None = cosmetic(
        None,
        ge=1,
        le=4096,
        description="Number of CPU threads; null: 1 for models under 5 M parameters, else all cores.",
    )
    report_to: list[Tracker] = cosmetic(
        [], description="Experiment trackers, by Hugging Face's names; docs/trackers.md describes them."
    )

    @field_validator("date")
    @classmethod
    def _a_day(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                datetime.date.fromisoformat(value)
            except ValueError:
                raise ValueError("must be a day such as 2026-11-27") from None
        return value

    @field_validator("report_to", mode="before")
    @classmethod
    def _as_trackers(cls, value: Any) -> Any:
        """One text of names, as Hugging Face's `none` or a list between commas, is a list of them."""
        if not (isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)):
            return value
        return [name for name in value[0].replace(",", " ").split() if name != "none"]
