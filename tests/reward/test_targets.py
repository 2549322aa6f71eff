"""Labels to targets, losses, figures and configuration: all by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.config import Config
from pipelines.config.reward_section import RewardSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.models.sequence_scores import read_logit
from pipelines.report.calibration import Bin, probability, reliability
from pipelines.report.statistics import auc
from pipelines.reward.assessment import figures
from pipelines.reward.pointwise import one_logit_loss, two_class_loss
from pipelines.reward.training_rows import LabelScale, RowFile, scale_of
from tests.models.helpers import config_for


@pytest.mark.parametrize(
    ("scale", "label", "target"),
    [
        (LabelScale(0, 1, False, False), True, 1.0),
        (LabelScale(0, 1, True, False), True, 0.0),
        (LabelScale(1, 5, False, True), 4, 0.75),
        (LabelScale(1, 5, True, True), 4, 0.25),
        (LabelScale(1, 5, False, True), True, 1.0),  # true is good on any scale
        (LabelScale(1, 4, False, False), 5, 1.0),  # a held-out label beyond those to train on
    ],
)
def test_targets(scale: LabelScale, label: bool | float, target: float) -> None:
    assert scale.target(label) == target


def test_where_the_range_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    prompt = [{"role": "user", "content": "hi"}]
    path.write_text("".join(json.dumps({"prompt": prompt, "completion": "a", "label": x}) + "\n" for x in (2, 4, 3.5)))
    asked = {"label": {"questions": [{"name": "a", "kind": "scale", "points": 7}]}}
    file, labels = RowFile("data/judgements", "rows", path), RowFile("pairs", "rows", path)

    def found(which: RowFile, **section: object) -> tuple[float, float]:
        config = config_for(reward={"objective": "pointwise", **section}, feedback=asked)
        scale = scale_of(which, config)
        assert scale is not None
        return scale.low, scale.high

    assert found(file) == (2, 4)
    assert found(labels) == (1, 7)
    assert found(labels, label_range=[0, 10]) == (0, 10)
    path.write_text("")
    assert scale_of(file, config_for(reward={"objective": "pointwise"})) is None


def test_losses_by_hand() -> None:
    labels = torch.tensor([1.0, 0.25])
    logits = torch.tensor([[2.0], [-1.0]])
    first = -math.log(1 / (1 + math.exp(-2)))
    p = 1 / (1 + math.exp(1))
    second = -(0.25 * math.log(p) + 0.75 * math.log(1 - p))
    assert float(one_logit_loss(SimpleNamespace(logits=logits), labels)) == pytest.approx((first + second) / 2)
    assert float(one_logit_loss(SimpleNamespace(logits=logits), labels, 8)) == pytest.approx((first + second) / 8)
    both = torch.tensor([[0.5, 2.5], [3.0, 2.0]])  # differences as above: the softmax is the sigmoid
    assert float(two_class_loss(SimpleNamespace(logits=both), labels)) == pytest.approx((first + second) / 2)
    half = SimpleNamespace(logits=logits.bfloat16())
    assert one_logit_loss(half, labels).dtype == torch.float32


def test_outputs_of_a_logit() -> None:
    logit = torch.tensor([0.0, 3.0, -200.0])
    assert read_logit(logit, "probability").tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-3)), 0.0])
    assert read_logit(logit, "logprob").tolist() == pytest.approx([-math.log(2), -math.log1p(math.exp(-3)), -200.0])
    assert read_logit(logit, "logit") is logit


def test_figures_by_hand() -> None:
    logits = [math.log(4), 0.0, -math.log(4), math.log(4)]  # .8 .5 .2 .8
    found = figures(logits, [1.0, 0.0, 0.25, 0.5])
    assert found["accuracy"] == pytest.approx(2.5 / 3)  # the last one is on neither side
    assert found["majority"] == pytest.approx(2 / 3)
    assert found["auc"] == 1.0
    assert found["brier"] == pytest.approx((0.04 + 0.25 + 0.0025 + 0.09) / 4)
    assert found["calibration_error"] == pytest.approx((0.5 + 0.05 + 2 * abs(0.8 - 0.75)) / 4)
    losses = [-math.log(0.8), math.log(2), -(0.25 * math.log(0.2) + 0.75 * math.log(0.8)), -0.5 * math.log(0.8 * 0.2)]
    assert found["loss"] == pytest.approx(sum(losses) / 4)
    nothing = figures([1.0], [0.5])
    assert [nothing[name] for name in ("accuracy", "accuracy_low", "majority", "auc")] == [None] * 4
    assert figures([800.0, -800.0], [0.0, 1.0])["loss"] == pytest.approx(800)


def test_bins_hold_equally_many_and_keep_equal_probabilities_together() -> None:
    assert reliability([0.5] * 6, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) == [Bin(6, 0.5, 0.5)]
    probabilities = [index / 100 for index in range(100)]
    bins = reliability(probabilities, [float(index >= 50) for index in range(100)])
    assert [found.n for found in bins] == [10] * 10
    assert bins[0].probability == pytest.approx(0.045)
    assert [found.good for found in bins] == [0.0] * 5 + [1.0] * 5
    assert [found.n for found in reliability([0.3, 0.1, 0.2], [1.0, 0.0, 1.0])] == [1, 1, 1]


@given(st.lists(st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1))
def test_figures_of_the_opposite_are_the_opposite(rows: list[tuple[float, float]]) -> None:
    """Turning labels and logits both changes nothing; turning the logits alone mirrors accuracy and AUC."""
    logits, targets = [logit for logit, _ in rows], [target for _, target in rows]
    plain = figures(logits, targets)
    turned = figures([-logit for logit in logits], [1 - target for target in targets])
    mirrored = figures([-logit for logit in logits], targets)
    for name in plain.keys() - {"calibration_error"}:  # bins are filled from below, equal probabilities together
        assert turned[name] == pytest.approx(plain[name], abs=1e-9)
    assert mirrored["accuracy"] == pytest.approx(1 - (plain["accuracy"] or 0))
    area = auc([target == 1 for target in targets], logits)
    assert (mirrored["auc"] is None) == (area is None)
    if area is not None:
        assert mirrored["auc"] == pytest.approx(1 - area)
    assert sum(found.n for found in reliability([probability(x) for x in logits], targets)) == len(rows)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"output": "softmax"}, "output belongs to objective: pointwise"),
        ({"lower_is_better": True}, "lower_is_better belongs to objective: pointwise"),
        ({"label_range": [1, 5]}, "label_range belongs to objective: pointwise"),
        ({"objective": "pointwise", "center_rewards_coefficient": 0.1}, "belongs to objective: pairwise"),
        ({"objective": "pointwise", "output": "softmax"}, "output: softmax needs base"),
        ({"objective": "pointwise", "label_range": [5, 1]}, "from the smallest label to the largest"),
    ],
)
def test_fields_of_the_other_objective_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RewardSection.model_validate(fields)


def test_only_a_pointwise_model_gives_a_probability_and_old_runs_stand() -> None:
    section = {"kind": "sum", "parts": [{"kind": "run", "output": "probability"}, {"kind": "length", "target": 5}]}
    for where in ({"ppo": {"reward": section}}, {"eval": {"scorers": [section]}}):
        with pytest.raises(ValidationError, match="wants a probability of the run's reward model"):
            Config.model_validate(where)
        Config.model_validate({**where, "reward": {"objective": "pointwise"}})
    assert "output" not in ScorerSection().results_view()
    assert ScorerSection(output="logprob").results_view()["output"] == "logprob"
    assert not {"objective", "output", "lower_is_better", "label_range"} & set(RewardSection().results_view())
    for use_margin in (True, False):  # true was the default once, and is recorded
        assert "use_margin" not in RewardSection(objective="pointwise", use_margin=use_margin).results_view()
