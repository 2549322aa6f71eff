"""The report of a run: complete, unfinished and damaged ones, and text that others wrote."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipelines.overview.report_page import MOST_BYTES, render, write_report
from rlhf_cli.app import run as rlhf
from tests.evaluate.test_results_table import found
from tests.labels.page.browser import chromium
from tests.overview.conftest import RESULTS, Bench, answer, lines, ppo_line, row

PEOPLE = {
    "annotators": 2,
    "labels": 40,
    "asked": 30,
    "simulated": False,
    "win_rate": {"value": 0.625, "low": 0.55, "high": 0.75, "n": 20},
    "agreement": {"gold": {"value": 0.75, "low": 0.5, "high": 0.875, "n": 16}},
}
VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect"}


class Page(HTMLParser):
    """The elements and the visible text of a page; fails where an element is closed that is not open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.text += " "

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and not (tag == "li" and "li" not in self.open):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"}.intersection(self.open):
            self.text += data


def page_of(bench: Bench) -> Page:
    return Page(render(bench.config, bench.run))


def test_a_complete_run_has_its_verdict_first_and_every_stage(bench: Bench) -> None:
    bench.go()
    page = page_of(bench)
    assert "PPO is better than SFT" in page.text
    assert "90 % [88, 92] by reward_model and on 73 % [68, 78] by gold, of 200 held-out prompts" in page.text
    assert page.text.index("PPO is better") < page.text.index("The road") < page.text.index("Settings")
    for stage in ("data/comparisons", "sft", "reward", "ppo", "eval"):
        assert f"{stage} complete" in page.text
    assert "90 rows, 20 steps, held-out loss 0.5426 nats" in page.text
    assert ".780 [.750, .810]" in page.text, "the table of results"
    manifest = json.loads((bench.run.stage("sft") / "manifest.json").read_text())
    assert manifest["outputs"][0]["sha256"] in page.text
    assert "kl_coef: 0.05" in page.text
    assert manifest["versions"]["torch"] in page.text
    assert f"{manifest['notes']['machine']['cores']} CPU cores" in page.text
    assert "no alarm of PPO and no warning" in page.text


def around(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 60}


def test_the_frontier_has_a_panel_for_the_reward_and_for_each_judge(bench: Bench) -> None:
    points = [
        {"update": update, "kl": around(kl), "optimized": around(kl), "judged": {"gold": around(-kl)}}
        for update, kl in ((0, -0.001), (10, 9.0), (20, 4.0))
    ]
    frontier = {"prompts": 60, "published": 20, "points": points, "turns": {}}
    bench.files["eval"]["results.json"] = json.dumps(RESULTS | {"frontier": frontier})
    bench.go()
    page = page_of(bench)
    assert "Over-optimization" in page.text
    assert "The reward that PPO optimized" in page.text
    assert "-9.00 [-9.10, -8.90] farthest from the reference" in page.text
    of_n = [
        {"n": n, "kl": {"value": kl}, "optimized": around(n), "judged": {"gold": around(kl)}}
        for n, kl in ((1, 0.0), (8, 1.2))
    ]
    bench.files["eval"]["results.json"] = json.dumps(RESULTS | {"best_of_n": {"prompts": 60, "points": of_n}})
    bench.go(force=["eval"])
    alone = page_of(bench)
    assert "best of n: 8.00 [7.90, 8.10] farthest from the reference" in alone.text
    assert "its KL is an upper bound" in alone.text
    bench.files["eval"]["results.json"] = json.dumps(
        RESULTS | {"frontier": frontier, "best_of_n": {"prompts": 60, "points": of_n}}
    )
    bench.go(force=["eval"])
    both = page_of(bench).text
    assert both.count("PPO: ") == both.count("best of n: ") == 2
    bench.files["eval"]["results.json"] = json.dumps(RESULTS | {"frontier": {"points": [{"kl": "x"}]}})
    bench.go(force=["eval"])
    assert "Over-optimization" not in page_of(bench).text


