"""The `reward` stage: a pairwise (Bradley-Terry) reward model, on the SFT model or on a base of its own."""

from pipelines.reward.stage import run

__all__ = ["run"]
