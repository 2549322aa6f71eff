"""Rows that only the chat template refuses are bad rows: named by the user's file and line, dropped or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipelines.config.model_section import ModelSection
from pipelines.data.encode import ChatEncoder
from pipelines.data.rows import Message
from pipelines.models.tokenizer import load_tokenizer
from rlhf_cli.app import run as rlhf
from tests.models.helpers import outside_base

GEMMA = (  # the shape of Gemma 2's
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SETTINGS = ("data.eval_fraction=0.3", "sft.max_length=64", "reward.max_length=64", "reward.normalization_prompts=4")
SETTINGS += ("ppo.response_length=4", "ppo.total_episodes=4", "ppo.rollout_batch_size=4", "ppo.num_mini_batches=1")
WORDS = ("hello", "world", "cat", "mat", "dog", "story", "red ball", "thank you", "kind", "answer", "how", "today")


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def comparison(number: int, *before: dict[str, str]) -> dict[str, Any]:
    return {"prompt": [*before, turn("user", WORDS[number])], "chosen": "a cat", "rejected": "the dog"}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    lines = [comparison(number) for number in range(len(WORDS))]
    lines[3] = comparison(3, turn("system", "be kind"))
    lines[7] = comparison(7, turn("user", "hello"))
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def chain(rows: Path, *settings: str, command: str = "all") -> list[str]:
    base = rows.parent / "base"
    if not base.exists():
        outside_base(base, template=GEMMA)
    arguments = [command, "--run-dir", str(rows.parent / "run"), "--model", str(base), "--dataset", str(rows)]
    return [*arguments, *(part for entry in (*SETTINGS, *settings) for part in ("--set", entry))]


def test_a_refused_row_ends_the_stage_by_its_place_in_the_file(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rlhf(chain(rows, command="sft")) == 3
    told = capsys.readouterr().err
    assert f"{rows}:4: the chat template refuses the dialogue: System role not supported" in told
    assert f"{rows}:8: the chat template refuses the dialogue: Roles must alternate" in told
    assert "model.merge_system_turn" in told
    assert "data.on_bad_row: drop" in told


def test_every_stage_leaves_refused_rows_out(rows: Path) -> None:
    assert rlhf(chain(rows, "data.on_bad_row=drop")) == 0
    run = rows.parent / "run"
    for stage in ("sft", "reward", "ppo"):
        rejects = [json.loads(line) for line in (run / stage / "rejects.jsonl").read_text("utf-8").splitlines()]
        assert {entry["place"] for entry in rejects} == {f"{rows}:4", f"{rows}:8"}
        assert {entry["reason"].partition(": ")[0] for entry in rejects} == {"the chat template refuses the dialogue"}
    for stage in ("sft", "reward"):
        manifest = json.loads((run / stage / "manifest.json").read_text("utf-8"))
        assert manifest["notes"]["rows"]["refused"] + manifest["metrics"]["rows_heldout"] <= len(WORDS)


def test_a_check_with_the_model_finds_them(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain(rows)
    assert rlhf(["data", "check", str(rows), "--model", str(rows.parent / "base"), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["problem"]["where"] == f"{rows}:4"
    assert {name: fit["refused"] for name, fit in report["files"][0]["fits"].items()} == {
        "sft": 2,
        "reward": 2,
        "ppo": 2,
    }
    # without the model nothing is wrong
    assert rlhf(["data", "check", str(rows), "--json"]) == 0


def test_a_system_turn_may_stand_in_the_first_user_turn(tmp_path: Path) -> None:
    base = outside_base(tmp_path / "base", template=GEMMA)
    tokenizer = load_tokenizer(base, ModelSection(merge_system_turn=True))
    dialogue = (Message(role="system", content="be kind"), Message(role="user", content="hello"))
    merged = (Message(role="user", content="be kind\n\nhello"),)
    encoder, plain = ChatEncoder(tokenizer), ChatEncoder(load_tokenizer(base, ModelSection()))
    assert encoder.prompt(dialogue) == plain.prompt(merged)
    assert encoder.answer(dialogue, "a cat") == plain.answer(merged, "a cat")
    assert encoder.prompt(merged) == plain.prompt(merged)
    # it is served as it was trained
    tokenizer.save_pretrained(tmp_path / "published")
    served = AutoTokenizer.from_pretrained(tmp_path / "published")
    turns = [message.model_dump(include={"role", "content"}) for message in dialogue]
    assert served.apply_chat_template(turns, add_generation_prompt=True)["input_ids"] == plain.prompt(merged)


def test_a_run_without_merging_is_recorded_as_before() -> None:
    assert "merge_system_turn" not in ModelSection().results_view()
    assert ModelSection(merge_system_turn=True).results_view()["merge_system_turn"] is True
