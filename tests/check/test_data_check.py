"""Every figure of the report against rows whose answer is known by hand."""

from __future__ import annotations

import itertools
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pipelines.check import scan as scanning
from pipelines.check.check import check
from pipelines.check.check_report import FileReport, Report
from pipelines.check.check_text import lines
from pipelines.check.duplicates import near_duplicates, signatures
from pipelines.check.scan import Scan, loose
from pipelines.config import load_config
from pipelines.config.data_section import Source
from pipelines.data.rows import Message
from pipelines.data.split import is_held_out
from pipelines.report.statistics import spread
from pipelines.run.reporting import SilentReporter
from rlhf_cli.app import run as rlhf
from tests.tiny import tiny_llama, tiny_tokenizer

CONFIG = load_config(None)
QUIET = SilentReporter()


def write(path: Path, rows: list[Any]) -> Source:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return Source(path=str(path))


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def checked(tmp_path: Path, rows: list[Any], **kwargs: Any) -> FileReport:
    return check([write(tmp_path / "a.jsonl", rows)], CONFIG, QUIET, **kwargs).files[0]


PAIRS = [
    pair("one", "long answer", "short"),
    pair("one", "short", "long answer"),  # contradicts the first
    pair("one", "long answer", "short"),  # repeats the first
    pair("two", "same", " same "),  # equal
    pair("three", "abc", "xyz"),  # of equal length
    pair("four", "abcd", "xyz"),
    '{"prompt": "five"',
    {"prompt": "six", "chosen": "", "rejected": "b"},
    {"prompt": "seven", "chosen": " ", "rejected": "b"},
]


def test_rows_and_faults(tmp_path: Path) -> None:
    found = checked(tmp_path, PAIRS)
    assert (found.format, found.reason) == ("preference", "seen in the columns prompt, chosen, rejected")
    assert (found.rows_read, found.bad, found.good) == (9, 3, 6)
    assert found.bad_kinds == {"chosen: blank": 2, "not valid JSON": 1}
    assert [place.rpartition(":")[2] for place, _ in found.bad_places] == ["7", "8", "9"]
    assert found.kinds == {"comparison": 6}
    assert found.serves == {"sft": 6, "reward": 6, "pointwise": 0, "ppo": 6}


def test_pairs(tmp_path: Path) -> None:
    found = checked(tmp_path, PAIRS)
    assert (found.repeats.prompts, found.repeats.duplicates, found.repeats.contradictions) == (4, 1, 1)
    told = found.preferences
    assert told is not None
    assert (told.pairs, told.equal, told.unequal, told.longer_chosen) == (6, 1, 4, 3)
    assert told.share == 0.75
    assert (told.low, told.high) == pytest.approx((0.300642, 0.954413), abs=1e-5)


def test_only_twenty_places_are_kept(tmp_path: Path) -> None:
    found = checked(tmp_path, [pair("a", "b", "c")] + ["{"] * 30)
    assert (found.bad, len(found.bad_places)) == (30, 20)
    shown = "\n".join(lines(check([Source(path=found.path)], CONFIG, QUIET), str))
    assert "... and 10 more" in shown


def test_dialogues(tmp_path: Path) -> None:
    def turns(*roles: str) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": role} for role in roles]}

    rows = [
        turns("user", "assistant"),
        turns("system", "user", "assistant"),
        turns("user", "assistant", "user", "assistant"),
        turns("user"),
    ]
    found = checked(tmp_path, rows)
    assert found.kinds == {"demonstration": 3, "prompt": 1}
    assert found.serves == {"sft": 3, "reward": 0, "pointwise": 0, "ppo": 4}
    assert found.roles == {"user": 5, "assistant": 4, "system": 1}
    assert (found.system_share, found.multi_turn_share) == (0.25, 0.25)
    assert found.turns is not None
    assert (found.turns.median, found.turns.most) == (2, 4)
    assert found.characters is not None
    assert found.characters.most == len("userassistantuserassistant")