@pytest.mark.parametrize(("call", "tone"), [("better", "good"), ("over-optimized", "bad"), ("not judged", "open")])
def test_the_verdict_of_the_results_is_taken_over(bench: Bench, call: str, tone: str) -> None:
    rate = {"value": 0.9, "low": 0.85, "high": 0.93, "n": 200}
    rows = [
        {"scorer": "reward_model", "role": "optimized", "call": "not judged", "win_rate": rate},
        {"scorer": "gold", "role": "independent", "call": call},
    ]
    told = {"call": call, "sentence": f"{call}: gold prefers PPO's answers", "opinions": rows}
    bench.files["eval"]["results.json"] = json.dumps(RESULTS | {"verdict": told})
    bench.go()
    page = page_of(bench)
    assert f"{call.capitalize()} gold prefers PPO's answers." in page.text
    assert f"reward_model (optimized): not judged, 90 % [85, 93] gold (independent): {call}" in page.text
    assert ("section", {"class": f"verdict {tone}", "aria-labelledby": "verdict"}) in page.tags


@pytest.mark.parametrize(
    ("low", "high", "call"),
    [(0.4, 0.6, "No clear difference between PPO and SFT"), (0.1, 0.49, "PPO is worse than SFT")],
)
def test_without_one_the_win_rates_decide(bench: Bench, low: float, high: float, call: str) -> None:
    results = json.loads(json.dumps(RESULTS))
    for rate in results["measures"]["ppo"]["win_rate"].values():
        rate.update(value=(low + high) / 2, low=low, high=high)
    bench.files["eval"]["results.json"] = json.dumps(results)
    bench.go()
    assert call in page_of(bench).text


def test_scorers_that_disagree_give_no_call(bench: Bench) -> None:
    results = json.loads(json.dumps(RESULTS))
    results["measures"]["ppo"]["win_rate"]["gold"].update(value=0.2, low=0.1, high=0.3)
    bench.files["eval"]["results.json"] = json.dumps(results)
    bench.go()
    assert "No clear difference" in page_of(bench).text


def test_nothing_and_half_a_run_are_said(bench: Bench) -> None:
    text = page_of(bench).text
    assert "No verdict yet The evaluation has not run. The road stops at data/demonstrations: not run yet." in text
    assert "eval not run" in text
    bench.go("reward")
    bench.run.begin("ppo")
    page = page_of(bench)
    assert "The road stops at ppo: was interrupted; starts again." in page.text
    assert "sft complete" in page.text
    assert "ppo unfinished" in page.text


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", '{"measures": 3}', '{"measures": {"ppo": []}, "trained": "ppo"}']
)
def test_results_that_cannot_be_read_are_said(bench: Bench, text: str) -> None:
    bench.files["eval"]["results.json"] = text
    bench.go()
    assert re.search("No verdict The results of the evaluation (are missing|have a form)", page_of(bench).text)


def test_a_damaged_manifest_and_a_changed_file_are_said(bench: Bench) -> None:
    bench.go()
    (bench.run.stage("reward") / "manifest.json").write_text("{")
    (bench.run.stage("sft") / "metrics.jsonl").write_text("altered")
    text = page_of(bench).text
    assert "reward damaged" in text
    assert "sft damaged" in text
    assert "its artifact was changed: metrics.jsonl" in text


def test_data_that_is_gone_is_no_error(bench: Bench) -> None:
    bench.go()
    (bench.run.root.parent.parent / "rows.jsonl").unlink()
    assert "PPO is better than SFT" in page_of(bench).text


