"""What people read: it fits, it is aligned, and text of a model cannot act on a terminal or a page."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from rich.cells import cell_len

from pipelines.evaluate.results_table import grid, markdown, plain
from pipelines.report.safe_text import fenced, literal, visible, wrap


def found(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": 200}


RESULTS: dict[str, Any] = {
    "baseline": "sft",
    "trained": "ppo",
    "trained_on_simulated": ["pairs"],
    "prompts": {"used": 200, "too_long": 3},
    "settings": {"temperature": 1.0, "response_length": 48, "max_prompt_length": 64, "confidence": 0.95},
    "scorers": [
        {"name": "reward_model", "simulated": False, "parts": [], "truncated_texts": 0},
        {"name": "gold", "simulated": True, "parts": ["relevance"], "truncated_texts": 0},
    ],
    "measures": {
        "base": {
            "mean": {"reward_model": found(-1.5, 0.1), "gold": found(0.02, 0.01)},
            "attribute": {"relevance": found(0.01, 0.005)},
            "win_rate": {"reward_model": found(0.1, 0.02), "gold": found(0.05, 0.02)},
            "length": found(48.0, 0.5),
            "finished": found(0.1, 0.04),
            "kl": found(80.0, 3.0),
        },
        "sft": {
            "mean": {"reward_model": found(0.0, 0.1), "gold": found(0.41, 0.03)},
            "attribute": {"relevance": found(0.6, 0.03)},
            "length": found(22.0, 0.5),
            "finished": found(0.97, 0.02),
        },
        "ppo": {
            "mean": {"reward_model": found(1.25, 0.1), "gold": found(0.78, 0.03)},
            "attribute": {"relevance": found(0.66, 0.03)},
            "win_rate": {"reward_model": found(0.9, 0.02), "gold": found(0.733, 0.049)},
            "difference": {
                "mean": {"reward_model": found(1.25, 0.12), "gold": found(0.37, 0.04)},
                "attribute": {"relevance": found(0.06, 0.04)},
            },
            "length": found(25.0, 0.5),
            "finished": found(0.99, 0.01),
            "kl": found(4.1, 0.3),
        },
    },
}


def sample(text: str, prompt: str = "My kettle is broken.") -> dict[str, Any]:
    def answer(text: str, finished: bool) -> dict[str, Any]:
        return {"text": text, "finished": finished, "length": 3, "scores": {"reward_model": 0.5, "gold": 0.25}}

    return {
        "prompt": [{"role": "user", "content": prompt}],
        "answers": {"base": answer("xx", False), "sft": answer("Thanks.", True), "ppo": answer(text, False)},
    }


@pytest.mark.parametrize(
    ("proxy", "gold", "noted"),
    [
        (found(0.483, 0.05), found(0.015, 0.01), True),
        (found(0.7, 0.05), found(0.015, 0.01), True),
        (found(0.3, 0.05), found(0.015, 0.01), False),
        (found(0.483, 0.05), found(0.47, 0.05), False),
    ],
)
def test_a_reward_model_that_cannot_tell_base_from_sft_is_named(
    proxy: dict[str, float], gold: dict[str, float], noted: bool
):
    results = copy.deepcopy(RESULTS)
    results["measures"]["base"]["win_rate"] = {"reward_model": proxy, "gold": gold}
    for table in (plain(results, []), markdown(results, [])):
        assert ("ranks base" in table) is noted
    without = copy.deepcopy(results)
    without["scorers"].pop()
    del without["measures"]["base"]["win_rate"]["gold"]
    assert "ranks base" not in plain(without, [])


@pytest.mark.parametrize(
    ("finished", "noted"),
    [(0.0, "none of PPO's answers ends within"), (0.5, "50% of PPO's answers are cut at"), (0.9, None)],
)
def test_answers_that_do_not_end_are_noted_under_the_table(finished: float, noted: str | None):
    results = copy.deepcopy(RESULTS)
    for policy in ("base", "sft", "ppo"):
        results["measures"][policy]["finished"]["value"] = 1.0 if policy == "sft" else finished
    text = plain(results, [])
    assert "SFT's answers" not in text
    assert "base's answers" not in text
    assert (noted in text) if noted else ("PPO's answers" not in text)


def test_the_table_says_it_all_in_100_columns():
    text = plain(RESULTS, [sample("Your kettle is broken.")])
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= 100
    header = next(line for line in lines if "SFT" in line)
    assert header.split() == ["base", "SFT", "PPO", "PPO", "-", "SFT"]
    (relevance,) = [line for line in lines if line.strip().startswith("relevance")]
    for part in (".600 [.570, .630]", ".660 [.630, .690]", "+.060 [+.020, +.100]"):
        assert part in relevance
    gold_rows = [line for line in lines if line.strip().startswith("gold ")]
    assert ".733 [.684, .782]" in gold_rows[1]
    assert gold_rows[1].split()[-2:] != ["-", "-"]
    assert "gold: the task's own hidden utility; simulated" in lines
    assert any(line.startswith("Trained on labels of simulated annotators (pairs)") for line in lines)
    assert any("200 held-out prompts" in line for line in lines)
    assert any(line.startswith("3 prompts of more than 64 tokens") for line in lines)
    assert "   SFT (gold 0.25): Thanks." in lines
    assert "   PPO (gold 0.25, cut at the limit): Your kettle is broken." in lines
    assert "xx" not in text


@pytest.mark.parametrize(("difference", "noteworthy"), [(found(0.03, 0.02), True), (found(0.01, 0.02), False)])
def test_text_measures_are_in_the_report_and_the_noteworthy_one_in_the_table(
    difference: dict[str, float], noteworthy: bool
):
    results = copy.deepcopy(RESULTS)
    for measures in results["measures"].values():
        measures["repetition"] = found(0.02, 0.01)
        measures["distinct"] = {"1": {"value": 0.5, "low": None, "high": None, "n": 200}}
        measures["perplexity"] = found(3.2, 0.4)
    results["measures"]["base"]["perplexity"] = {"value": None, "low": None, "high": None, "n": 0}
    results["measures"]["ppo"]["difference"]["repetition"] = difference
    rows = {label: cells for _, label, cells in grid(results).rows}
    assert rows["distinct-1"] == (".500", ".500", ".500", "-")
    assert rows["perplexity to SFT"] == ("-", "3.20 [2.80, 3.60]", "3.20 [2.80, 3.60]", "-")
    assert rows["words repeated"][-1].startswith("+.0")
    for table in (plain(results, []), markdown(results, [])):
        assert ("words repeated" in table) is noteworthy
        assert "distinct" not in table
        assert "perplexity" not in table


def test_without_gold_nothing_is_called_simulated():
    results = copy.deepcopy(RESULTS)
    results["scorers"] = results["scorers"][:1]
    results["trained_on_simulated"] = []
    for measures in results["measures"].values():
        measures["attribute"] = {}
        measures.get("difference", {})["attribute"] = {}
    text = plain(results, [])
    assert "simulated" not in text
    assert "by attribute" not in text
    assert "nobody chose" not in text


def test_what_rounds_to_nothing_has_no_minus():
    results = copy.deepcopy(RESULTS)
    del results["measures"]["base"]
    results["measures"]["ppo"]["kl"] = {"value": -1e-5, "low": -0.002, "high": 0.002, "n": 200}
    assert "  .000 [-.002, .002]" in plain(results, [])


def test_columns_stand_under_each_other():
    lines = plain(RESULTS, []).splitlines()
    table = lines[: lines.index("")]
    ends = {len(line) for line in table if line.startswith("  ") and line.rstrip().endswith("]")}
    assert len(ends) == 1


@pytest.mark.parametrize(("scale", "fits"), [(1, False), (10, True), (1e3, True), (1e6, False)])
def test_wide_numbers_cost_intervals_and_never_the_width(scale: float, fits: bool):
    results = copy.deepcopy(RESULTS)
    for measures in results["measures"].values():
        for values in [measures["mean"], *([measures["difference"]["mean"]] if "difference" in measures else [])]:
            values["reward_model"] = {key: number * scale for key, number in values["reward_model"].items()}
    text = plain(results, [])
    assert max(map(cell_len, text.splitlines())) <= 100
    assert ("Too wide for the intervals of base" in text) is not fits


def test_two_policies_without_sft_name_their_baseline():
    results = copy.deepcopy(RESULTS)
    results["baseline"] = "base"
    del results["measures"]["sft"]
    text = plain(results, [sample("Fine.")])
    assert "PPO - base" in text
    assert "wins against base" in text
    assert "KL to base, nats" in text
    assert "   base (gold 0.25, cut at the limit): xx" in text.splitlines()


def test_one_policy_alone_has_no_comparison():
    results = copy.deepcopy(RESULTS)
    results["measures"] = {"sft": results["measures"]["sft"]}
    text = plain(results, [])
    assert "wins" not in text
    assert "KL" not in text


EVIL = "a\x1b[31mred\x07 \x9b2J\rback \u202eabc\u200b\u2028x \ud800 \U000e0041 end"


def test_control_and_direction_characters_are_spelled_out():
    shown = visible(EVIL)
    assert shown == (
        "a⟨U+001B⟩[31mred⟨U+0007⟩ ⟨U+009B⟩2J⟨U+000D⟩back ⟨U+202E⟩abc⟨U+200B⟩⟨U+2028⟩x ⟨U+D800⟩ ⟨U+E0041⟩ end"
    )
    assert visible("one\ntwo\r\nthree") == "one\ntwo\nthree"
    assert visible("Grüße, 你好, naïve — “ok”") == "Grüße, 你好, naïve — “ok”"
    text = plain(RESULTS, [sample(EVIL, prompt=EVIL)]) + markdown(RESULTS, [sample(EVIL, prompt=EVIL)])
    assert not {char for char in EVIL if visible(char) != char} & set(text)


def test_names_of_scorers_are_made_harmless_too():
    results = copy.deepcopy(RESULTS)
    evil = "rm\x1b[2J|<img src=x>" + "x" * 80
    results["scorers"][0]["name"] = evil
    for measures in results["measures"].values():
        for group in ("mean", "win_rate"):
            if group in measures:
                measures[group][evil] = measures[group].pop("reward_model")
        if "difference" in measures:
            measures["difference"]["mean"][evil] = measures["difference"]["mean"].pop("reward_model")
    text, page = plain(results, []), markdown(results, [])
    assert "\x1b" not in text + page
    assert max(map(cell_len, text.splitlines())) <= 100
    (row,) = [line for line in page.splitlines() if "img" in line][:1]
    assert row.replace("\\|", "").count("|") == 6
    assert "\\<img" in row


def test_an_answer_cannot_leave_its_code_block():
    page = markdown(RESULTS, [sample("```\n# a heading\n````\n<script>")])
    lines = page.splitlines()
    (opening,) = [line for line in lines if line.endswith("text") and line.startswith("`")]
    fence = opening.removesuffix("text")
    assert len(fence) == 5
    assert lines.count(fence) == 1
    assert lines.index(fence) > max(index for index, line in enumerate(lines) if "<script>" in line)
    assert fenced("plain").startswith("```text\n")


def test_markdown_holds_every_interval():
    page = markdown(RESULTS, [])
    assert "| reward\\_model | -1.50 [-1.60, -1.40] |" in page
    assert "| relevance | .010 [.005, .015] | .600 [.570, .630] | .660 [.630, .690] | +.060 [+.020, +.100] |" in page
    assert literal("a|b*c") == "a\\|b\\*c"


@pytest.mark.parametrize("width", [20, 37, 100])
def test_wrapping_counts_columns_and_loses_nothing(width: int):
    text = (
        "short words and averyverylongwordwithoutanyspaceinsidewhichmustbecut " * 3 + "你好世界" * 12 + "\n\nlast line"
    )
    lines = wrap(text, width, first="   PPO: ", indent="     ")
    assert max(map(cell_len, lines)) <= width
    assert lines[0].startswith("   PPO: short")
    squeezed = "".join("".join(lines).split()).removeprefix("PPO:")
    assert squeezed == "".join(text.split())
    assert lines[-1] == "     last line"


def test_long_answers_are_shortened_and_say_so():
    lines = wrap("word " * 500, 50, first="x: ", indent="   ", most_lines=4)
    assert len(lines) == 4
    assert "more lines in answers.jsonl" in lines[-1]
    assert wrap("", 50, first="x: ") == ["x:"]


def test_a_language_model_is_told_with_its_flips_and_cost() -> None:
    counts = {"requests": 300, "retries": 2, "unreadable": 6, "cached": 4, "tokens_read": 9000, "tokens_written": 300}
    judge = {"name": "reader", "win_rate": found(0.6, 0.05), "asked": 203, "flips": 20, "ties": 9, "counts": counts}
    told = " ".join(plain(RESULTS | {"language_model": judge}, []).split())
    assert "reader, a language model, prefers PPO's answers to SFT's on 60 % [55, 65] of 200 prompts" in told
    assert "changed its mind on 20 and called 9 level; both count half. 3 prompts had no readable reply" in told
    assert "300 requests, 4 replies from before, 9000 tokens read and 300 written" in told
