"""A reward source, as `ppo.reward` and `eval.scorers` name it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipelines.config.base import Section, cosmetic


class ScorerSection(Section):
    """The run's reward model, a Python function, a text classifier, or the gold scorer of a self-made task."""

    kind: Literal["run", "function", "classifier", "gold"] = "run"
    name: str | None = cosmetic(None, description="Name in tables; default: derived from what it is.")
    function: str | None = Field(None, description="module:function, called with (prompts, completions) -> floats.")
    path: str | None = Field(None, description="Hub id or directory of a text classifier or reward model.")
    revision: str | None = None
    label: int | str | None = Field(
        None, description="Class whose logit is the score; only needed where the classifier has several."
    )
    batch_size: int = cosmetic(32, ge=1)

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> ScorerSection:
        wanted = {"function": "function", "classifier": "path"}.get(self.kind)
        for field in ("function", "path"):
            if (getattr(self, field) is not None) != (field == wanted):
                verb = "needs" if field == wanted else "takes no"
                raise ValueError(f"a scorer of kind {self.kind} {verb} `{field}`")
        return self