def test_alarms_and_warnings_are_shown(bench: Bench) -> None:
    alarm = {"name": "kl_running_away", "update": 7, "message": "the KL is 80 nats", "hint": "raise ppo.kl_coef"}
    acted = {
        "name": "grad_norm",
        "update": 9,
        "message": "it grew",
        "hint": "",
        "action": "stop",
        "done": "stopped there",
    }
    bench.files["ppo"]["alarms.jsonl"] = lines(alarm, acted) + '{"name": "cut of\n'
    bench.go()
    bench.run.log_path.write_text(
        "2026-11-30 20:49:19,096 INFO rlhf[1] all is well\n"
        + "2026-11-30 20:49:20,096 WARNING rlhf[1] only 12 held-out prompts\n" * 2
        + "2026-11-30 20:49:21,096 WARNING transformers.x[1] use another class\n"
    )
    text = page_of(bench).text
    assert "kl_running_away in ppo, update 7: the KL is 80 nats" in text
    assert "raise ppo.kl_coef" in text
    assert "Done: stopped there" in text
    assert text.count("Done:") == 1
    assert text.count("only 12 held-out prompts") == 1
    assert "all is well" not in text
    assert "use another class" not in text


def test_curves_of_every_training(bench: Bench) -> None:
    bench.go()
    text = page_of(bench).text
    assert "Loss, nats per token" in text
    assert "training: 3 at step 1, 0.15 at step 20" in text
    assert "On held-out rows the loss was 3 before the training and is 0.5426 after it." in text
    for title in ("Accuracy on training rows", "KL to the reference", "Value loss", "Entropy, nats per token"):
        assert title in text
    assert "held out: 0.1 at update 0, 1 at update 5" in text
    assert render(bench.config, bench.run).count("<svg ") == 8


def test_a_baseline_has_curves_and_alarms_but_no_value_loss(bench: Bench) -> None:
    updates = [{name: value for name, value in ppo_line(n).items() if name != "loss/value_avg"} for n in (1, 5)]
    alarm = {"name": "clip_fraction", "update": 4, "message": "many tokens of the baseline", "hint": "a lower rate"}
    bench.files["baselines/rloo"] = {"metrics.jsonl": lines(*updates), "alarms.jsonl": lines(alarm)}
    bench.metrics["baselines/rloo"] = {"objective/scores": 0.7}
    bench.sets = (*bench.sets, "eval.policies=[sft, ppo, rloo]")
    bench.go()
    text = page_of(bench).text
    assert text.count("RLOO, a baseline") == 1
    assert text.count("Value loss") == 1, "that of PPO"
    assert text.count("Entropy, nats per token") == 2
    assert "many tokens of the baseline" in text
    assert "score 0.7 at the end" in text


def test_a_training_in_progress_shows_its_curves_so_far(bench: Bench) -> None:
    bench.go("reward")
    partial = bench.run.begin("ppo")
    (partial / "metrics.jsonl").write_text(bench.files["ppo"]["metrics.jsonl"] + '{"update": 6, "objec')
    text = page_of(bench).text
    assert "PPO, unfinished" in text
    assert "0.1 at update 1, 0.5 at update 5" in text


@pytest.mark.parametrize(
    "text", ["", "x" * 100, '{"step": "1", "loss": "2"}\n', '{"step": 1, "loss": null}\n', "[" * 99999]
)
def test_logs_that_cannot_be_read_draw_nothing(bench: Bench, text: str) -> None:
    bench.files["sft"]["metrics.jsonl"] = text
    bench.go("sft")
    html = render(bench.config, bench.run)
    assert "Nothing is logged yet" in html
    assert "<svg " not in html


def test_a_baseline_has_curves_too(bench: Bench) -> None:
    bench.sets = (*bench.sets, "eval.policies=[sft, ppo, rloo]")
    log = lines(*({"update": n, "objective/scores": n / 10} for n in (1, 2)))
    bench.files["baselines/rloo"] = {"metrics.jsonl": log}
    bench.go("ppo")
    bench.run.partial("baselines/rloo").mkdir(parents=True)
    (bench.run.partial("baselines/rloo") / "metrics.jsonl").write_text(log)
    text = page_of(bench).text
    assert "RLOO, a baseline, unfinished" in text
    assert "0.1 at update 1, 0.2 at update 2" in text
    assert text.count("Value loss") == 1, "it has no value model"