def test_judgements(tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": "a", "completion": f"b{index}", "label": index < 3} for index in range(4)]
    found = checked(tmp_path, rows)
    assert found.kinds == {"judgement": 4}
    assert found.labels == {"good": 3, "bad": 1}
    scored = [{"prompt": "a", "completion": f"b{index}", "score": index / 2} for index in range(5)]
    found = checked(tmp_path, scored)
    assert found.labels is not None
    assert (found.labels["scores"].median, found.labels["scores"].most) == (1.0, 2.0)


def test_text_as_it_is_serves_sft_alone(tmp_path: Path) -> None:
    found = checked(tmp_path, [{"text": "once upon a time"}])
    assert found.serves == {"sft": 1, "reward": 0, "pointwise": 0, "ppo": 0}
    assert found.examples[0].parts["text"][0].text == "once upon a time"


def test_read_as_a_stage_would(tmp_path: Path) -> None:
    found = checked(tmp_path, [pair("a", "b", "c")], stage="sft")
    assert found.kinds == {"demonstration": 1}
    refused = checked(tmp_path, [{"prompt": "a"}], stage="reward")
    assert refused.error is not None
    assert "comparisons are needed" in refused.error["message"]


def test_between_files_and_across_the_split(tmp_path: Path) -> None:
    def held_out(text: str) -> bool:
        return is_held_out([Message(role="user", content=text)], CONFIG.data.eval_fraction)

    kept_back, further = itertools.islice(filter(held_out, map("Question {}".format, itertools.count())), 2)
    variants = (kept_back.upper() + mark for mark in ("?", "!", " ...", "."))
    trained = next(text for text in variants if not held_out(text))
    first = write(tmp_path / "a.jsonl", [pair(text, "a", "b") for text in (kept_back, further, "other")])
    second = write(tmp_path / "b.jsonl", [pair(trained, "a", "b"), pair("other", "a", "c"), pair(kept_back, "a", "b")])
    report = check([first, second], CONFIG, QUIET)
    assert (report.shared_prompts, report.shared_rows) == (2, 1)
    assert report.leaks.near == 1
    assert report.leaks.heldout == sum(map(held_out, (kept_back, further, trained, "other")))
    assert report.leaks.train + report.leaks.heldout == 4
    assert check([first], CONFIG, QUIET).leaks.near == 0


def test_dialogues_that_begin_alike_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    def dialogue(*texts: str) -> dict[str, Any]:
        roles = ("user", "assistant") * len(texts)
        return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}

    openings = [f"Question {index}" for index in range(40)]
    rows = [dialogue(opening, "a", *more) for opening in openings for more in ((), ("b", "c"), ("d", "e"))]
    leaks = check([write(tmp_path / "a.jsonl", rows)], CONFIG, QUIET).leaks
    held_out = sum(is_held_out([Message(role="user", content=text)], CONFIG.data.eval_fraction) for text in openings)
    assert held_out > 0
    assert (leaks.heldout, leaks.train, leaks.near) == (3 * held_out, 120 - 3 * held_out, 0)


def test_contradictions_between_files(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [pair("one", "x", "y"), pair("two", "x", "y")])
    second = write(tmp_path / "b.jsonl", [pair("one", "y", "x"), pair("two", "x", "y")])
    report = check([first, second], CONFIG, QUIET)
    assert [file.repeats.contradictions for file in report.files] == [0, 0]
    assert report.contradictions == 1
    assert "contradictions        1: within the files and between them" in "\n".join(lines(report, str))
    assert check([first], CONFIG, QUIET).contradictions == 0


def test_an_answer_judged_good_and_bad_is_a_contradiction(tmp_path: Path) -> None:
    labels = [("a", "b", True), ("a", "b ", False), ("a", "c", False), ("d", "b", False), ("a", "c", False)]
    rows = [{"prompt": prompt, "completion": answer, "label": label} for prompt, answer, label in labels]
    report = check([write(tmp_path / "a.jsonl", rows)], CONFIG, QUIET)
    assert report.files[0].repeats.contradictions == 1
    assert "1: the same answer to a prompt, now good, now bad" in "\n".join(lines(report, str))


def test_rows_without_a_preference_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "responses": ["a", "b"], "scores": [1, 1 + i % 2]} for i in range(6)]
    found = checked(tmp_path, rows)
    assert (found.rows_read, found.good, found.ties, found.bad) == (6, 3, 3, 0)
    shown = "\n".join(lines(check([Source(path=found.path)], CONFIG, QUIET), str))
    assert "6 read, 0 bad, 3 without a preference" in shown


def test_one_is_no_plural(tmp_path: Path) -> None:
    report = check([write(tmp_path / f"{name}.jsonl", [pair("one", "ab", "c")] * 2) for name in "ab"], CONFIG, QUIET)
    shown = "\n".join(lines(report, str))
    for words in ("in several files      1 prompt, 1 whole row", "1 row repeats an earlier one"):
        assert words in shown


def test_signatures_do_not_depend_on_what_is_hashed_with_them() -> None:
    texts = ["", "a", "abcde", "abcdef", "longer than the others, with many pieces " * 9, "a"]
    together = signatures(texts)
    assert [found.tobytes() for found in together] == [signatures([text]).tobytes() for text in texts]


def test_near_duplicates() -> None:
    text = loose("The quick brown fox jumps over the lazy dog, and then it goes home to sleep until morning. " * 2)
    others = [loose(f"row {index} is about {chr(97 + index) * 9} and nothing else that matters") for index in range(3)]
    assert near_duplicates([text, *others], QUIET) == 0
    assert near_duplicates([text, *others, text + "indeed"], QUIET) == 1
    assert near_duplicates(["a", "b", "a"], QUIET) == 1


