"""Figures of further tests by hand: shares, ratios clustered by unit, paired differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from pipelines.chain import table
from pipelines.chain.preflight import check_environment
from pipelines.config import Config
from pipelines.errors import ArtifactError, DataError
from pipelines.evaluate.further_tests import Figure
from pipelines.evaluate.results_table import grid
from pipelines.report.statistics import wilson
from tests.evaluate.test_evaluate_stage import evaluate, run_dir  # noqa: F401
from tests.tiny import save_pair, tiny_bert, tiny_llama, tiny_tokenizer


def test_a_share_weighs_units_and_has_a_width_where_all_are_alike():
    values = {"sft": [1.0, 0.0, 2.0], "ppo": [1.0, 3.0, 2.0]}
    figure = Figure("followed", "each", values, [1.0, 3.0, 2.0], share=True)
    assert figure.estimate("sft", 200).value == 0.5
    whole = figure.estimate("ppo", 200)
    assert (whole.value, whole.low, whole.high) == (1.0, *wilson(3, 3))
    gain = figure.difference("ppo", "sft", 200)
    assert (gain.value, gain.n) == (0.5, 3)


def test_constraints_are_answered_and_counted(evaluate: Callable[..., Any], tmp_path: Path):  # noqa: F811
    pytest.importorskip("if_verifiable")
    path = tmp_path / "ifeval.jsonl"
    words = {"num_words": 40, "relation": "less than"}
    rows = [
        {"prompt": "Say hello.", "instruction_id_list": ["length_constraints:number_words"], "kwargs": [words]},
        {
            "prompt": "Say no.",
            "instruction_id_list": ["length_constraints:number_words", "keywords:existence"],
            "kwargs": [words, {"keywords": ["qqqqqqq"]}],
        },
        {"prompt": "far too long " * 60, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, reporter = evaluate(eval={"constraints": str(path), "policies": ["sft", "ppo"]})
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    told = [json.loads(line) for line in (out / "tests.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in told] == ["Say hello.", "Say no."]
    for policy in ("sft", "ppo"):
        followed = [row["answers"][policy]["strict"] for row in told]
        figures = results["measures"][policy]["tests"]["constraints followed"]
        assert figures["each"]["value"] == pytest.approx(sum(map(sum, followed)) / 3)
        assert figures["whole prompts"]["value"] == sum(map(all, followed)) / 2
        assert figures["each, loose"]["value"] >= figures["each"]["value"]
        assert figures["each"]["n"] == 2
    assert "each" in results["measures"]["ppo"]["difference"]["tests"]["constraints followed"]
    table = (out / "table.txt").read_text(encoding="utf-8")
    assert "constraints followed" in table
    assert "3 verifiable constraints of 2 prompts (IFEval)" in " ".join(table.split())
    assert "1 prompts were too long" in " ".join(table.split())
    assert all(total == done for total, done in reporter.tasks.values())


POLITE = """
def score(prompts, completions):
    return [float("Ann" in prompt[-1]["content"]) + 0.001 * len(text) for prompt, text in zip(prompts, completions)]
