"""The report card: its figures, its probes, and that texts of answers stay text."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from pipelines.data.rows import Comparison
from pipelines.report.calibration import best_temperature, calibration_figures, probability
from pipelines.report.report_card import Probe, ScoredPair, markdown_card, report_card
from pipelines.report.statistics import clustered_wilson, wilson
from pipelines.scorers.examine import examine
from pipelines.scorers.probes import CHANGES, REFUSAL, changed_answers
from rlhf_cli.app import run as rlhf


def pair(prompt: int, chosen: float, rejected: float, **fields: object) -> ScoredPair:
    texts = ("user: hello", "good", "bad")
    return ScoredPair(prompt, texts, (chosen, rejected), fields.pop("lengths", (4, 3)), **fields)  # type: ignore[arg-type]


def comparison(prompt: str, chosen: str, rejected: str) -> Comparison:
    return Comparison.model_validate(
        {"prompt": [{"role": "user", "content": prompt}], "chosen": chosen, "rejected": rejected}
    )


def test_pairs_of_one_prompt_count_as_less_than_pairs_of_many() -> None:
    trials = [1.0] * 60 + [0.0] * 40
    apart, together = clustered_wilson(trials, range(100)), clustered_wilson(trials, [row // 10 for row in range(100)])
    assert apart == pytest.approx(wilson(0.6 * 99, 99))
    assert together == pytest.approx(wilson(0.6 * 9, 9), abs=1e-9), "ten prompts, each of one kind: n/(n-1) apart"
    assert clustered_wilson([1.0] * 8, [0, 0, 0, 0, 1, 1, 1, 1]) == wilson(2, 2), "alike to the last: by prompt"
    mixed = [1.0, 0.0] * 50
    assert clustered_wilson(mixed, [row // 2 for row in range(100)]) == wilson(25, 50), "nothing varies: by prompt"


@pytest.mark.parametrize("prompts", [60, 250])
@pytest.mark.parametrize("share", [0.6, 0.85])
def test_the_interval_by_prompt_covers_the_truth(prompts: int, share: float) -> None:
    """2,000 draws of four pairs a prompt, half of whose outcome is the prompt's own."""
    rng, inside = random.Random(5), 0
    for _ in range(2000):
        trials, keys = [], []
        for prompt in range(prompts):
            common = rng.random() < share
            for _ in range(4):
                trials.append(float(common if rng.random() < 0.5 else rng.random() < share))
                keys.append(prompt)
        low, high = clustered_wilson(trials, keys)
        inside += low <= share <= high
    assert 0.93 <= inside / 2000 <= 0.97


def test_the_temperature_that_would_mend_it() -> None:
    rng = random.Random(3)
    honest = [rng.gauss(0, 2) for _ in range(5_000)]
    targets = [float(rng.random() < probability(logit)) for logit in honest]
    assert best_temperature(honest, targets) == pytest.approx(1.0, abs=0.1)
    loud = [3 * logit for logit in honest]
    assert best_temperature(loud, targets) == pytest.approx(3.0, abs=0.3)
    temperature = best_temperature(loud, targets)
    mended = [logit / temperature for logit in loud]
    assert calibration_figures(mended, targets)["calibration_error"] < 0.03
    assert calibration_figures(mended, targets)["loss"] < calibration_figures(loud, targets)["loss"]


def test_the_card_by_hand() -> None:
    pairs = [
        pair(1, 2.0, 1.0, lengths=(9, 2), source="a", margin=1.0),
        pair(1, 0.0, 3.0, lengths=(2, 9), source="a", margin=2.0),
        pair(2, 1.0, 1.0, lengths=(5, 5), source="b", margin=3.0),
        pair(3, 4.0, 2.0, lengths=(8, 1), source="b", margin=4.0),
    ]
    card = report_card(pairs)
    assert (card["pairs"], card["prompts"]) == (4, 3)
    assert card["accuracy"]["value"] == 2.5 / 4
    assert card["length_rule"] == 2.5 / 4
    groups = {(entry["group"], entry["name"]): (entry["value"], entry["n"]) for entry in card["groups"]}
    assert groups["length", "the shorter answer was chosen"] == (0.0, 1)
    assert groups["length", "the longer answer was chosen"] == (1.0, 2)
    assert [groups["margin", f"{m} to {m}"] for m in (1, 2, 3, 4)] == [(1.0, 1), (0.0, 1), (0.5, 1), (1.0, 1)]
    assert not any(group == "source" for group, _ in groups), "too few pairs of each"
    assert card["scores"]["chosen"] == {
        "minimum": 0.0,
        "quartile_1": 1.0,
        "median": 2.0,
        "quartile_3": 2.0,
        "maximum": 4.0,
    }
    assert [mistake["scores"] for mistake in card["mistakes"]] == [[0.0, 3.0]]
    sure = sum(entry["n"] for entry in card["calibration"]["reliability"])
    assert sure == 4
    json.dumps(card, allow_nan=False)


