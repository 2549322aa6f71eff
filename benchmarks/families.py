"""Every kind of decoder through SFT, reward model and PPO, whole and under LoRA: a table of what goes.

    python -m benchmarks.families [KIND ...]

It takes about a quarter of an hour on two cores and prints Markdown; notes go to stderr.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from transformers.utils import logging

from pipelines.errors import RlhfError
from pipelines.models.own_head import OwnHead, classifier_on_meta
from tests.models.decoders import DECODERS, run_all_stages, tiny_decoder


def outcome(kind: str, use_peft: bool, directory: Path) -> str:
    """Say `all stages`, or why not."""
    try:
        run_all_stages(kind, use_peft, directory)
    except RlhfError as error:
        reached = "before SFT" if not (directory / "run" / "sft").exists() else "after SFT"
        return f"refused {reached}: {error.message}"
    return "all stages"


def head_of(kind: str) -> str:
    """Say whose classifier the reward model is."""
    return "ours" if isinstance(classifier_on_meta(tiny_decoder(kind), kind), OwnHead) else "transformers"


def main() -> None:
    """Print the table."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    print("| kind | classifier | whole | LoRA |\n|---|---|---|---|")
    for kind in sys.argv[1:] or DECODERS:
        with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as lora:
            cells = [outcome(kind, use_peft, Path(place)) for use_peft, place in ((False, whole), (True, lora))]
            print(f"| {kind} | {head_of(kind)} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