"""


@pytest.mark.parametrize("refuses", [True, False])
def test_groups_are_compared_by_template(
    evaluate: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuses: bool,
):
    (tmp_path / "fond_of_ann.py").write_text(POLITE)
    monkeypatch.syspath_prepend(str(tmp_path))
    axes = tmp_path / "axes.jsonl"
    groups = {"Anns": ["Ann"], "Bos": ["Bo"], "Cys": ["Cy"]}
    templates = [f"{greeting} {{}}!" for greeting in ("Hi", "Call", "Ask", "Tell")] + ["far too long " * 60 + "{}"]
    axis = {"axis": "friends", "groups": groups, "templates": templates}
    axes.write_text(json.dumps(axis) + "\n")
    monkeypatch.setattr("pipelines.evaluate.bias_test.is_refusal", lambda text: refuses)
    summed = {"kind": "sum", "parts": [{"kind": "gold"}, {"kind": "function", "function": "fond_of_ann:score"}]}
    scorers = [{"kind": "function", "function": "fond_of_ann:score"}, summed, {"kind": "gold"}]
    scorers.append({"kind": "length", "target": 5})
    _, out, _ = evaluate(eval={"bias": str(axes), "policies": ["sft", "ppo"], "scorers": scorers})
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (out / "tests.jsonl").read_text(encoding="utf-8").splitlines()]
    friends = [row for row in rows if row["axis"] == "friends"]
    assert len(friends) == 12, "a template that is too long for a group is left out for all"
    for policy in ("sft", "ppo"):
        tests = results["measures"][policy]["tests"]
        titles = {"bias: score", *(["bias: refusals"] if refuses else [])}
        assert set(tests) == titles, "neither gold nor a rule judges foreign prompts"
        scores = {
            group: [row["answers"][policy]["scores"]["score"] for row in friends if row["group"] == group]
            for group in groups
        }
        others = [(bo + cy) / 2 for bo, cy in zip(scores["Bos"], scores["Cys"], strict=True)]
        apart = [ann - other for ann, other in zip(scores["Anns"], others, strict=True)]
        assert tests["bias: score"]["Anns - others"]["value"] == pytest.approx(sum(apart) / 4)
        assert tests["bias: score"]["Anns - others"]["n"] == 4
        assert tests["bias: score"]["Anns - others"]["low"] > 0
        assert "women - men" in tests["bias: score"]
        assert "men - women" not in tests["bias: score"]
    table = (out / "table.txt").read_text(encoding="utf-8")
    assert "Anns - others" in table
    assert "bias: refusals" not in table, "all refuse or nobody does, so no difference is worth a row"
    prompts = len(rows)
    assert (f"Refused: SFT {prompts}, PPO {prompts}." if refuses else "Refused: none.") in " ".join(table.split())
    assert "bias: answers to" in table
    labels = [(title, label) for title, label, _ in grid(results).rows]
    assert (("bias: refusals", "women - men") in labels) is refuses


def test_toxicity_is_read_off_the_answers_alone(
    evaluate: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
):
    tokenizer = tiny_tokenizer(template=None)
    tokenizer.model_max_length = 256
    path = save_pair(tiny_bert(tokenizer, num_labels=2), tokenizer, tmp_path / "toxic-bert")
    section = {"kind": "classifier", "path": str(path), "label": 1, "output": "probability"}
    _, out, _ = evaluate(eval={"toxicity": section, "policies": ["sft", "ppo"]})
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    toxic = pipeline("text-classification", str(path), device="cpu", top_k=None)
    for policy in ("sft", "ppo"):
        probabilities = [
            next(entry["score"] for entry in told if entry["label"] == "LABEL_1")
            for told in toxic([row["answers"][policy]["text"] for row in rows])
        ]
        figures = results["measures"][policy]["tests"]["toxicity by toxic-bert"]
        assert figures["mean probability"]["value"] == pytest.approx(sum(probabilities) / 8, abs=1e-5)
        assert figures["share above .5"]["value"] == sum(value > 0.5 for value in probabilities) / 8
        assert figures["share above .5"]["low"] < figures["share above .5"]["high"]
    assert "toxicity by toxic-bert" in (out / "table.txt").read_text(encoding="utf-8")
    assert "toxic-bert" not in {scorer["name"] for scorer in results["scorers"]}, "it is no judge"


@pytest.mark.parametrize("change", [{"output": "logit"}, {"lower_is_better": True}, {"kind": "gold"}])
def test_toxicity_is_a_probability(change: dict[str, Any]):
    section = {"kind": "classifier", "path": "org/toxicity", "label": 1, "output": "probability"} | change
    section = {"kind": "gold"} if change == {"kind": "gold"} else section
    with pytest.raises(ValueError, match="`toxicity` must be of kind classifier"):
        Config.model_validate({"eval": {"toxicity": section}})


def test_an_older_run_is_complete_and_the_files_of_tests_are_sources(tmp_path: Path):
    (stage,) = (entry for entry in table.STAGES if entry.name == "eval")
    assert not {"constraints", "bias", "toxicity"} & stage.section(Config())["eval"].keys()
    files = {name: tmp_path / f"{name}.jsonl" for name in ("constraints", "bias")}
    config = Config.model_validate({"eval": {name: str(path) for name, path in files.items()}})
    assert set(stage.sources(config)) == set(files.values())
    assert {"constraints", "bias"} <= stage.section(config)["eval"].keys()
    assert stage.sources(Config.model_validate({"eval": {"bias": True}})) == ()


def test_files_of_tests_are_read_before_anything_is_trained(tmp_path: Path):
    axes = tmp_path / "axes.jsonl"
    axes.write_text('{"axis": "hair"}\n')
    directory = save_pair(tiny_llama(tiny_tokenizer()), tiny_tokenizer(), tmp_path / "base")
    toxicity = {"kind": "classifier", "path": str(tmp_path / "nowhere"), "label": 1, "output": "probability"}
    for section, error, told in (
        ({"bias": str(axes)}, DataError, "groups"),
        ({"constraints": str(tmp_path / "none.jsonl")}, DataError, "cannot be read"),
        ({"toxicity": toxicity}, ArtifactError, "no model directory"),
    ):
        config = Config.model_validate({"model": {"name_or_path": str(directory)}, "eval": section})
        check_environment(config, ["sft", "reward", "ppo"])
        with pytest.raises(error, match=told):
            check_environment(config, ["sft", "eval"])
