"""Reward sources and judges behind one small protocol: prompts and completions in, scores out.

`load_scorer` makes any of them from its configuration. Nothing here imports torch before it is needed.
"""

from pipelines.scorers.load_scorer import load_scorer, named_apart, scorer_name
from pipelines.scorers.protocol import Completion, Dialogue, Scorer, ScorerWithParts

__all__ = ["Completion", "Dialogue", "Scorer", "ScorerWithParts", "load_scorer", "named_apart", "scorer_name"]
