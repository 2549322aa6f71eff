"""Findings that the check says first, and the figures of the texts behind them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipelines.check.check import check, languages
from pipelines.check.check_report import Report
from pipelines.check.check_text import lines
from pipelines.check.text_figures import markup
from pipelines.config import load_config
from pipelines.config.data_section import Source
from pipelines.data.declining import is_refusal
from pipelines.run.reporting import SilentReporter

REFUSES = "I'm sorry, but I can't help with that."
WORDS = """
the house is where people often think about what they would like to have when school ends early because
another teacher could not come through heavy winter weather along every bridge between both villages
"""


def report_of(folder: Path, rows: list[dict[str, Any]], *more: list[dict[str, Any]]) -> Report:
    sources = []
    for number, held in enumerate((rows, *more)):
        path = folder / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in held))
        sources.append(Source(path=str(path)))
    return check(sources, load_config(None), SilentReporter())


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def text(number: int, words: int = 8) -> str:
    """Text in English that is near to no other one."""
    return " ".join(random.Random(number).choices(WORDS.split(), k=words))


def pairs(count: int, **change: Any) -> list[dict[str, Any]]:
    """Unremarkable comparisons: the longer answer is chosen in every other one."""
    rows = []
    for number in range(count):
        answers = [text(number, 6), text(number + 1000, 10)]
        chosen, rejected = answers if number % 2 else answers[::-1]
        rows.append({"prompt": text(number + 5000), "chosen": chosen, "rejected": rejected} | change)
    return rows


def test_nothing_stands_out_in_unremarkable_rows(tmp_path: Path) -> None:
    report = report_of(tmp_path, pairs(60))
    assert codes(report) == []
    assert next(lines(report, str)).endswith("0.jsonl")


def changed(rows: list[dict[str, Any]], many: int, **change: Any) -> list[dict[str, Any]]:
    return [row | change if number < many else row for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (changed(pairs(60), 3, chosen=None), "bad_rows"),
        (
            [row | {"chosen": text(i, 12), "rejected": text(i + 99, 3)} for i, row in enumerate(pairs(60))],
            "length_bias",
        ),
        (
            [row | {"chosen": text(i, 3), "rejected": text(i + 99, 12)} for i, row in enumerate(pairs(60))],
            "length_bias",
        ),
        (changed(pairs(60), 6, chosen=REFUSES), "refusals"),
        (changed(pairs(60), 6, chosen="Please call our friendly hotline."), "repeated_answers"),
        (changed(pairs(60), 2, chosen="Yes<br/>no"), "html"),
        (changed(pairs(60), 2, prompt="a &amp; b"), "html"),
        (changed(pairs(60), 2, chosen="same", rejected="same "), "equal_pairs"),
        (
            pairs(30) + [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs(30)],
            "contradictions",
        ),
        (pairs(60) + pairs(10), "duplicates"),
        ([{"prompt": text(i), "completion": text(i, 5), "label": i != 7} for i in range(60)], "one_sided_labels"),
        ([{"prompt": text(1), "completion": text(2)}], "split"),
        (pairs(300) + [row | {"prompt": row["prompt"] + "!?"} for row in pairs(300)], "leaks"),
    ],
)
def test_what_stands_out_is_said_first(tmp_path: Path, rows: list[dict[str, Any]], code: str) -> None:
    report = report_of(tmp_path, rows)
    assert code in codes(report)
    (finding,) = (finding for finding in report.findings if finding.code == code)
    printed = list(lines(report, str))
    first, figures = (
        printed.index("look at this first"),
        next(i for i, line in enumerate(printed) if "they hold" in line),
    )
    assert first == 0
    assert printed.index(f"  {finding.message}") < figures
    assert finding.advice


def test_rows_in_two_files(tmp_path: Path) -> None:
    report = report_of(tmp_path, pairs(30), pairs(5))
    (finding,) = (finding for finding in report.findings if finding.code == "shared_rows")
    assert finding.path is None
    assert finding.message.startswith("5 ")


def test_the_figures_of_the_texts(tmp_path: Path) -> None:
    rows = changed(pairs(60), 6, chosen=REFUSES)
    rows[50]["rejected"] = "As an AI language model, I cannot."
    contents = report_of(tmp_path, rows).files[0].contents
    assert (contents.answers, contents.refusals, contents.rejected, contents.rejected_refusals) == (60, 6, 60, 1)
    assert (contents.repeated, contents.commonest, contents.commonest_prompts) == (6, REFUSES, 6)


def test_one_answer_to_one_prompt_is_not_a_repeated_one(tmp_path: Path) -> None:
    rows = changed(pairs(60), 6, prompt="Where?", chosen="Please call our friendly hotline.")
    assert report_of(tmp_path, rows).files[0].contents.repeated == 0


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        (REFUSES, True),
        ("I’m sorry. I cannot assist with this request.", True),
        ("I cannot provide that.", True),
        ("As an AI language model, I don't have opinions.", True),
        ("Unfortunately, I'm unable to discuss this.", True),
        ("Es tut mir leid, aber dabei kann ich nicht helfen.", True),
        ("抱歉，我无法回答这个问题。", True),
        ("I am sorry to hear that your parcel is late. I can help.", False),
        ("Sorry, I can't find your order; what is its number?", False),
        ("I'm sorry that you can't find it. I will help.", False),
        ("As an AI engineer you will like it.", False),
    ],
)
def test_refusals(answer: str, refuses: bool) -> None:
    assert is_refusal(answer) == refuses


@pytest.mark.parametrize(
    ("words", "html"),
    [
        ("x<br>y", True),
        ("<p class='x'>hi", True),
        ("</DIV>", True),
        ("a&nbsp;b", True),
        ("it&#39;s", True),
        ("a < b and c > d", False),
        ("List<String> AT&T; I <3 you", False),
        ("write `<b>` or\n```html\n<p>one</p>\n```", False),
        ("```\n<p>an open fence", False),
    ],
)
def test_html(words: str, html: bool) -> None:
    assert (markup(words) is not None) == html


def test_languages_are_guessed_from_the_whole_file() -> None:
    pytest.importorskip("py3langid")
    english = ["The weather is fine today, and we are going to walk through the park."] * 200
    german = ["Das Wetter ist heute schön, und wir gehen zusammen durch den Park."] * 400
    guessed = languages(english + german)
    assert guessed is not None
    assert sum(guessed.values()) == 200
    assert 110 < guessed["de"] < 156  # two thirds, within three deviations


def test_several_languages_are_said(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    rows = [{"prompt": f"The weather is fine today, said number {i} of the travellers."} for i in range(40)]
    rows += [{"prompt": f"Das Wetter ist heute schön, sagte der Reisende Nummer {i} dazu."} for i in range(40)]
    assert "languages" in codes(report_of(tmp_path, rows))
