"""Malformed input through the program itself: bad data ends it with code 3, the place, the reason, and no traceback."""

from __future__ import annotations

import codecs
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_cli.app import run

U, A, S = (
    {"role": role, "content": text} for role, text in (("user", "Hi?"), ("assistant", "Yes."), ("system", "Be."))
)
ONE = "\n\nHuman: May I?\n\nAssistant:"
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
GOOD: dict[str, dict[str, Any]] = {
    "prompts": {"prompt": "a"},
    "demonstrations": {"messages": [U, A]},
    "comparisons": PAIR,
}


@dataclass(frozen=True)
class Case:
    """A file, the kind it is read as, and what is said about it."""

    name: str
    kind: str
    content: bytes | None
    file: str
    place: str
    reason: str


def row(name: str, kind: str, bad: Any, reason: str, first: dict[str, Any] | None = None) -> Case:
    """A good line, then a bad one: text as it is, anything else as JSON."""
    lines = [json.dumps(first or GOOD[kind]), bad if isinstance(bad, str) else json.dumps(bad)]
    return Case(name, kind, "\n".join(lines).encode() + b"\n", "a.jsonl", "a.jsonl:2", reason)


def pair(name: str, change: dict[str, Any], reason: str) -> Case:
    return row(name, "comparisons", {k: v for k, v in {**PAIR, **change}.items() if v is not ...}, reason)


def turns(name: str, messages: Any, reason: str) -> Case:
    return row(name, "demonstrations", {"messages": messages}, reason)


def hh(name: str, chosen: Any, reason: str) -> Case:
    first = {"chosen": ONE + " Yes", "rejected": ONE + " No"}
    return row(name, "comparisons", {"chosen": chosen, "rejected": ONE + " No"}, reason, first)


def kto(name: str, change: dict[str, Any], reason: str) -> Case:
    first = {"prompt": "a", "completion": "b", "label": True}
    bad = {k: v for k, v in {**first, **change}.items() if v is not ...}
    return row(name, "prompts", bad, reason, first)


def scored(name: str, change: dict[str, Any], reason: str) -> Case:
    first = {"prompt": "a", "responses": ["b", "c"], "scores": [1, 2]}
    return row(name, "comparisons", {**first, **change}, reason, first)


def file(name: str, content: bytes | str | None, place: str, reason: str, *, kind: str = "prompts") -> Case:
    """A whole file; its name is what stands before the colon of the place."""
    data = content.encode() if isinstance(content, str) else content
    return Case(name, kind, data, place.split(":")[0], place, reason)


