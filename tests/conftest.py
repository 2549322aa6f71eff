"""Tests run offline and on one thread: with models this small a second thread only costs."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job has it, and all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real input that nobody here wrote; it is not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder with real input is not on this machine")
    return SHARED_DATA


LONGEST = (
    "test_tutorials.py",
    "test_two_ranks.py",
    "test_exact_optimum.py",
    "test_golden_scores",
    "test_run_killed.py",
    "test_ppo_killed.py",
    "test_ppo_resume.py",
    "test_trainer_resume.py",
    "test_browser",
)
"""They come first, so that no worker begins one when the others have nothing left."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((place for place, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)  # mutants and breaks run without xdist
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores, for `-n auto`: many tests wait for a browser or a program that they started."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Keep what the imports made out of the garbage collector, which the trainers call for every run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Power does not fail in a test: what `fsync` is called for, and when, is tested by its calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)
        yield