def test_figures_of_the_reward_model(bench: Bench) -> None:
    bench.metrics["reward"] |= {
        "heldout_accuracy_before": 0.5,
        "heldout_accuracy_low_after": 0.88,
        "heldout_accuracy_high_after": 0.93,
        "heldout_length_accuracy_after": 0.53,
        "heldout_auc_after": None,
        "probe/courtesy": 0.97,
    }
    bench.go("reward")
    text = page_of(bench).text
    assert "held-out accuracy 0.91 [0.88, 0.93]; 0.5 before the training" in text
    assert "accuracy of choosing by length alone 0.53" in text
    assert "area under" not in text
    assert "answers spoiled in courtesy score lower 97%" in text
    assert "Reliability" not in text
    bench.notes["reward"] = {"objective": "pointwise", "calibration": [{"n": 5, "probability": 0.2, "good": 0.3}, 7]}
    bench.go("reward", force=["reward"])
    assert "Reliability on held-out rows" in page_of(bench).text


def estimated(value: float, n: int = 50) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": n}


CARD: dict[str, Any] = {
    "learning_curve": [{"rows": 64, **estimated(0.55)}, {"rows": 128, **estimated(0.63)}],
    "groups": [{"group": "length", "name": "the longer answer was chosen", **estimated(0.63)}],
    "calibration": {
        "calibration_error": 0.0277,
        "temperature": 1.4,
        "reliability": [{"n": 9, "probability": 0.6, "right": 0.5}, {"n": 9, "probability": 0.9, "right": 0.8}],
    },
    "probes": [
        {"name": "says it twice", "expected": "lower", "sound": False, "prefers": estimated(0.71)},
        {"name": "refuses", "expected": "lower", "sound": True, "prefers": estimated(0.2)},
        {"name": "renames", "expected": "equal", "sound": False, "prefers": estimated(0.9)},
    ],
    "mistakes": [
        {"prompt": f"Prompt {n}", "chosen": "good", "rejected": "bad", "scores": [-1.5, 2.25]} for n in range(9)
    ],
}


def test_the_report_card_of_the_reward_model(bench: Bench) -> None:
    bench.files["reward"]["report_card.json"] = json.dumps(CARD)
    bench.go("reward")
    text = page_of(bench).text
    assert "length: the longer answer was chosen .63 [.53, .73], 50 pairs" in text
    assert "temperature that would mend it (above 1: too sure of itself) 1.4" in text
    assert "held-out accuracy after 64 rows .55 [.45, .65]" in text
    assert "after 128 rows" not in text, "the accuracy of the trained model stands elsewhere"
    assert "says it twice .71 [.61, .81]; fooled" in text
    assert "refuses .20 [.10, .30] probe" in text
    assert "renames .90 [.80, 1.00]; not neutral" in text
    assert "share that is right" in text
    assert "chosen good score -1.50 preferred by the model bad score 2.25" in text
    assert ("Prompt 2" in text, "Prompt 3" in text) == (True, False)


@pytest.mark.parametrize("card", ["", "[]", '{"groups": 1, "calibration": [], "probes": [3], "mistakes": [{}]}', "x"])
def test_a_report_card_of_another_form_is_left_out(bench: Bench, card: str) -> None:
    bench.files["reward"]["report_card.json"] = card
    bench.go("reward")
    assert "held-out accuracy 0.91" in page_of(bench).text


def test_rounds_have_their_own_curves_and_old_ones_are_left_out(bench: Bench) -> None:
    bench.sets = (*bench.sets, "feedback.source=human", "feedback.rounds=5")
    for number in range(2, 6):
        for name in ("reward", "ppo"):
            bench.files[f"rounds/{number:02d}/{name}"] = bench.files[name]
    bench.go()
    text = page_of(bench).text
    assert "2 earlier rounds are left out" in text
    headings = re.findall("(?:Reward model|PPO), round [0-9]", text)
    assert headings == [f"{name}, round {number}" for number in (3, 4, 5) for name in ("Reward model", "PPO")]


