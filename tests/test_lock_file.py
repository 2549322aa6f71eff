"""requirements.lock: what the dependencies lead to, in the tested versions, every file with its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_licences import runtime

REPOSITORY = Path(__file__).parents[1]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked() -> dict[str, tuple[Requirement, int]]:
    """The requirement and the number of its hashes, by name."""
    text = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    rows = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    packages = {}
    for row in rows:
        specification, *hashes = (part.strip() for part in re.split(r"\s(?=--hash)", row))
        assert all(HASH.fullmatch(part) for part in hashes), row  # no address, no option
        requirement = Requirement(specification)
        packages[canonicalize_name(requirement.name)] = requirement, len(hashes)
    return packages


def tested() -> dict[str, str]:
    """The version in constraints.txt, by name."""
    rows = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(row) for row in rows if row and not row.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def test_every_package_is_pinned_to_the_tested_version_and_has_hashes() -> None:
    constraints = tested()
    assert locked()
    for name, (requirement, hashes) in locked().items():
        assert hashes, name
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert pin.version == constraints.get(name, pin.version), f"{name}: run `make lock`"


def test_it_holds_all_that_is_installed_with_the_program() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = locked()
    for dependency in map(Requirement, project["dependencies"]):
        requirement, _ = packages[canonicalize_name(dependency.name)]
        (pin,) = requirement.specifier
        assert dependency.specifier.contains(pin.version), f"{dependency}: run `make lock`"
    # markers of the lock file speak for themselves; what is installed here must be among its packages
    assert {canonicalize_name(name) for name in runtime()} <= packages.keys()
