"""The map in CONTRIBUTING.md: one line for every file of the program, taken from the file's docstring.

`python -m tests.code_map` rewrites the map; `test_code_map.py` fails where it is out of date.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "CONTRIBUTING.md"
START, END = "<!-- map: start -->\n", "<!-- map: end -->\n"
FOLDERS = ("rlhf_cli", "pipelines")


def purpose(path: Path) -> str:
    """First sentence of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[.!])\s+(?=[A-Z`])", paragraph)[0].rstrip(".")


def code_map() -> str:
    """One heading for each folder with the purpose of its package, and one line for each module in it."""
    lines = []
    for folder in FOLDERS:
        for package in sorted(path.parent for path in (REPOSITORY / folder).rglob("__init__.py")):
            lines += [
                f"### `{package.relative_to(REPOSITORY).as_posix()}/`",
                "",
                f"{purpose(package / '__init__.py')}.",
                "",
            ]
            modules = [path for path in sorted(package.glob("*.py")) if path.name != "__init__.py"]
            lines += [f"- `{path.name}`: {purpose(path)}" for path in modules]
            lines += [""] if modules else []
    return "\n".join(lines)


def page_with_map() -> str:
    """CONTRIBUTING.md with the map of today."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return before + START + code_map() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page_with_map(), encoding="utf-8")
