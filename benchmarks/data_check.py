"""How fast `rlhf data check` reads, and what memory it takes: short comparisons, made in a temporary folder.

    python -m benchmarks.data_check --rows 1000000

The rows are read in a process of its own, whose peak memory is the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCAN_ONLY = (
    "import sys, time; from pipelines.config.data_section import Source; from pipelines.data.read import SourceReader; "
    "start = time.process_time(); count = sum(1 for _ in SourceReader(Source(path=sys.argv[1]))); "
    "print(count / (time.process_time() - start))"
)


def write_pairs(path: Path, rows: int) -> None:
    chance = random.Random(0)
    words = [f"word{index}" for index in range(5000)]

    def text(length: int) -> str:
        return " ".join(chance.choices(words, k=length))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            row = {"prompt": text(8), "chosen": text(chance.randint(4, 16)), "rejected": text(chance.randint(4, 16))}
            file.write(json.dumps(row) + "\n")


def measure(rows: int) -> dict[str, float]:
    """Rows a second of wall and of processor time, and the peak memory in MB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        write_pairs(path, rows)
        start = time.monotonic()
        command = [sys.executable, "-m", "rlhf_cli", "data", "check", str(path), "--json", "--examples", "0", "-q"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        wall = time.monotonic() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert json.loads(done.stdout)["files"][0]["kinds"] == {"comparison": rows}
        megabytes = path.stat().st_size / 1e6
        command = [sys.executable, "-c", SCAN_ONLY, str(path)]
        reader = float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    return {
        "rows": rows,
        "file_mb": megabytes,
        "wall_s": wall,
        "rows_per_s": rows / wall,
        "rows_per_cpu_s": rows / (used.ru_utime + used.ru_stime),
        "reader_alone_rows_per_cpu_s": reader,
        "peak_mb": used.ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    for name, value in measure(parser.parse_args().rows).items():
        print(f"{name}: {value:,.1f}")


if __name__ == "__main__":
    main()
