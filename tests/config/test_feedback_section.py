"""What `feedback` refuses, and what of it makes which stage."""

from __future__ import annotations

import pytest

from pipelines.config import load_config
from pipelines.errors import UsageError

TASK = ("data.task={name: support}", "model.init=scratch", "sft.max_length=96", "feedback.source=simulated")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("feedback.rounds=2",), "set feedback.source to simulated or human"),
        ((*TASK, "feedback.rounds=2", "ppo.enabled=false"), "every round trains both"),
        (("feedback.source=simulated",), "gold scorer, which only a self-made task"),
        ((*TASK, "feedback.simulated.scorer={kind: run}"), "cannot be the run's reward model"),
        ((*TASK, "reward.objective=pointwise", "reward.lower_is_better=true"), "always means good"),
        (("feedback.pairs.question=kind",), "no question is named kind; there are overall"),
        (("feedback.label.questions=[{name: a}, {name: a}]",), "two questions have the same name"),
        (("feedback.label.questions=[{name: a, kind: demonstration}, {name: b}]",), "stands alone"),
        (("feedback.label.questions=[{name: Überall}]",), "small letters, digits and underscores"),
        (("feedback.label.annotators=[Ann, ann]",), "distinct names"),
    ],
)
def test_what_makes_no_sense_is_refused(sets: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(None, sets)
    assert words in caught.value.message