def share(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": value} for role, value in pairs]}


LINE = '{"prompt": "a"}\n'
TYPES = {"null": None, "a number": 5, "true/false": True, "a list": ["b"], "an object": {"b": 1}}
SHARE = share(("human", "a"), ("gpt", "b"))
ALPACA = {"instruction": "a", "output": "b"}
FEEDBACK = {"instruction": "a", "completions": [{"response": r, "overall_score": s} for r, s in (("b", 1), ("c", 2))]}

CASES = [
    *(pair(f"chosen {found}", {"chosen": value}, f"chosen: must be text, not {found}")
      for found, value in TYPES.items()),
    *(
        row(f"prompt {found}", "prompts", {"prompt": value}, f"prompt: must be text, not {found}")
        for found, value in TYPES.items()
    ),
    *(
        turns(f"content {found}", [{**U, "content": value}, A], f"messages[0].content: must be text, not {found}")
        for found, value in TYPES.items()
    ),
    pair("missing column", {"rejected": ...}, "rejected: missing"),
    pair("empty text", {"chosen": ""}, "chosen: blank"),
    pair("blank text", {"rejected": " \t\u3000"}, "rejected: blank"),
    pair("blank prompt", {"prompt": "\n"}, "a user turn is blank"),
    pair("margin text", {"margin": "1"}, "margin: must be a number, not text"),
    pair("tools that are no JSON", {"tools": "["}, "tools: not valid JSON"),
    pair("tools that are text", {"tools": ["f"]}, "tools[0]: must be an object, not text"),
    pair("key twice in tools", {"tools": '[{"a": 1, "a": 2}]'}, "tools: not valid JSON: a key stands twice"),
    turns("no turns", [], "prompt: blank"),
    turns("turns as text", "Hi?", "messages: must be a list, not text"),
    turns("a turn as text", ["Hi?"], "messages[0]: must be an object, not text"),
    turns("unknown role", [{**U, "role": "robot"}, A], "messages[0].role: must be 'system', 'user', 'assistant' or"),
    turns("role null", [{**U, "role": None}, A], "messages[0].role: must be"),
    turns("no role", [{"content": "a"}, A], "messages[0].role: missing"),
    turns("no content", [{"role": "user"}, A], "messages[0].content: missing"),
    turns("no user turn", [S, A], "there is no user turn"),
    turns("assistant first", [A, U, A], "an assistant turn stands before the first user turn"),
    turns("system twice", [S, S, U, A], "a system turn stands after the first turn"),
    turns("no answer", [S, U], "the row holds a prompt, but a demonstration is needed"),
    turns("blank answer", [U, {**A, "content": " "}], "the assistant's answer is blank"),
    turns("a user calls tools", [{**U, "tool_calls": [{"name": "f"}]}, A], "a user turn has tool calls"),
    turns("tools on a later turn", [U, {**A, "tools": [{"name": "f"}]}], "tools stand on a turn after the first"),
    turns("tool calls as number", [U, {**A, "tool_calls": 3}], "messages[1].tool_calls: must be a list, not a number"),
    row("sharegpt: unknown speaker", "demonstrations", share(("bot", "a")), "conversations[0].from: must be", SHARE),
    row("sharegpt: value null", "demonstrations", share(("human", None)), "[0].value: must be text", SHARE),
    row("sharegpt: two humans", "demonstrations", share(("human", "a")), "a demonstration is needed", SHARE),
    row("alpaca: output null", "demonstrations", {**ALPACA, "output": None}, "output: must be text, not null", ALPACA),
    row("alpaca: output blank", "demonstrations", {**ALPACA, "output": ""}, "the assistant's answer is blank", ALPACA),
    row("alpaca: history of three", "demonstrations", {**ALPACA, "history": [["a", "b", "c"]]}, "history[0]", ALPACA),
    row("text blank", "demonstrations", {"text": " "}, "text: blank", {"text": "Once."}),
    row("text a number", "demonstrations", {"text": 7}, "text: must be text, not a number", {"text": "Once."}),
    file("text as a prompt", '{"text": "a"}\n', "a.jsonl:1", "the row holds a text as it is, which has no prompt"),
    row("text with tools", "demonstrations", {"text": "a", "tools": [{"a": 1}]}, "have no tools", {"text": "Once."}),
    hh("hh: no assistant", "\n\nHuman: May I?", r"chosen has no `\n\nAssistant:`"),
    hh("hh: unequal prompts", "\n\nHuman: May you?\n\nAssistant: Yes", "chosen and rejected differ before their last"),
    hh("hh: ends with the human", ONE + " Yes\n\nHuman: Bye", "chosen ends with a turn of the human"),
    hh("hh: blank answer", ONE, "chosen: blank"),
    hh("hh: starts in the middle", "Once" + ONE + " Yes", "chosen does not begin with `Human:`"),
    hh("hh: chosen null", None, "chosen: must be text, not null"),
    row("implicit: unequal prompts", "comparisons", {"chosen": [U, A], "rejected": [S, U, A]}, "differ before",
        {"chosen": [U, A], "rejected": [U, {**A, "content": "No."}]}),
    row("implicit: answer calls tools", "comparisons", {"chosen": [U, {**A, "tool_calls": [{}]}], "rejected": [U, A]},
        "chosen calls tools", {"chosen": [U, A], "rejected": [U, {**A, "content": "No."}]}),
    kto("kto: label text", {"label": "good"}, "label: must be true, false, 1 or 0, not text"),
    kto("kto: label null", {"label": None}, "label: must be true, false, 1 or 0, not null"),
    kto("kto: label number", {"label": 2}, "label: must be true, false, 1 or 0, not a number"),
    kto("kto: label missing", {"label": ...}, "label: missing"),
    kto("kto: completion number", {"completion": 1}, "completion: must be text or a list of turns, not a number"),
    kto("kto: completion by the user", {"completion": [U]}, "completion must be one assistant turn"),
    kto("kto: completion blank", {"completion": " "}, "completion: blank"),
    row("messages_kto: no answer", "prompts", {"messages": [U], "label": True}, "which the label judges",
        {"messages": [U, A], "label": True}),
    row("scored: score text", "prompts", {"prompt": "a", "completion": "b", "score": "5"}, "score: must be a number",
        {"prompt": "a", "completion": "b", "score": 5}),
    scored("scored_list: lengths", {"scores": [1]}, "there are 2 responses and 1 scores"),
    scored("scored_list: one response", {"responses": ["b"]}, "responses: must hold at least 2"),
    scored("scored_list: null score", {"scores": [1, None]}, "scores[1]: must be a number, not null"),
    scored("scored_list: blank response", {"responses": ["b", ""]}, "responses[1]: blank"),
    row("ultrafeedback: no score", "comparisons", {**FEEDBACK, "completions": [{"response": "b"}] * 2},
        "completions[0].overall_score: missing", FEEDBACK),
    row("broken line", "prompts", '{"prompt": "a"', "not valid JSON (column 15"),
    row("key twice", "prompts", '{"prompt": "a", "prompt": "b"}', "prompt: the key stands twice"),
    row("NaN", "prompts", '{"prompt": "a", "tools": NaN}', "tools: NaN or infinity is not a number in JSON"),
    row("infinity", "prompts", '{"prompt": "a", "tools": [1e999]}', "tools[0]: NaN or infinity is not a number"),
    row("half a surrogate", "prompts", '{"prompt": "\\ud83d"}', "prompt: half a surrogate pair"),
    row("NUL by escape", "prompts", '{"prompt": "a\\u0000"}', "prompt: NUL character"),
    row("NUL", "prompts", '{"prompt": "a\0"}', "NUL character"),
    row("top-level list", "prompts", ["a"], "must be an object, not a list"),
    row("top-level number", "prompts", 5, "must be an object, not a number"),
    row("nested 1,200 deep", "prompts", '{"prompt": "a", "x": ' + "[" * 1200 + "]" * 1200 + "}", "nested too deeply"),
    row("nested 100,000 deep", "prompts", '{"prompt": ' + "[" * 100_000, "nested too deeply"),
    row("a line of 12 MB", "prompts", json.dumps({"prompt": "a" * 12_000_000}), "the line is longer than 10 MB"),
    row("tools nested deep", "demonstrations", {"messages": [U, A], "tools": "[" * 60 + "]" * 60}, "nested more than"),
    file("not UTF-8", LINE.encode() + b'{"prompt": "\xe9"}\n', "a.jsonl:2", "not UTF-8 (byte 0xe9 at offset 12)"),
    file("UTF-16 cut off", LINE.encode("utf-16")[:-1], "a.jsonl", "begins as UTF-16"),
    file("no line is an object", "5\n", "a.jsonl:1", "must be an object, not a number"),
    file("unknown columns", '{"q": "a"}\n', "a.jsonl:1", "the format is not recognized from the columns 'q' (text)"),
    file("a poorer kind", LINE, "a.jsonl:1", "holds prompts, but comparisons are needed", kind="comparisons"),
    file("empty", "", "a.jsonl", "the file holds no rows"),
    file("blank lines only", "\n \n", "a.jsonl", "the file holds no rows"),
    file("empty array", "[]", "a.json", "the file holds no rows"),
    file("array that ends early", '[{"prompt": "a"},', "a.json:1", "not valid JSON"),
    file("array of texts", '[{"prompt": "a"}, "b"]', "a.json:row 2", "must be an object, not text"),
    file("text after the array", '[{"prompt": "a"}] x', "a.json:1", "not valid JSON"),
    file("a number as .json", "5", "a.json:1", "a .json file must be"),
    file("unknown ending", "PK\3\4", "a.docx", "the ending `.docx` is unknown"),
    file("parquet named .jsonl", b"PAR1\x15\x04\x15\x80" + bytes(20) + b"PAR1\n", "a.jsonl:1", "not UTF-8 (byte 0x80"),
    file("gzip named .jsonl", gzip.compress(LINE.encode(), mtime=0), "a.jsonl:1", "not UTF-8"),
    file("gzip broken", gzip.compress(LINE.encode() * 50, mtime=0)[:-12], "a.jsonl.gz", "the file cannot be unpacked"),
    file("text named .gz", LINE, "a.jsonl.gz", "the file cannot be unpacked"),
    file("parquet broken", b"PAR1 and no more", "a.parquet", "not a valid parquet file"),
    file("csv ragged", "prompt,x\na,1\nb\n", "a.csv:3", "another number of cells than the header (1, not 2)"),
    file("csv without rows", "prompt\n", "a.csv", "the file holds no rows"),
    file("csv blank prompt", 'prompt,x\na,1\n" ",2\n', "a.csv:3", "a user turn is blank"),
    file("missing file", None, "a.jsonl", "no such data file"),
    file("equal answers", "".join(json.dumps({**PAIR, "chosen": end, "rejected": f" {end}"}) + "\n" for end in "ab"),
         "data.comparisons", "no comparisons are left of 2 rows read (2 equal pairs", kind="comparisons"),
    file("one prompt only", LINE, "data.prompts", "the prompts begin with 1 different prompt; at least 3"),
]  # fmt: skip


def outcome(folder: Path, case: Case, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    name = case.file if case.file.startswith("a.") else "a.jsonl"
    if case.content is not None:
        (folder / name).write_bytes(case.content)
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "config.json").write_text("{}")
    settings = {"model": {"name_or_path": "./base"}, "data": {case.kind: name, "eval_fraction": 0.5}}
    (folder / "run.yaml").write_text(json.dumps(settings))
    stage = f"data/{case.kind}"
    code = run(["all", "--config", "run.yaml", "--from", stage, "--until", stage, "--quiet", "--json"])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, json.loads(out)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_malformed(
    tmp_path: Path, case: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, result = outcome(tmp_path, case, capsys)
    assert code == 3, result
    error = result["error"]
    assert error["where"] == case.place
    assert case.reason in error["message"]


def test_a_directory_that_is_no_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").mkdir()
    code, result = outcome(tmp_path, file("", None, "a.jsonl", ""), capsys)
    assert code == 3
    assert "a.jsonl" in result["error"]["where"]


def test_the_table_is_long() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 100


@pytest.mark.parametrize("content", [codecs.BOM_UTF8 + b"%s", b"%s\r\n", b"\n%s\n \n"])
def test_bom_crlf_and_blank_lines_are_fine(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    end = b"\r\n" if b"\r" in content else b"\n"
    rows = end.join(b'{"prompt": "question %d"}' % index for index in range(20))
    code, result = outcome(tmp_path, file("", content.replace(b"%s", rows), "a.jsonl", ""), capsys)
    assert code == 0, result
    (train, heldout) = (
        (tmp_path / "runs/run/data/prompts" / name).read_text() for name in ("train.jsonl", "heldout.jsonl")
    )
    texts = [json.loads(line)["prompt"][0]["content"] for line in (train + heldout).splitlines()]
    assert sorted(texts) == sorted(f"question {index}" for index in range(20))
