"""Licences of everything that is installed with the program: none that an Apache-2.0 project cannot depend on."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
PERMISSIVE = re.compile(
    r"apache|mit\b|bsd|isc|zlib|cc0|psf|python software foundation|mpl|mozilla|bsl-1\.0|cnri-python|unlicense",
    re.IGNORECASE,
)
FORBIDDEN = re.compile(r"gpl|affero|sspl|busl|commons clause|non-?commercial|proprietary", re.IGNORECASE)


def runtime() -> dict[str, str]:
    """Name and licence of every distribution that the dependencies lead to, as far as they are installed here."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    licences: dict[str, str] = {}

    def walk(requirements: Iterator[Requirement]) -> None:
        for requirement in requirements:
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if name in licences:
                continue
            try:
                distribution = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:  # for another platform
                continue
            licences[name] = licence_of(distribution)
            extras = ("", *requirement.extras)
            below = map(Requirement, distribution.requires or ())
            walk(r for r in below if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras))

    walk(map(Requirement, project["dependencies"]))
    return licences


def licence_of(distribution: importlib.metadata.Distribution) -> str:
    metadata = distribution.metadata
    classifiers = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if "License ::" in text]
    written = (metadata.get("License") or "").splitlines() or [""]
    return metadata.get("License-Expression") or "; ".join(classifiers) or written[0]


def test_every_runtime_dependency_may_be_depended_on() -> None:
    licences = runtime()
    assert len(licences) > 30
    bad = {name: text for name, text in licences.items() if FORBIDDEN.search(text) or not PERMISSIVE.search(text)}
    assert not {name: text for name, text in bad.items() if not name.startswith(("nvidia-", "cuda-", "triton"))}


def test_the_page_names_them_all() -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", page, flags=re.MULTILINE))
    missing = {
        name: text for name, text in runtime().items() if rows.get(name) != text and not name.startswith("nvidia-")
    }
    assert not missing, "\n".join(f"| `{name}` | {text} |" for name, text in sorted(missing.items()))
