"""The manifest: what is damaged in it is noticed, and so is what is consumed outside the chain."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ArtifactError
from pipelines.run.manifest import MANIFEST, Manifest, refuse_damaged, refuse_damaged_model
from tests.run.test_directory import manifest_of


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    model = tmp_path / "run" / "reward" / "model"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"0123456789")
    manifest_of(model.parent, "reward").write(model.parent)
    return model.parent


def test_it_reads_back(stage: Path) -> None:
    manifest = Manifest.read(stage)
    assert manifest is not None
    assert manifest.outputs[0].path == "model/weights"
    refuse_damaged(stage)


def test_every_flipped_bit_is_noticed(stage: Path) -> None:
    path = stage / MANIFEST
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        same = False
        with contextlib.suppress(ValueError):
            same = json.loads(data) == json.loads(whole)  # a blank that became another one
        if not same:
            with pytest.raises(ArtifactError):
                Manifest.read(stage)


def test_one_of_an_earlier_version_has_no_hash(stage: Path) -> None:
    data = json.loads((stage / MANIFEST).read_text())
    del data["sha256"]
    (stage / MANIFEST).write_text(json.dumps(data))
    assert Manifest.read(stage) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "0"},
        {"seed": None},
        {"outputs": {}},
        {"outputs": [{"path": "../../other", "size": 1, "mtime_ns": 1, "sha256": "a"}]},
        {"outputs": [{"path": "/etc/passwd", "size": 1, "mtime_ns": 1, "sha256": "a"}]},
        {"inputs": []},
        {"more": 1},
        {"metrics": None},
    ],
)
def test_without_its_hash_it_is_read_strictly(stage: Path, change: dict[str, Any]) -> None:
    data = json.loads((stage / MANIFEST).read_text())
    del data["sha256"]
    (stage / MANIFEST).write_text(json.dumps(data | change))
    with pytest.raises(ArtifactError, match="the manifest is damaged"):
        Manifest.read(stage)


@pytest.mark.parametrize("text", ["[]", "null", "[" * 100_000, '{"schema_version": 1}'])
def test_other_json_is_damage(stage: Path, text: str) -> None:
    (stage / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError):
        Manifest.read(stage)


def test_a_damaged_model_is_refused_by_name(stage: Path, tmp_path: Path) -> None:
    refuse_damaged_model(str(stage / "model"))
    (stage / "model" / "weights").write_bytes(b"0123456780")
    with pytest.raises(ArtifactError, match="model/weights is missing or was altered"):
        refuse_damaged_model(str(stage / "model"))
    refuse_damaged_model(str(tmp_path))
    refuse_damaged_model("org/model")
