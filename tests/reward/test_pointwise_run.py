"""A classifier as the reward of a whole run: through all stages, killed and gone on with."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.chain.chain import run_chain
from pipelines.chain.table import stages_of
from pipelines.config import Config, dump_config, load_config
from pipelines.config.data_section import Source
from pipelines.config.scorer_section import ScorerSection
from pipelines.models.forward import TokenBatch
from pipelines.models.published_reward import PublishedReward
from pipelines.ppo.load_roles import RoleSources, build_roles
from pipelines.ppo.rollout import RoleReward
from pipelines.ppo.types import Normalization
from pipelines.run.directory import RunDir
from pipelines.run.reporting import SilentReporter
from pipelines.scorers import Completion, load_scorer
from pipelines.scorers.score_file import context_of_run, read_answers, score_rows
from tests.models.helpers import outside_base
from tests.reward.test_own_base import base_of_its_own
from tests.reward.test_pointwise import judgements
from tests.run import test_run_killed
from tests.trainers.test_trainer_resume import LORA, Interrupter, compare, go, result, settings, went_on

CPU = torch.device("cpu")
OUTPUTS = {"full": "logprob", "lora": "probability", "own": "probability"}


@pytest.fixture(scope="module", params=list(OUTPUTS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Config, Path]:
    """Labels of 1 mean bad; PPO trains on a probability. Without SFT, which has nothing to do with it."""
    kind: str = request.param
    folder = tmp_path_factory.mktemp(kind)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in judgements(40, good=0, bad=1)))
    own = {"base": str(base_of_its_own(folder / "own", "bert")), "output": "softmax"} if kind == "own" else {}
    config = Config.model_validate(
        {
            "run": {"device": "cpu"},
            "model": {"name_or_path": str(outside_base(folder / "base")), "use_peft": kind != "full"},
            "data": {"judgements": str(rows), "eval_fraction": 0.2},
            "sft": {"enabled": False},
            "reward": {
                "objective": "pointwise",
                "lower_is_better": True,
                "max_length": 64,
                "learning_rate": 5e-3,
                "num_train_epochs": 2.0,
                "normalization_prompts": 4,
                **own,
            },
            "ppo": {
                "reward": {"output": OUTPUTS[kind]},
                "total_episodes": 8,
                "rollout_batch_size": 8,
                "num_mini_batches": 2,
                "num_ppo_epochs": 1,
                "max_prompt_length": 32,
                "response_length": 6,
                "num_eval_prompts": 2,
            },
            "eval": {"num_prompts": 4, "bootstrap_samples": 100},
        }
    )
    run_dir = RunDir(folder / "run")
    run_dir.create()
    with run_dir.lock():
        run_chain(stages_of(config), config, run_dir, SilentReporter())
    assert run_dir.config_path.read_text() == dump_config(config)
    return run_dir, config, rows


def test_ppo_trains_on_the_chosen_output_and_tables_name_it(run: tuple[RunDir, Config, Path]) -> None:
    run_dir, config, _ = run
    output = config.ppo.reward.output
    line = json.loads((run_dir.stage("ppo") / "metrics.jsonl").read_text().splitlines()[0])
    low, high = (0, 1) if output == "probability" else (-20, 0)
    assert low < line["objective/scores"] < high
    scale = PublishedReward.read(run_dir.stage("reward")).scale(output)
    assert low < scale.mean < high
    found = json.loads((run_dir.stage("eval") / "results.json").read_text())
    note = found["scorers"][0]["note"]
    assert "probability of a good answer by a classifier" in note
    assert "label 0 is good and 1 is bad" in note
    assert low < found["measures"]["ppo"]["mean"]["reward_model"]["value"] < high
    assert "label 0 is good and 1 is bad" in " ".join((run_dir.stage("eval") / "table.txt").read_text().split())
    assert "label 0 is good" in (run_dir.stage("eval") / "table.md").read_text()


def test_a_role_scores_as_the_scorer_does_and_its_value_starts_at_zero(run: tuple[RunDir, Config, Path]) -> None:
    run_dir, config, _ = run
    if config.reward.base is not None:
        pytest.skip("a reward model with its own tokenizer is no role")
    reward = run_dir.stage("reward")
    roles = build_roles(RoleSources(config, run_dir.root, None, reward, None, CPU))
    head = roles.value.head
    assert head is not None
    assert all(float(value.abs().max()) == 0 for value in head.parameters())
    linear = build_roles(RoleSources(config, run_dir.root, None, reward, Normalization(0.5, 2.0), CPU)).value.head
    assert linear is not None
    assert float(next(linear.parameters()).abs().max()) > 0

    prompts, responses = [[5, 6, 7], [8, 9]], [[10, 11, 1], [12, 13, 14]]
    batch = TokenBatch.of(prompts, responses, 1)
    logits = roles.scores(batch, 2)
    scores = RoleReward(roles, 2, (1,), config.ppo.reward.output)(batch, [], responses).scores
    expected = logits.sigmoid() if config.ppo.reward.output == "probability" else logits.sigmoid().log()
    assert scores.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_scored_file_and_a_sum_hold_the_output(run: tuple[RunDir, Config, Path]) -> None:
    run_dir, config, rows = run
    context = context_of_run(config, run_dir)
    section = config.ppo.reward
    found = score_rows(section, read_answers(Source(path=str(rows))), context, SilentReporter(), as_policy=True)
    assert found["summary"]["output"] == section.output
    assert found["summary"]["auc"] < 0.5  # labels of 1 mean bad, the score is that of good
    scale = PublishedReward.read(run_dir.stage("reward")).scale(section.output)
    total = ScorerSection.model_validate({"kind": "sum", "parts": [{"kind": "run", "output": section.output}]})
    row = read_answers(Source(path=str(rows)))[0]
    one = [Completion(row.answers["completion"], (5, 6, 1), True)]
    raw = load_scorer(section, context, CPU)([row.prompt], one)[0]
    assert load_scorer(total, context, CPU)([row.prompt], one)[0] == pytest.approx((raw - scale.mean) / scale.std)


@pytest.mark.parametrize("kind", [pytest.param("lora", marks=pytest.mark.slow), "own base"])
def test_the_classifier_is_the_same_to_the_byte_after_kills(tmp_path: Path, kind: str) -> None:
    section: dict[str, Any] = {"objective": "pointwise"}
    if kind == "own base":
        section |= {"base": str(base_of_its_own(tmp_path / "own", "bert")), "output": "softmax"}
    config = settings(tmp_path, outside_base(tmp_path / "base", "gpt2"), "reward", LORA, **section)
    config = config.model_copy(update={"sft": config.sft.model_copy(update={"enabled": False})})
    said = compare(tmp_path, config, "reward", save_steps=4, kills=[7, 3])
    assert [went_on(part) for part in said] == [[], ["step 4"], ["step 4"]]


def test_killed_by_the_system_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    config = settings(tmp_path, outside_base(tmp_path / "base"), "reward", LORA, objective="pointwise")
    config = config.model_copy(update={"sft": config.sft.model_copy(update={"enabled": False})})
    (tmp_path / "my.yaml").write_text(dump_config(config))
    go(tmp_path / test_run_killed.NEVER, config, "reward")
    root = tmp_path / "run"
    line = ("reward", "--set", "reward.save_steps=4")
    code, err = test_run_killed.run(tmp_path, root, *line, kill_at="open:trainer_state.json:4")
    assert code == -signal.SIGKILL, err
    reporter = Interrupter()
    go(root, load_config(tmp_path / "my.yaml", ("reward.save_steps=4",)), "reward", reporter)
    assert went_on(reporter.said) == ["step 4"]
    assert result(root, "reward") == result(tmp_path / test_run_killed.NEVER, "reward")
