"""Text that others wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.labels.page.views import encodable, guidelines_html
from pipelines.report.safe_text import visible


@pytest.mark.parametrize(
    "text", ["plain\n\ttext", "👨‍👩‍👧 ❤️ 1️⃣ 🇩🇪 👍🏽", "می‌خواهم", "क्‍ष", "עברית مرحبا 中文", "e\u0301", "a\u00a0b"]
)
def test_what_is_read_as_it_is_stays(text: str):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("中\u200d文", "中⟨U+200D⟩文"),
        ("م\u200c\u200cم", "م⟨U+200C⟩⟨U+200C⟩م"),
        ("a\ufe01\ufe02", "a⟨U+FE01⟩⟨U+FE02⟩"),
        ("❤\ufe0f\ufe0e", "❤\ufe0f⟨U+FE0E⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("x\u2028y\u00ad", "x⟨U+2028⟩y⟨U+00AD⟩"),
    ],
)
def test_what_is_not_seen_is_shown(text: str, shown: str):
    assert visible(text) == shown


@given(st.text(st.characters(categories=("Cc", "Cf", "Zl", "Zp", "Cs", "Lu")), max_size=20))
def test_no_control_gets_through(text: str):
    shown = visible(text)
    shown.encode()
    assert not set(shown) & set("\u202e\u202d\u2066\u200b\u2060\ufeff\u2028\x1b\x00\r\x85\u200e")


def test_a_draft_can_be_written_as_utf8():
    assert encodable("a\ud800b") == "a?b"


def test_guidelines_have_no_html_images_or_other_links():
    html = guidelines_html(
        "<b>x</b>\n\n![i](http://e.org/i.png) [a](//evil) [b](data:text/html,x) [c](HTTP://ok.org)\n\n"
        "| a |\n|:-:|\n| 1 |"
    )
    assert "<b>" not in html
    assert "<img" not in html
    assert "style=" not in html
    assert html.count("<a ") == 2  # the picture's address, as a link, and the last one
    assert "data:text" in html
    assert 'href="data' not in html
    assert "<td>1</td>" in html
