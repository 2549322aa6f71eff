"""Reward sources and judges behind one small protocol: prompts and completions in, scores out.

`load_scorer` loads any of them from its configuration; torch is imported only by those that need it.
"""

from pipelines.scorers.load_scorer import load_scorer, named_apart, scorer_name
from pipelines.scorers.protocol import Completion, Dialogue, Scorer, ScorerWithParts, sampled_completion

__all__ = [
    "Completion",
    "Dialogue",
    "Scorer",
    "ScorerWithParts",
    "load_scorer",
    "named_apart",
    "sampled_completion",
    "scorer_name",
]
