"""Libraries in a process of the program: no code from the hub, no idle words, no import that nobody needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.errors import UsageError
from rlhf_cli import libraries
from tests.models.helpers import outside_base
from tests.programs import environment

FAKE_KERNELS = """
from pathlib import Path
Path(__file__).with_name("asked").touch()
def get_kernel(*args, **kwargs):
    raise OSError
"""


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    rows = [{"prompt": f"hello {number}", "completion": "world"} for number in range(12)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "a.jsonl"


@pytest.mark.parametrize("four_bit", [False, True])
def test_the_package_kernels_is_never_asked_and_nothing_idle_is_said(
    tmp_path: Path, chats: Path, four_bit: bool
) -> None:
    fake = tmp_path / "path" / "kernels"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(FAKE_KERNELS)
    base = outside_base(tmp_path / "base")
    sets = ["sft.max_length=64", "sft.max_steps=1", "ppo.response_length=4"]
    if four_bit:
        sets += ["model.use_peft=true", "model.load_in_4bit=true", "model.allow_cpu_4bit=true"]
    command = [
        sys.executable,
        "-m",
        "rlhf_cli",
        "sft",
        "--run-dir",
        "run",
        "--model",
        str(base),
        "--dataset",
        str(chats),
    ]
    command += [part for entry in sets for part in ("--set", entry)]
    env = environment(fake.parent, cold=True)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (fake / "asked").exists()
    assert "Failed to load" not in done.stderr
    assert "bitsandbytes" not in done.stderr
    assert "Warning:" not in done.stderr


@pytest.mark.parametrize(
    ("sets", "needed"),
    [
        ([], False),
        (["model.use_peft=true"], False),
        (["model.use_peft=true", "model.load_in_4bit=true"], True),
        (["sft.trainer={optim: adamw_8bit}"], True),
        (["reward.trainer={optim: paged_adamw_32bit}"], True),
        (["sft.trainer={optim: adafactor}"], False),
        (["ppo.reward={kind: classifier, path: a}"], True),
        (["model.name_or_path=plain"], False),
        (["model.name_or_path=quantized"], True),
        (["model.name_or_path=plain", "reward.base=quantized"], True),
        (["model.name_or_path=owner/not-here-yet"], True),
    ],
)
def test_bitsandbytes_is_spared_where_nobody_needs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sets: list[str], needed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for directory, settings in (("plain", {}), ("quantized", {"quantization_config": {"load_in_4bit": True}})):
        Path(directory).mkdir()
        Path(directory, "config.json").write_text(json.dumps(settings))
    for name in ("peft", "bitsandbytes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    config = load_config(None, sets)
    libraries.spare(config)
    assert "bitsandbytes" not in sys.modules, "only in a process of its own"
    monkeypatch.setattr(libraries, "_own_process", True)
    libraries.spare(config)
    assert ("bitsandbytes" in sys.modules) is not needed
    sys.modules.pop("bitsandbytes", None)


def test_kernels_of_the_hub_are_refused() -> None:
    with pytest.raises(UsageError, match="kernels of the hub are code"):
        load_config(None, ["model.attn_implementation=kernels-community/flash-attn"])
