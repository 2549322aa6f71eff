"""Transcripts in plain text (HH-RLHF): where they are cut, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Demonstration

ONE = "\n\nHuman: May I?\n\nAssistant:"
TWO = (
    "\n\nHuman: Hi: Assistant: who?\n\nSecond paragraph.\n\nAssistant: Me.\n\nAnd you?"
    "\n\nHuman: Größe 你好 🙂\n\nAssistant:"
)
PAIRS = [
    (ONE, " Yes, I can", " Yes I cannot"),
    (ONE, " No.\n\n1. one\n\n2. two", " No."),
    (TWO, " The same start, then this", " The same start, then that"),
    (TWO, " Assistant: he said", "Assistant: she said"),
    (ONE.lstrip(), " a", " b"),
]


def by_hand(transcript: str) -> tuple[list[tuple[str, str]], str]:
    """A second reading, paragraph by paragraph."""
    turns: list[tuple[str, str]] = []
    for part in transcript.strip().split("\n\n"):
        for who, role in (("Human:", "user"), ("Assistant:", "assistant")):
            if part.startswith(who):
                turns.append((role, part[len(who) :]))
                break
        else:
            role, text = turns.pop()
            turns.append((role, text + "\n\n" + part))
    *earlier, (_, answer) = [(role, text.strip()) for role, text in turns]
    return earlier, answer


def read(path: Path, rows: list[Any]) -> list[Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(SourceReader(Source(path=str(path)), Comparison))


def test_every_row_reads_as_by_hand(tmp_path: Path) -> None:
    raw = [{"chosen": prompt + chosen, "rejected": prompt + rejected} for prompt, chosen, rejected in PAIRS]
    outcomes = read(tmp_path / "hh.jsonl", raw)
    assert [outcome.fault for outcome in outcomes] == [None] * len(raw)
    for outcome, original in zip(outcomes, raw, strict=True):
        turns, chosen = by_hand(original["chosen"])
        assert [(turn.role, turn.content) for turn in outcome.row.prompt] == turns
        assert (outcome.row.chosen, outcome.row.rejected) == (chosen, by_hand(original["rejected"])[1])
    assert outcomes[0].row.chosen == "Yes, I can"
    assert outcomes[0].row.rejected == "Yes I cannot"
    assert [turn.role for turn in outcomes[2].row.prompt] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ("Hello", r"chosen has no `\n\nAssistant:`"),
        ("\n\nHuman: a", r"chosen has no `\n\nAssistant:`"),
        (ONE + " Yes\n\nHuman: thanks", "chosen ends with a turn of the human"),
        (ONE + " ", "chosen: blank"),
        ("Once." + ONE + " Yes", "chosen does not begin with `Human:`"),
        ("\n\nAssistant: Yes", "chosen does not begin with `Human:`"),
        ("\n\nHuman: May you?\n\nAssistant: Yes", "chosen and rejected differ before their last answer"),
        ("\n\nHuman: \n\nAssistant: Yes", "differ"),
        ("\n\nAssistant: a\n\nHuman: May I?\n\nAssistant: Yes", "differ"),
    ],
)
def test_other_texts_are_faults(tmp_path: Path, chosen: str, reason: str) -> None:
    good = {"chosen": ONE + " a", "rejected": ONE + " b"}
    _, outcome = read(tmp_path / "hh.jsonl", [good, {"chosen": chosen, "rejected": ONE + " No"}])
    assert outcome.record.place.endswith("hh.jsonl:2")
    assert reason in str(outcome.fault)


TRANSCRIPT = "\n\nHuman: What is 0?\n\nAssistant: A number.\n\nHuman: Which one?\n\nAssistant:"
DIALOGUE = [("user", "What is 0?"), ("assistant", "A number."), ("user", "Which one?")]


@pytest.mark.parametrize(
    "prompt",
    [
        TRANSCRIPT,
        TRANSCRIPT + " ",
        TRANSCRIPT.removesuffix("\n\nAssistant:"),
        TRANSCRIPT.replace("\n", "\r\n"),
        TRANSCRIPT.replace("\n\n", "\n"),
    ],
)
@pytest.mark.parametrize(
    ("beside", "answers"),
    [
        ({"chosen": " It is 0.", "rejected": " No.\n"}, {"chosen": "It is 0.", "rejected": "No."}),
        ({"response": " x", "chosen": " It is 0.", "rejected": " No."}, {"chosen": "It is 0.", "rejected": "No."}),
        ({"completion": " It is 0.", "label": True}, {"completion": "It is 0.", "label": True}),
        ({"response": " It is 0.", "score": 2.5}, {"completion": "It is 0.", "label": 2.5}),
        ({}, {}),
    ],
)
def test_a_transcript_in_the_prompt_becomes_turns(
    tmp_path: Path, prompt: str, beside: dict[str, Any], answers: dict[str, Any]
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": prompt, **beside}))
    (outcome,) = SourceReader(Source(path=str(tmp_path / "a.jsonl")))
    assert outcome.row is not None
    assert [(turn.role, turn.content) for turn in outcome.row.prompt] == DIALOGUE
    assert {name: getattr(outcome.row, name) for name in answers} == answers


@pytest.mark.parametrize("prompt", [TRANSCRIPT, TRANSCRIPT.removesuffix("\n\nAssistant:")])
def test_answers_repeat_nothing_of_the_transcript(tmp_path: Path, prompt: str) -> None:
    first, second = (TRANSCRIPT + text for text in (" It is 0.", " No."))
    beside: list[dict[str, Any]] = [
        {"chosen": first, "rejected": second},
        {"responses": [first, second], "scores": [1, 0]},
        {"answer_1": first, "answer_2": second, "verdict": 1},
    ]
    for answers in beside:
        (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": prompt, **answers}))
        (outcome,) = SourceReader(Source(path=str(tmp_path / "a.jsonl")), Comparison)
        assert outcome.row is not None
        assert [(turn.role, turn.content) for turn in outcome.row.prompt] == DIALOGUE
        assert (outcome.row.chosen, outcome.row.rejected) == ("It is 0.", "No.")


def test_a_transcript_before_a_demonstration(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": TRANSCRIPT, "completion": " It is 0."}))
    (outcome,) = SourceReader(Source(path=str(tmp_path / "a.jsonl")), Demonstration)
    assert outcome.row is not None
    assert [(turn.role, turn.content) for turn in outcome.row.messages] == [*DIALOGUE, ("assistant", "It is 0.")]


@pytest.mark.parametrize(
    "prompt",
    [
        "Human: who are you?",
        "Write a dialogue.\n\nHuman: a\n\nAssistant: b",
        "Is `Assistant:` a good prefix?",
        "Human: a\n\nAssistant: b",
        "Assistant: a\n\nHuman: b",
        "Human: Is `Assistant:` a good prefix?",
        "Human: Who speaks?\nAssistant: a\nHuman: b",
    ],
)
def test_a_text_that_speaks_of_speakers_stays_one_turn(tmp_path: Path, prompt: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": prompt, "chosen": " a", "rejected": "b"}))
    (outcome,) = SourceReader(Source(path=str(tmp_path / "a.jsonl")), Comparison)
    assert outcome.row is not None
    assert [turn.content for turn in outcome.row.prompt] == [prompt]
    assert outcome.row.chosen == " a"
