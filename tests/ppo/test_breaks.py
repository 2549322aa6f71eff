"""The breaks of `make breaks` fit the code: each has its place in it, changes it, and names a test that exists."""

from __future__ import annotations

import ast

import pytest

from tests.ppo.breaks import BREAKS, ROOT, Break


@pytest.mark.parametrize("each", BREAKS, ids=lambda each: each.name)
def test_the_break_has_its_place_and_its_test(each: Break) -> None:
    sound = (ROOT / each.file).read_text(encoding="utf-8")
    broken = each.text()
    assert ast.dump(ast.parse(broken)) != ast.dump(ast.parse(sound))
    file, _, function = each.test.partition("::")
    tests = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert function.partition("[")[0] in {node.name for node in tests.body if isinstance(node, ast.FunctionDef)}


def test_a_break_that_lost_its_place_is_an_error() -> None:
    lost = Break("lost", BREAKS[0].file, "a text that no file holds", "", BREAKS[0].test)
    with pytest.raises(LookupError, match="0 times"):
        lost.text()


def test_breaks_differ() -> None:
    assert len(BREAKS) >= 20
    assert len({each.name for each in BREAKS}) == len({(each.file, each.text()) for each in BREAKS}) == len(BREAKS)
