"""Two processes at one training: the same update as one would make, and a run that completes and resumes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config import dump_config
from pipelines.models.forward import TokenBatch
from pipelines.ppo.objective import advantages_and_returns
from pipelines.ppo.types import Rollout
from tests.ppo.test_ppo_resume import LORA, settings
from tests.ppo.two_ranks import one_update
from tests.programs import environment
from tests.trainers.test_trainer_resume import result


def torchrun(folder: Path, *command: str, cold: bool = False, **variables: str) -> tuple[int, str]:
    # torchrun binds a port of its own: one that was free before it started may be taken seconds later
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    line += ["--standalone", "--local-addr", "127.0.0.1"]
    env = environment(cold=cold, **variables)
    done = subprocess.run(
        [*line, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout + done.stderr


def rollout_of_eight() -> Rollout:
    """Eight rows of very different lengths with made-up numbers."""
    torch.manual_seed(0)
    lengths = (1, 7, 2, 5, 1, 7, 3, 4)
    prompts = [torch.randint(5, 300, (2 + i % 3,)).tolist() for i in range(8)]
    batch = TokenBatch.of(prompts, [torch.randint(5, 300, (n,)).tolist() for n in lengths], 1)
    mask = batch.response_mask
    values, rewards = torch.randn(8, 7), torch.randn(8, 7)
    advantages, returns = advantages_and_returns(rewards, values, mask, 1.0, 0.95)
    logprobs = -torch.rand(8, 7) * 6
    made = {"logprobs": logprobs, "ref_logprobs": logprobs - 0.1, "values": values, "scores": torch.randn(8)}
    made |= {"rewards": rewards, "advantages": advantages, "returns": returns, "loss_mask": mask}
    return Rollout(**{field.name: getattr(batch, field.name) for field in fields(TokenBatch)}, **made)


@pytest.mark.parametrize(
    ("kind", "valued", "cold"),
    [
        ("full", True, False),
        ("lora", True, False),
        ("lora", False, False),
        pytest.param("lora", True, True, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_make_the_update_of_one(tmp_path: Path, kind: str, valued: bool, cold: bool) -> None:
    rollout = rollout_of_eight()
    if not valued:
        rollout = replace(rollout, values=None, returns=None)
    torch.save({field.name: getattr(rollout, field.name) for field in fields(Rollout)}, tmp_path / "rollout.pt")
    code, out = torchrun(tmp_path, "-m", "tests.ppo.two_ranks", str(tmp_path), kind, cold=cold)
    assert code == 0, out
    expected, metrics = one_update(rollout, kind)
    ranks: list[Any] = [torch.load(tmp_path / f"{kind}-{rank}.pt") for rank in range(2)]
    for name, parameter in expected.items():
        for rank in ranks:
            torch.testing.assert_close(rank["parameters"][name], parameter, atol=1e-5, rtol=0)
    for name, value in metrics.items():
        if not name.startswith("time/"):
            assert ranks[0]["metrics"][name] == pytest.approx(value, abs=1e-4), name
            assert ranks[0]["metrics"][name] == ranks[1]["metrics"][name], name


def test_a_run_of_two_completes_and_resumes(tmp_path: Path) -> None:
    """Killed in its first process before the third update is logged; the end is that of a run never killed."""
    (tmp_path / "my.yaml").write_text(dump_config(settings(tmp_path, LORA, save_steps=2)))
    command = ("-m", "rlhf_cli", "ppo", "--config", "my.yaml", "--run-dir")
    code, out = torchrun(tmp_path, *command, "never")
    assert code == 0, out
    code, out = torchrun(tmp_path, *command, "killed", KILL_AT="open:metrics.jsonl:4")
    assert code != 0
    assert f"-{signal.SIGKILL.value}" in out or "SIGKILL" in out, out
    assert (tmp_path / "killed" / "ppo.partial" / "checkpoints" / "checkpoint-2" / "random-1.pt").exists()
    code, out = torchrun(tmp_path, *command, "killed")
    assert code == 0, out
    assert "goes on from update 2" in out
    assert result(tmp_path / "killed", "ppo") == result(tmp_path / "never", "ppo")
    assert json.loads((tmp_path / "never/ppo/manifest.json").read_text())["notes"]["processes"] == 2
    code, out = torchrun(tmp_path, *command, "never")
    assert code == 0, out
    assert "skipped" in out


@pytest.mark.slow
def test_a_run_of_two_acts_and_resumes(tmp_path: Path) -> None:
    """An alarm that never clears: the coefficient is raised twice, then both processes go back; killed after that."""
    acting = settings(tmp_path, LORA, save_steps=4, on_alarm="act", kl_limit=1e-9, total_episodes=200)
    (tmp_path / "my.yaml").write_text(dump_config(acting))
    command = ("-m", "rlhf_cli", "ppo", "--config", "my.yaml", "--run-dir")
    code, out = torchrun(tmp_path, *command, "never")
    assert code == 0, out
    lines = [json.loads(line) for line in (tmp_path / "never" / "ppo" / "alarms.jsonl").read_text().splitlines()]
    acted = [line["action"] for line in lines if line["name"] == "kl_high"]
    assert acted == ["raise_kl_coef", "raise_kl_coef", "go_back"], lines
    code, out = torchrun(tmp_path, *command, "killed", KILL_AT="open:metrics.jsonl:28")  # five saves open it too
    assert code != 0
    code, out = torchrun(tmp_path, *command, "killed")
    assert code == 0, out
    assert "goes on from update 20" in out
    assert result(tmp_path / "killed", "ppo") == result(tmp_path / "never", "ppo")


def test_what_runs_in_one_process_says_so(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(dump_config(settings(tmp_path, LORA)))
    for stage in ("sft", "all"):
        line = ("-m", "rlhf_cli", stage, "--config", "my.yaml", "--run-dir", "run", "--set", "sft.enabled=true")
        code, out = torchrun(tmp_path, *line, cold=stage == "all")
        assert code != 0
        assert "without torchrun" in out
