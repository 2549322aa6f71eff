"""Text that others wrote, made safe and readable for a terminal, a Markdown file or a page."""

from __future__ import annotations

import re

from rich.cells import cell_len, chop_cells

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BLANK = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0"
)
_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f\ufff9-\ufffb"
_TAGS = "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
_SURROGATES = "\ud800-\udfff"
_JOINED = "\u0600-\u1fff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_HIDDEN = re.compile(
    f"[{_BIDI}{_BLANK}{_CONTROL}{_TAGS}{_SURROGATES}]"
    # Joiners hold emoji together and shape Persian or Hindi words: there they stay, next to anything else they show.
    f"|(?<![{_JOINED}])[\u200c\u200d]|[\u200c\u200d](?![{_JOINED}])"
    # One variation selector after a symbol or a keycap is part of it; more of them can hide a message.
    f"|(?<![\u00a9\u00ae\u2000-\uffff\U00010000-\U0010ffff0-9#*])[{_SELECTORS}]"
    f"|(?<=[{_SELECTORS}])[{_SELECTORS}]"
)


def visible(text: str) -> str:
    """The text with every character that hides, reorders or controls shown by its code, as ⟨U+202E⟩.

    These are bidirectional controls, zero-width and other invisible characters, control characters but for the line
    feed and the tabulator, tag characters and halves of surrogate pairs. CR LF becomes LF.
    """
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text.replace("\r\n", "\n"))


def one_line(text: str, width: int) -> str:
    """The text made visible, on one line and cut to `width` columns."""
    flat = " ".join(visible(text).split())
    return flat if cell_len(flat) <= width else chop_cells(flat, width - 1)[0] + "…"


def wrap(text: str, width: int, *, first: str = "", indent: str = "", most_lines: int | None = None) -> list[str]:
    """Lines of at most `width` columns, counted as a terminal counts them (a CJK letter takes two).

    Args:
        text: already `visible`; its line feeds are kept, and tabulators become blanks.
        first: stands before the first line.
        indent: stands before every other line.
        most_lines: where there are more, the rest is left out, and the last line says how much.
    """
    lines: list[str] = []
    current = first

    def room() -> int:
        return max(1, width - cell_len(current))

    for number, paragraph in enumerate(text.expandtabs(4).split("\n")):
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