HOSTILE = "</p></svg><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}\x1b[31m\u202etxet\ud800\x00 & \" '"


def assert_harmless(page: Page, html: str) -> None:
    assert not {"script", "iframe", "object", "embed", "form", "base"}.intersection(tag for tag, _ in page.tags)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", html)
    assert "url(http" not in html
    assert "@import" not in html


def hostile(value: Any) -> Any:
    """The same tree with all texts in it made hostile."""
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_stays_text(bench: Bench) -> None:
    told = {"call": HOSTILE, "sentence": HOSTILE}
    results = RESULTS | {"verdict": told, "trained_on_simulated": [HOSTILE]}
    bench.files["eval"]["results.json"] = json.dumps(results)
    bench.files["ppo"]["alarms.jsonl"] = lines(
        hostile({"name": "", "update": 1, "message": "", "hint": "", "done": ""})
    )
    bench.files["eval"]["answers.jsonl"] = lines(
        row(HOSTILE, answer(HOSTILE, 0.1), answer(HOSTILE, 0.9)), hostile(row("", answer("", 0.9), answer("", 0.1)))
    )
    bench.files["reward"]["report_card.json"] = json.dumps(hostile(CARD))
    bench.sets = (*bench.sets, "sft.trainer=" + json.dumps({"run_name": HOSTILE[:60]}))
    bench.go()
    log = f"2026-11-30 20:49:20,096 WARNING rlhf[1] {HOSTILE}\n"
    bench.run.log_path.write_bytes(log.encode("utf-8", "surrogatepass"))
    html = render(bench.config, bench.run)
    page = Page(html)
    assert_harmless(page, html)
    assert page.text.count("<script>alert(1)</script>") >= 11
    assert "{{ 7*7 }}⟨U+001B⟩[31m⟨U+202E⟩txet⟨U+D800⟩⟨U+0000⟩" in page.text
    assert "default-src 'none'" in html


@pytest.mark.parametrize("name", ["gold", "a <b>"])
def test_names_of_scorers_are_text(bench: Bench, name: str) -> None:
    results = json.loads(json.dumps(RESULTS).replace('"gold"', json.dumps(name)))
    shown = [row("p", answer("a", 0.1), answer("b", 0.9))]
    bench.files["eval"] = {
        "results.json": json.dumps(results),
        "answers.jsonl": lines(*shown).replace('"gold"', json.dumps(name)),
    }
    bench.go()
    html = render(bench.config, bench.run)
    assert f"By {name}, the answer" in Page(html).text
    assert "<b>" not in html


def test_the_page_stays_small_whatever_the_answers(bench: Bench) -> None:
    worst = '"' * 100_000  # five bytes each as HTML
    rows = (row(worst, answer(worst, 0.5), answer(worst, n / 30)) for n in range(31))
    bench.files["eval"]["answers.jsonl"] = lines(*rows)
    bench.go()
    html = render(bench.config, bench.run)
    assert len(html.encode()) <= MOST_BYTES
    assert "[... 97000 more characters]" in html, "of the first limit, which is enough"


def test_in_a_browser_nothing_runs_and_nothing_is_fetched(bench: Bench, tmp_path: Path) -> None:
    bench.files["eval"]["answers.jsonl"] = lines(row(HOSTILE, answer(HOSTILE, 0.1), answer(HOSTILE, 0.9)))
    bench.go()
    path = write_report(bench.config, bench.run, tmp_path / "page.html")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 360, "height": 700})
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(path.as_uri())
        assert page.locator("article.answers").count() == 1
        assert page.locator("svg").count() == 8
        width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width == room, "on a phone nothing sticks out"
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        for scheme in ("light", "dark"):
            ground(page, scheme)
            faults = axe.run(page).response["violations"]
            assert not faults, [(fault["id"], fault["nodes"][0]["html"]) for fault in faults]
        colors = {scheme: ground(page, scheme) for scheme in ("light", "dark")}
        assert colors["light"] != colors["dark"]
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert not said