def test_loose_is_the_same_by_the_fast_way_and_the_slow_one() -> None:
    assert loose("It's  a_Test, No. 7!") == "itsatestno7"
    assert loose("It's  a_Test, No. 7!é") == "itsatestno7é"
    assert loose("ＡＢ c") == "abc"
    assert loose("?!") == "?!"


def test_spread() -> None:
    found = spread(list(range(1, 101)))
    assert found is not None
    assert (found.low, found.median, found.high, found.most) == (5, 50, 95, 100)
    assert sum(found.bars) == 100
    assert spread([]) is None
    constant = spread([0.0, 0.0])
    assert constant is not None
    assert (constant.most, sum(constant.bars)) == (0.0, 2)


def test_a_file_that_breaks_off_is_reported_with_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt"')
    report = check([Source(path=str(tmp_path / "a.json"))], CONFIG, QUIET)
    assert report.files[0].good == 1
    problem = report.problem()
    assert problem is not None
    assert "not valid JSON" in problem.message


def test_tokens_by_the_stages_own_encoders(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    # <|user|> x <|assistant|> answer </s>: 4 tokens and one a digit
    rows = [pair("1", "2" * length, "3") for length in (1, 4, 20)]
    flags = {
        "model.name_or_path": str(tmp_path / "model"),
        "sft.max_length": 10,
        "sft.overlong": "cut",
        "reward.max_length": 10,
    }
    report = check([write(tmp_path / "a.jsonl", rows)], load_config(None, flags=flags), QUIET, with_model=True)
    fits = report.files[0].fits
    assert (fits["sft"].dropped, fits["sft"].cut) == (0, 1)
    assert (fits["reward"].dropped, fits["reward"].cut) == (1, 0)
    assert (fits["ppo"].dropped, fits["ppo"].limit) == (0, 256 - 128)  # the model's positions less a response
    assert fits["sft"].tokens is not None
    assert (fits["sft"].tokens.low, fits["sft"].tokens.median, fits["sft"].tokens.most) == (5, 8, 24)
    chosen = report.files[0].examples[1].parts["chosen"]
    assert [(piece.text, piece.trained) for piece in chosen] == [("<|user|>1<|assistant|>", False), ("2222</s>", True)]


def test_words_hold_every_figure(tmp_path: Path) -> None:
    report: Report = check([write(tmp_path / "a.jsonl", PAIRS)], CONFIG, QUIET)
    shown = "\n".join(lines(report, lambda text: f"[[{text}]]"))
    expected = "9 read, 3 bad", "6 comparisons", "75.0% [30.1%, 95.4%] of 4 pairs", "2 x chosen: blank", "user: one"
    for words in expected:
        assert words in shown


def test_languages_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    report = check([write(tmp_path / "a.jsonl", PAIRS)], CONFIG, QUIET)
    assert report.files[0].languages is None
    assert "pip install 'rlhf[check]'" in "\n".join(lines(report, str))


def test_languages(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    rows = [{"prompt": "Das ist eine ganz einfache Frage, auf die es viele Antworten gibt."}] * 2
    assert checked(tmp_path, rows).languages == {"de": 2}


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "SAMPLE_ROWS", 100)

    def grown(count: int) -> int:
        source = write(tmp_path / f"{count}.jsonl", [pair(f"question {i} " * 10, "a" * 50, "b") for i in range(count)])
        scan = Scan(source, None, 3)
        tracemalloc.start()
        scan.read(QUIET)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(scan.sample) == 100
        return size

    grown(100)  # what is made once
    a_row = (grown(8000) - grown(4000)) / 4000
    assert a_row < 120  # bytes; the rows themselves would be a thousand


def test_the_sample_is_uniform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "SAMPLE_ROWS", 200)
    source = write(tmp_path / "a.jsonl", [{"prompt": str(index)} for index in range(2000)])
    scan = Scan(source, None, 0)
    scan.read(QUIET)
    drawn = [int(row.prompt[0].content) for row in scan.sample]  # type: ignore[union-attr]
    assert len(set(drawn)) == 200
    assert 850 < sum(drawn) / 200 < 1150  # four standard errors


def test_speakers_by_other_names_get_a_hint(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": role, "content": "b"}]} for role in ("bot", "me")]
    problem = check([write(tmp_path / "a.jsonl", rows)], CONFIG, QUIET).problem()
    assert problem is not None
    assert "tags: {role_tag: role" in (problem.hint or "")


def test_a_file_name_cannot_disturb_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "e\x1b[31mvil.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 2 + "{}\n")
    rlhf(["data", "check", str(path)])
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
