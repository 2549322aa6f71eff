"""docs/reward-model.md: its configurations are taken, and the figures it lists are those of the stage."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.config import Config
from pipelines.config.yaml12 import parse_yaml
from pipelines.models.published_reward import WORDS
from pipelines.reward.assessment import PAIR_FIGURES, figures

PAGE = (Path(__file__).parents[2] / "docs" / "reward-model.md").read_text(encoding="utf-8")


def test_every_configuration_is_taken() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        config = Config.model_validate(parse_yaml(block, "page")[0])
        assert config.reward.objective == "pointwise"
        assert config.ppo.reward.output == "probability"
        assert config.trains_on("pairs") or config.trains_on("judgements")


def test_figures_and_outputs_are_those_of_the_code() -> None:
    listed = set(re.findall(r"^\| `heldout_(\w+)`", PAGE, re.MULTILINE))
    by_pair = {name for name in listed if name.startswith("pair_")}
    assert by_pair <= {f"pair_{name}" for name in PAIR_FIGURES}
    assert listed - by_pair == set(figures([0.0], [1.0])) - {"accuracy_low", "accuracy_high"}
    assert set(WORDS) <= set(re.findall(r"^\| `(\w+)` \| (?:both|pointwise)", PAGE, re.MULTILINE))