def test_the_best_of_several_beats_every_rejected_answer() -> None:
    right = [pair(prompt, 2.0, score) for prompt in range(9) for score in (0.0, 1.0, -1.0)]
    wrong = [pair(9, 2.0, score) for score in (0.0, 1.0, 3.0)]
    card = report_card([*right, *wrong])
    assert card["best_of_several"]["value"] == 0.9
    assert card["best_of_several"]["chance"] == pytest.approx(0.25)
    assert card["accuracy"]["value"] == pytest.approx(29 / 30)
    assert "Of 10 prompts with one chosen answer and several rejected ones" in markdown_card(card, "x")
    assert report_card(right)["best_of_several"] is None, "too few prompts"


def test_no_temperature_mends_a_model_that_guesses() -> None:
    guessing = [pair(number, float(number % 2), 0.5) for number in range(40)]
    assert "no factor would mend it" in markdown_card(report_card(guessing), "t")
    sure = [pair(number, float(number % 5 > 0), 0.5) for number in range(40)]
    assert "dividing its scores by" in markdown_card(report_card(sure), "t")


def test_sources_and_annotators_with_enough_pairs_have_a_line() -> None:
    pairs = [pair(n, float(n % 3), 1.0, source="big" if n < 30 else "small", annotator="ann") for n in range(34)]
    named = [(entry["group"], entry["name"], entry["n"]) for entry in report_card(pairs)["groups"]]
    assert ("source", "big", 30) in named
    assert not any(group == "annotator" or name == "small" for group, name, _ in named)


@pytest.mark.parametrize(
    ("expected", "change", "sound"),
    [("lower", -1.0, True), ("lower", 1.0, False), ("equal", 0.0, True), ("equal", -1.0, False), ("equal", 1.0, False)],
)
def test_a_probe_that_the_model_falls_for_is_marked(expected: str, change: float, sound: bool) -> None:
    card = report_card([pair(1, 1.0, 0.0)], [Probe("x", expected, [0.0] * 40, [change] * 40)])
    assert card["probes"][0]["sound"] is sound
    assert ("fooled" in markdown_card(card, "t") or "not neutral" in markdown_card(card, "t")) is not sound


def test_the_probes_change_one_thing_and_leave_out_what_they_cannot_change() -> None:
    rows = [comparison("Who are you?", "I am Ann. I help.", "no"), comparison("Hi", REFUSAL, "no")]
    made = {name: [text for _, text in answers] for name, answers in changed_answers(rows).items()}
    assert set(made) == {change.name for change in CHANGES}
    assert made["refuses"] == [REFUSAL], "the second one refuses already"
    assert made["repeats the prompt"] == ["Who are you?", "Hi"]
    assert made["says the answer twice"][0] == "I am Ann. I help. I am Ann. I help."
    assert made["writes sentences as a list"] == ["- I am Ann.\n- I help."]
    assert made["has wider spacing"] == ["I am Ann.\n\nI help."]
    assert made["stops in the middle"][0] == "I am Ann"


def test_ties_kept_as_two_halves_and_unreadable_answers_are_left_out() -> None:
    rows = [comparison("a", "x", "y"), comparison("a", "y", "x"), comparison("b", "x. y.", "z")]

    def score(answers: object) -> list[float | None]:
        return [None if text == REFUSAL else float(len(text)) for _, text in answers]  # type: ignore[attr-defined]

    card = examine(rows, [1.0, 2.0, 5.0], [2.0, 1.0, 1.0], score)
    assert card is not None
    assert (card["pairs"], card["accuracy"]["value"]) == (1, 1.0)
    probes = {probe["name"]: probe["prefers"]["value"] for probe in card["probes"]}
    assert "refuses" not in probes
    assert probes["says the answer twice"] == 1.0, "it scores by length"
    assert examine(rows[:2], [1.0, 2.0], [2.0, 1.0], score) is None


def test_hostile_answers_stay_text() -> None:
    mean = ScoredPair(1, ("```\n# boo", "<script>\x1b[2J", "| a | `b`"), (0.0, 1.0), (1, 2), source="**s**")
    text = markdown_card(report_card([mean]), "t `x`")
    assert "\x1b" not in text
    assert "````text" in text
    assert "t \\`x\\`" in text


def test_rlhf_score_writes_a_card_of_any_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("by_length.py").write_text(
        "def score(prompts, completions):\n    return [float(len(c)) for c in completions]\n"
    )
    rows = [{"prompt": f"q {n}", "chosen": "yes it is. really.", "rejected": "no" * (n % 20 + 1)} for n in range(1, 41)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["score", "pairs.jsonl", "--reward-model", "by_length:score", "--report-card", "card.md"]
    assert rlhf([*command, "--json"]) == 0
    card = json.loads(Path("card.json").read_text())
    assert card["accuracy"]["n"] == 40
    assert not next(probe for probe in card["probes"] if probe["name"] == "says the answer twice")["sound"]
    assert "says the answer twice | worse | 1.00" in Path("card.md").read_text()
    assert rlhf(command) == 4, "a file that is there already is not replaced without --force"
    Path("chats.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n"
    )
    assert rlhf(["score", "chats.jsonl", *command[2:4], "--report-card", "other.md"]) == 2
    assert not Path("other.md").exists()
    assert rlhf([*command[:-1], "other.json"]) == 2, "the data go there"
    assert math.isfinite(card["calibration"]["temperature"])
