"""The attack in short; `make attack` and `make attack-full` are the long forms."""

from __future__ import annotations

from pathlib import Path

from tests.attack import attack


def test_nothing_is_lost_under_an_attack(tmp_path: Path) -> None:
    tally = attack(tmp_path, seed=1, interruptions=1, calls=1, flips=20)
    assert not tally.faults
    assert sum(tally.tried.values()) == 22
