"""Text that others wrote, made safe and readable for a terminal or a Markdown file."""

from __future__ import annotations

import re
import unicodedata

from rich.cells import cell_len, chop_cells

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that steer a terminal, turn the reading direction or cannot be seen."""


def visible(text: str) -> str:
    r"""The text with what cannot be seen spelled out: ESC as ``\x1b``, a direction override as ``\u202e``.

    Line feeds stay; everything else that could move the cursor, color, hide or reorder text becomes plain ASCII.
    """
    text = text.replace("\r\n", "\n")
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in HIDDEN else _escaped(char) for char in text
    )


def one_line(text: str, width: int) -> str:
    """The text made visible, on one line and cut to `width` columns."""
    flat = " ".join(visible(text).split())
    return flat if cell_len(flat) <= width else chop_cells(flat, width - 1)[0] + "…"


def wrap(text: str, width: int, *, first: str = "", indent: str = "", most_lines: int | None = None) -> list[str]:
    """Lines of at most `width` columns, counted as a terminal counts them (a CJK letter takes two).

    Args:
        text: already `visible`; its line feeds are kept.
        first: stands before the first line.
        indent: stands before every other line.
        most_lines: where there are more, the rest is left out, and the last line says how much.
    """
    lines: list[str] = []
    current = first

    def room() -> int:
        return max(1, width - cell_len(current))

    for number, paragraph in enumerate(text.split("\n")):
        if number:
            lines.append(current)
            current = indent
        for word in paragraph.split(" "):
            if current.strip() and current != first and cell_len(word) + 1 > room():
                lines.append(current)
                current = indent
            elif current not in (first, indent):
                current += " "
            pieces = chop_cells(word, room()) if cell_len(word) > room() else [word]
            for piece in pieces[:-1]:
                lines.append(current + piece)
                current = indent
            current += pieces[-1]
    lines.append(current)
    lines = [line.rstrip() for line in lines]
    if most_lines is not None and len(lines) > most_lines:
        left_out = len(lines) - most_lines + 1
        lines = [*lines[: most_lines - 1], f"{indent}... ({left_out} more lines in answers.jsonl)"]
    return lines


def fenced(text: str) -> str:
    """A Markdown code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def literal(text: str) -> str:
    """The text as Markdown that shows it as it is, on one line: no markup, no borders of table cells."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", " ".join(visible(text).split()))


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
