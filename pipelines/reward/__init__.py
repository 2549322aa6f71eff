"""The `reward` stage: a score of answers, by pairs or by a classifier, on the SFT model or a base of its own."""

from pipelines.reward.stage import run

__all__ = ["run"]
