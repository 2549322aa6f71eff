"""What `make mutants` compares its survivors with."""

from __future__ import annotations

from tests.ppo.mutants import PAGE, changed_line, explained


def test_every_row_of_the_page_is_read() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(explained(page)) == len(rows) > 5


def test_the_changed_line_of_a_diff() -> None:
    diff = "# a.b: survived\n--- a.py\n+++ a.py\n@@ -1,2 +1,2 @@\n     x = 1\n-    y = x + 1\n+    y = x - 1\n"
    assert changed_line(diff) == "y = x - 1"
