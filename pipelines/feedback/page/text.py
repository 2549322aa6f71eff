"""Text that others wrote, made fit for a page: model output stays text, guidelines become harmless HTML."""

from __future__ import annotations

import re
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

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
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))


def encodable(text: str) -> str:
    """The text with halves of surrogate pairs, which UTF-8 cannot hold, replaced by question marks."""
    return text.encode("utf-8", "replace").decode()


@cache
def guidelines_html(markdown: str) -> str:
    """Guidelines as HTML: no raw HTML, no images; links only by http and https, and they open a page of their own."""
    return str(_MARKDOWN.render(visible(markdown)))


def _link_open(renderer: RendererHTML, tokens: list[Token], index: int, options: object, env: object) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    tokens[index].attrSet("target", "_blank")
    return renderer.renderToken(tokens, index, options, env)  # type: ignore[arg-type]


def _without_style(renderer: RendererHTML, tokens: list[Token], index: int, options: object, env: object) -> str:
    tokens[index].attrs.pop("style", None)  # how a column is aligned; the page allows no inline style
    return renderer.renderToken(tokens, index, options, env)  # type: ignore[arg-type]


def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    made.validateLink = lambda url: re.match(r"https?://", url, re.IGNORECASE) is not None  # type: ignore[method-assign]
    made.add_render_rule("link_open", _link_open)
    made.add_render_rule("th_open", _without_style)
    made.add_render_rule("td_open", _without_style)
    return made


_MARKDOWN = _markdown()
