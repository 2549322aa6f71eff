"""After `mutmut run`: only mutants that docs/mutants.md explains may have survived. Exit code 1 if others did."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mutants.md"
MUTMUT = Path(sys.executable).with_name("mutmut")


def explained(page: str) -> set[str]:
    """The mutated lines of the page's table: the code in its second column."""
    return {match[1].replace("\\|", "|") for match in re.finditer(r"^\|[^|]+\| `(.+?)` \|", page, re.MULTILINE)}


def survivors() -> dict[str, str]:
    """Name of each mutant that no test noticed, and its changed line."""
    results = _mutmut("results")
    names = [line.split(":")[0].strip() for line in results.splitlines() if ":" in line]
    return {name: changed_line(_mutmut("show", name)) for name in names}


def changed_line(diff: str) -> str:
    """The first line that a diff adds."""
    return next(
        (line[1:].strip() for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")), diff
    )


def _mutmut(*arguments: str) -> str:
    return subprocess.run([MUTMUT, *arguments], check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Compare the survivors with the page."""
    known, found = explained(PAGE.read_text(encoding="utf-8")), survivors()
    new = {name: line for name, line in found.items() if line not in known}
    for name, line in new.items():
        print(f"not explained in docs/mutants.md: {name}\n    {line}")
    for line in known - set(found.values()):
        print(f"explained in docs/mutants.md, but did not survive: {line}")
    print(f"{len(found)} mutants survived, {len(new)} of them not explained")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
