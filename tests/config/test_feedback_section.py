"""What `feedback` refuses, and what of it makes which stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.config.feedback_section import SampledModel
from pipelines.config.model_section import ModelSection
from pipelines.errors import UsageError
from pipelines.sampling.sampling_models import outside_section

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


SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("{model: org/b, trust_remote_code: true}", "needs revision"),
        ("{model: org/b, trust_remote_code: true, revision: main}", "needs revision"),
        ("{model: DIRECTORY, trust_remote_code: true, revision: SHA}", "takes no revision"),
        ("{model: DIRECTORY, trust_remote_code: true}", None),
        ("{model: org/b, trust_remote_code: true, revision: SHA}", None),
    ],
)
@pytest.mark.parametrize("key", ["feedback.sample.models", "model"])
def test_trusted_code_is_pinned(tmp_path: Path, model: str, wanted: str | None, key: str) -> None:
    text = model.replace("DIRECTORY", str(tmp_path)).replace("SHA", f"'{SHA}'")
    text = text.replace("model:", "name_or_path:") if key == "model" else f"[{text}]"
    if wanted is None:
        load_config(None, [f"{key}={text}"])
        return
    with pytest.raises(UsageError, match=wanted):
        load_config(None, [f"{key}={text}"])


def test_trust_in_one_model_is_none_in_another(tmp_path: Path) -> None:
    model = ModelSection(name_or_path="org/a", trust_remote_code=True, revision=SHA)
    other = SampledModel(model="org/b", revision=SHA)
    assert not outside_section(other, model).trust_remote_code
    assert outside_section(other, model.on("2026-11-26")).date == "2026-11-26"
    assert outside_section(other.model_copy(update={"trust_remote_code": True}), model).trust_remote_code
    assert "trust_remote_code" not in other.results_view()
