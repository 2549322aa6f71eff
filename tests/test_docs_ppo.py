"""docs/ppo.md against the code: every option, file, function, test, metric and alarm that it names is there."""

from __future__ import annotations

import ast
import functools
import json
import re
from pathlib import Path

import pytest

from pipelines.config.ppo_section import PpoSection
from pipelines.ppo.alarms.alarm_rules import RULES

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "ppo.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"`([^`\n]+)`", PAGE)


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its level."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, without head and rule."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for place, row in enumerate(cells) if not set(lines[place]) <= set("|- :")]


@functools.cache
def names_in(path: Path) -> set[str]:
    """Functions, classes, ``Class.method`` and module constants that a file defines."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found.update(f"{node.name}.{child.name}" for child in node.body if isinstance(child, ast.FunctionDef))
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


DETAILS = [row for row in rows("The 44 details") if row[0].isdigit()]


def test_there_are_44_details() -> None:
    assert [int(row[0]) for row in DETAILS] == list(range(1, 45))


@pytest.mark.parametrize("row", DETAILS, ids=lambda row: row[0])
def test_a_detail_names_code_and_tests_that_are_there(row: list[str]) -> None:
    number, _, code, tests = row
    reasoned_no = code.startswith("no: ")
    places = [] if reasoned_no else re.findall(r"`([^`]+)`", code)
    assert places or reasoned_no, f"{number}: neither code nor a reason"
    for place in places:
        path, name = place.split(": ")
        assert name in names_in(REPOSITORY / "pipelines" / path), f"{number}: {place}"
    noticing = re.findall(r"`([^`]+)`", tests)
    assert noticing or reasoned_no, f"{number}: no test notices its absence"
    for test in noticing:
        path, name = test.split("::")
        assert name in names_in(REPOSITORY / "tests" / path), f"{number}: {test}"


def test_every_option_is_in_the_table_of_controls_with_its_default() -> None:
    shown = {row[0].strip("`"): row[1] for row in rows("Controls") if row[0].startswith("`ppo.")}
    assert set(shown) == {f"ppo.{name}" for name in PpoSection.model_fields}
    settings = PpoSection()
    assert shown.pop("ppo.reward") == f"kind: {settings.reward.kind}"
    for option, default in shown.items():
        value = getattr(settings, option.removeprefix("ppo."))
        expected = value if isinstance(value, str) else json.dumps(value)
        assert (float(default) == value) if isinstance(value, float) else (default == expected), option


def test_no_option_is_named_that_is_not_there() -> None:
    named = {name for quoted in QUOTED for name in re.findall(r"\bppo\.(\w+)", quoted) if name != "md"}
    assert named
    assert named <= set(PpoSection.model_fields)


def test_every_alarm_is_in_its_table() -> None:
    shown = [row[0].strip("`") for row in rows("What it warns of") if row[0].startswith("`")]
    assert sorted(shown) == sorted(rule.name for rule in RULES)


def test_files_that_are_named_are_there() -> None:
    named = {quoted for quoted in QUOTED if re.fullmatch(r"(pipelines|tests|configs)/[\w/.-]+", quoted)}
    linked = {link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if not link.startswith("http")}
    assert named
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
    assert [link for link in linked if not (REPOSITORY / "docs" / link).exists()] == []


def test_functions_that_are_named_with_a_file_are_in_it() -> None:
    for names, path in re.findall(r"((?:`\w+`(?:, )?)+) in\s+`(pipelines/[\w/]+\.py)`", PAGE):
        for name in re.findall(r"\w+", names):
            assert name in names_in(REPOSITORY / path), f"{path}: {name}"


def test_metrics_that_are_named_are_logged() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "pipelines" / "ppo").glob("*.py"))
    named = {quoted for quoted in QUOTED if re.match(r"(objective|policy|val|loss|eval|time)/\w+$", quoted)}
    assert named
    assert [name for name in named if f'"{name}"' not in sources] == []


def test_links_within_the_page_lead_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