def ground(page: Any, scheme: str) -> str:
    """Color of the background in a scheme."""
    page.emulate_media(color_scheme=scheme)
    return str(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))


def test_a_name_of_a_run_cannot_act(bench: Bench) -> None:
    root = bench.run.root.rename(bench.run.root.with_name("<script>alert(1)<"))
    bench.run.root = root
    html = render(bench.config, bench.run)
    assert_harmless(Page(html), html)


def test_the_file_is_written_whole_or_not_at_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.go()
    path = write_report(bench.config, bench.run)
    assert path == bench.run.root / "report.html"
    before = path.read_bytes()
    assert before.startswith(b"<!doctype html>")
    assert len(before) < MOST_BYTES

    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    assert rlhf(["report", str(bench.run.root)]) == 9
    assert path.read_bytes() == before


def test_the_command(bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bench.go()
    monkeypatch.chdir(bench.run.root.parent.parent)
    assert rlhf(["report", "--json"]) == 0, "the only run below runs/"
    told = json.loads(capsys.readouterr().out)
    path = bench.run.root / "report.html"
    assert told == {"run_dir": "runs/mine", "report": "runs/mine/report.html", "bytes": path.stat().st_size}
    assert rlhf(["report", "runs/mine"]) == 0, "it replaces its own file"
    assert rlhf(["report", "--run-dir", "runs/mine", "--out", "other.html"]) == 0
    assert rlhf(["report", "--run-dir", "runs/mine", "--out", "other.html"]) == 4
    assert rlhf(["report", "--run-dir", "runs/mine", "--out", "other.html", "--force"]) == 0
    assert rlhf(["report", "nowhere"]) == 2
    assert rlhf(["report", "runs/mine", "--run-dir", "runs/mine"]) == 2
    assert rlhf(["status", "--run-dir", "runs/mine", "--verify"]) == 0, "the report is part of no stage"


def test_all_writes_it_at_the_end_and_leaves_it_where_nothing_ran(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.go()
    path = bench.run.root / "report.html"
    again = ["all", "--run-dir", str(bench.run.root), "--json"]
    assert rlhf(again) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(path), "it was not there"
    path.write_text("mine")
    assert rlhf(again) == 0
    assert path.read_text() == "mine"
    assert json.loads(capsys.readouterr().out)["report"] == str(path)
    shutil.rmtree(bench.run.stage("data/prompts"))
    assert rlhf([*again[:-1], "--until", "data"]) == 0
    assert "report.html" in capsys.readouterr().err
    assert path.read_text().startswith("<!doctype html>")


def test_a_report_that_fails_does_not_cost_the_run(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.go()
    (bench.run.root / "report.html").mkdir()
    shutil.rmtree(bench.run.stage("data/prompts"))
    assert rlhf(["all", "--run-dir", str(bench.run.root), "--until", "data"]) == 0
    said = capsys.readouterr().err
    assert "the report could not be written" in said
    assert f"rlhf report {bench.run.root}" in said


def test_people_stand_beside_the_judges(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gold = {"scorer": "gold", "role": "independent", "call": "better", "win_rate": found(0.75, 0.05)}
    verdict = {"call": "better", "sentence": "better: gold prefers", "opinions": [gold]}
    bench.files["eval"]["results.json"] = json.dumps({**RESULTS, "verdict": verdict})
    bench.go()
    assert "people: 2 annotators" not in page_of(bench).text
    monkeypatch.setattr("pipelines.overview.run_facts.people_of", lambda *_: PEOPLE)
    text = page_of(bench).text
    assert text.index("people (independent): better, 62 % [55, 75]") < text.index("gold (independent): better")
    assert "people - - .625 [.550, .750] -" in text
    assert "people: 2 annotators compared 20 of the 30 prompts with different answers" in text
    assert "preferred PPO's to SFT's on 62 % [55, 75]" in text
    assert "they agree with gold on 75 % [50, 88] of 16" in text
