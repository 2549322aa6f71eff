"""The whole stage on tiny saved models: what it writes, what must be exactly zero or equal, and who is left out."""

from __future__ import annotations

import itertools
import json
import math
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from pipelines.chain import table
from pipelines.config import Config
from pipelines.data.encode import ChatEncoder
from pipelines.data.prompts import evaluation_prompts
from pipelines.errors import DataError
from pipelines.evaluate import stage
from pipelines.evaluate.best_of_n import Candidates, best_of_n_kl, sizes
from pipelines.evaluate.results import judge
from pipelines.evaluate.stage import Policies, sequence_logprobs
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion, load_scorer, named_apart
from pipelines.tasks import load_task
from tests.recorders import Recorder
from tests.tiny import save_pair, tiny_llama, tiny_tokenizer

FUNCTIONS = """
calls = []
def length(prompts, completions):
    calls.append(len(completions))
    return [float(len(text)) for text in completions]
def constant(prompts, completions):
    return [1.0] * len(completions)
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with an outside base, SFT, reward and PPO models, and held-out prompts of the support task."""
    root = tmp_path_factory.mktemp("run")
    tokenizer = tiny_tokenizer()
    for number, name in enumerate(("outside", "sft", "ppo")):
        directory = root / name / "model" if name != "outside" else root / name
        save_pair(tiny_llama(tokenizer, seed=number), tokenizer, directory)
    config = tiny_llama(tokenizer).config
    config.num_labels = 1
    torch.manual_seed(9)
    reward = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(reward.score.weight)
    save_pair(reward, tokenizer, root / "reward" / "model")
    heldout = root / "data" / "prompts" / "heldout.jsonl"
    heldout.parent.mkdir(parents=True)
    rows = [row.model_dump_json() for row in load_task("support").prompts(12, 0)]
    long = json.dumps({"prompt": [{"role": "user", "content": "far too long " * 60}]})
    heldout.write_text("\n".join([*rows, rows[0], long]) + "\n", encoding="utf-8")
    (root / "user_scores.py").write_text(FUNCTIONS)
    return root


@pytest.fixture
def evaluate(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, Path, Recorder]]:
    monkeypatch.syspath_prepend(str(run_dir))
    monkeypatch.delitem(sys.modules, "user_scores", raising=False)

    def run(stages: tuple[str, ...] = ("sft", "reward", "ppo"), **sections: Any) -> tuple[Any, Path, Recorder]:
        config = config_of(run_dir, **sections)
        out, reporter = tmp_path / f"eval-{len(list(tmp_path.iterdir()))}", Recorder()
        out.mkdir()
        inputs = {name: run_dir / name for name in ("data/prompts", *stages)}
        ctx = StageContext(config, out, inputs, reporter)
        metrics = stage.run(ctx)
        return (metrics, ctx.notes), out, reporter

    return run


def config_of(run_dir: Path, **sections: Any) -> Config:
    values: dict[str, dict[str, Any]] = {
        "run": {"device": "cpu", "threads": 1},
        "model": {"name_or_path": str(run_dir / "outside")},
        "data": {"task": {"name": "support"}},
        "ppo": {"response_length": 6, "max_prompt_length": 120},
        "eval": {
            "num_prompts": 8,
            "bootstrap_samples": 100,
            "batch_size": 3,
            "side_by_side": 2,
            "independent_judge": "off",
            "scorers": [
                {"kind": "run"},
                {"kind": "gold"},
                {"kind": "function", "function": "user_scores:length"},
                {"kind": "function", "function": "user_scores:constant"},
            ],
        },
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section
    return Config.model_validate(values)


def test_the_whole_stage(evaluate: Callable[..., Any], run_dir: Path):
    (metrics, notes), out, reporter = evaluate()
    assert sorted(path.name for path in out.iterdir()) == ["answers.jsonl", "results.json", "table.md", "table.txt"]
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert results["policies"] == ["base", "sft", "ppo"]
    assert results["baseline"] == "sft"
    assert results["prompts"] == {"heldout": 14, "repeated": 1, "too_long": 1, "used": 8}
    assert len(rows) == 8
    assert all(list(row["answers"]) == ["base", "sft", "ppo"] for row in rows)

    # the figures are those of the answers on disk
    gold = load_task("support")
    for policy in results["policies"]:
        answers = [row["answers"][policy] for row in rows]
        assert metrics[f"length/{policy}"] == pytest.approx(sum(answer["length"] for answer in answers) / 8)
        assert metrics[f"finished/{policy}"] == pytest.approx(sum(answer["finished"] for answer in answers) / 8)
        assert metrics[f"repetition/{policy}"] == pytest.approx(sum(answer["repetition"] for answer in answers) / 8)
        assert metrics[f"perplexity/{policy}"] > 1
        assert set(results["measures"][policy]["distinct"]) == {"1", "2", "3"}
        for scorer in ("reward_model", "gold", "length", "constant"):
            mean = sum(answer["scores"][scorer] for answer in answers) / 8
            assert metrics[f"mean/{policy}/{scorer}"] == pytest.approx(mean)
        assert all(answer["scores"]["length"] == len(answer["text"]) for answer in answers)
        assert set(answers[0]["attributes"]) == set(gold.attributes)
    scores = [[row["answers"][policy]["scores"]["reward_model"] for row in rows] for policy in ("ppo", "sft")]
    won = sum((a > b) + 0.5 * (a == b) for a, b in zip(*scores, strict=True)) / 8
    assert metrics["win_rate/reward_model"] == won
    assert metrics["win_rate/reward_model/low"] <= won <= metrics["win_rate/reward_model/high"]
    for name in gold.attributes:
        gain = metrics[f"attribute/ppo/{name}"] - metrics[f"attribute/sft/{name}"]
        assert metrics[f"difference/{name}"] == pytest.approx(gain)
        assert metrics[f"difference/{name}/low"] <= gain + 1e-12 <= metrics[f"difference/{name}/high"] + 2e-12
    # ties everywhere: one half, without width
    assert [metrics[f"win_rate/constant{end}"] for end in ("", "/low", "/high")] == [0.5, 0.5, 0.5]

    # progress is counted to its end, and each scorer saw all answers in one call
    assert all(total == done for total, done in reporter.tasks.values())
    assert set(reporter.tasks) >= {"base answers", "sft answers", "ppo answers", "scoring by gold"}
    assert len(sys.modules["user_scores"].calls) == 1
    assert any("too long" in words for words in reporter.said)
    assert notes["baseline"] == "sft"
    assert "simulated" in notes

    text = (out / "table.txt").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    assert "gold: the task's own hidden utility; simulated" in text.splitlines()
    assert text.count("   SFT (gold ") == text.count("   PPO (gold ") == 2


def test_log_probabilities_of_answers_are_those_of_plain_transformers(run_dir: Path):
    tokenizer = tiny_tokenizer()
    config = config_of(run_dir, eval={"temperature": 0.7})
    prompts, _ = evaluation_prompts(
        run_dir / "data" / "prompts" / "heldout.jsonl", ChatEncoder(tokenizer), config, config.ppo.max_prompt_length
    )
    model = LlamaForCausalLM.from_pretrained(run_dir / "ppo" / "model").eval()
    rng = torch.Generator().manual_seed(0)
    answers, expected = [], []
    for number, prompt in enumerate(prompts):
        ids = torch.randint(5, len(tokenizer), (1 + number % 5,), generator=rng).tolist()
        if number % 2:
            ids.append(tokenizer.eos_token_id)
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt["prompt_ids"], *ids]])).logits[0, len(prompt["prompt_ids"]) - 1 : -1]
        expected.append(torch.log_softmax(logits / 0.7, -1)[torch.arange(len(ids)), ids].sum().item())
        answers.append(Completion("", tuple(ids), bool(number % 2)))
    told: list[int] = []
    found = sequence_logprobs(model, prompts, answers, [tokenizer.eos_token_id], config, told.append)
    assert found == pytest.approx(expected, abs=1e-4)
    assert sum(told) == len(prompts)


@pytest.mark.parametrize(("own", "expected"), [({}, 0.7), ({"temperature": 1.3}, 1.3)])
def test_answers_are_drawn_as_in_training_unless_told_otherwise(
    evaluate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, own: dict[str, Any], expected: float
):
    drawn: list[tuple[float, int, float]] = []
    sample, logprobs = stage.sample, stage.response_logprobs
    tempered: set[float] = set()

    def noted(*args: Any, **options: Any) -> Any:
        drawn.append((options["temperature"], options["top_k"], options["top_p"]))
        return sample(*args, **options)

    def noted_logprobs(model: Any, batch: Any, temperature: float) -> Any:
        tempered.add(temperature)
        return logprobs(model, batch, temperature)

    monkeypatch.setattr(stage, "sample", noted)
    monkeypatch.setattr(stage, "response_logprobs", noted_logprobs)
    _, out, _ = evaluate(ppo={"temperature": 0.7, "top_k": 40, "top_p": 0.9}, eval=own)
    assert set(drawn) == {(expected, 40, 0.9)}
    assert tempered == {expected}
    assert json.loads((out / "results.json").read_text())["settings"]["temperature"] == expected


def test_the_evaluation_depends_on_the_temperature_that_it_follows():
    (evaluation,) = (entry for entry in table.STAGES if entry.name == "eval")
    views = [
        evaluation.section(Config.model_validate(sections))
        for sections in (
            {"ppo": {"temperature": 0.7}},
            {"eval": {"temperature": 0.7}},
            {"ppo": {"temperature": 0.7}, "eval": {"temperature": 1.0}},
            {},
            {"ppo": {"top_p": 0.9}},
        )
    ]
    assert views[0] == views[1] != views[2] == views[3] != views[4]


def test_kl_is_the_mean_log_ratio_of_a_policys_own_answers(
    evaluate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    calls: list[tuple[torch.Tensor, list[Completion], list[float]]] = []

    def spy(model: Any, prompts: Any, answers: Any, *rest: Any) -> list[float]:
        found = sequence_logprobs(model, prompts, answers, *rest)
        calls.append((model.lm_head.weight, list(answers), found))
        return found

    monkeypatch.setattr(stage, "sequence_logprobs", spy)
    (metrics, _), _, _ = evaluate(eval={"policies": ["sft", "ppo"]})
    (ppo, own, under_ppo), (sft, judged, under_sft), (_, sfts_own, _) = calls
    assert own == judged != sfts_own
    assert not torch.equal(ppo, sft)
    assert metrics["kl/ppo"] == pytest.approx((sum(under_ppo) - sum(under_sft)) / 8)
    tokens = sum(len(answer.ids) for answer in own)
    assert metrics["perplexity/ppo"] == pytest.approx(math.exp(-sum(under_sft) / tokens))
    assert metrics["kl/ppo"] > 0
    assert "kl/sft" not in metrics


def test_equal_policies_tie_and_have_no_kl(evaluate: Callable[..., Any], run_dir: Path):
    import shutil

    twin = run_dir / "twin"
    shutil.copytree(run_dir / "sft", twin / "sft", dirs_exist_ok=True)
    config = config_of(run_dir, eval={"policies": ["ppo"]})
    out = run_dir / "eval-twin"
    out.mkdir(exist_ok=True)
    inputs = {"data/prompts": run_dir / "data/prompts", "reward": run_dir / "reward", "sft": run_dir / "sft"}
    metrics = stage.run(StageContext(config, out, inputs | {"ppo": twin / "sft"}, SilentReporter()))
    assert json.loads((out / "results.json").read_text())["policies"] == ["sft", "ppo"]
    assert metrics["kl/ppo"] == 0.0
    for scorer in ("reward_model", "gold", "length"):
        assert metrics[f"win_rate/{scorer}"] == metrics[f"win_rate/{scorer}/low"] == 0.5


def test_one_policy_is_in_memory_at_a_time(evaluate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    opened: list[weakref.ref[Any]] = []
    plain_open = Policies.open

    def watched(self: Policies, name: str) -> Any:
        assert not [model for model in opened if model() is not None]
        model = plain_open(self, name)
        opened.append(weakref.ref(model))
        return model

    monkeypatch.setattr(Policies, "open", watched)
    monkeypatch.setattr("pipelines.evaluate.results.load_scorer", _after(opened, load_scorer))
    evaluate()
    assert len(opened) == 3


def _after(opened: list[weakref.ref[Any]], load: Callable[..., Any]) -> Callable[..., Any]:
    def loaded(*args: Any, **kwargs: Any) -> Any:
        assert not [model for model in opened if model() is not None]
        return load(*args, **kwargs)

    return loaded


def test_the_same_run_gives_the_same_bytes(evaluate: Callable[..., Any]):
    torch.manual_seed(1)
    _, first, _ = evaluate()
    torch.manual_seed(2)
    _, second, _ = evaluate()
    for name in ("results.json", "answers.jsonl", "table.md", "table.txt"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_without_sft_base_is_the_baseline(evaluate: Callable[..., Any]):
    (metrics, _), out, _ = evaluate(stages=("reward", "ppo"), sft={"enabled": False})
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert (results["baseline"], results["reference"], results["policies"]) == ("base", "base", ["base", "ppo"])
    assert {"win_rate/gold", "kl/ppo", "difference/relevance"} <= set(metrics)
    assert "PPO - base" in (out / "table.txt").read_text(encoding="utf-8")


def test_without_ppo_base_and_sft_are_shown(evaluate: Callable[..., Any]):
    (metrics, _), out, _ = evaluate(stages=("sft", "reward"), ppo={"enabled": False})
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["policies"] == ["base", "sft"]
    assert "win_rate" in results["measures"]["base"]
    assert not any(name.startswith("win_rate") for name in metrics)
    assert "   base (" in (out / "table.txt").read_text(encoding="utf-8")


def test_a_scratch_base_is_rebuilt_from_the_seed(evaluate: Callable[..., Any]):
    scratch = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    model = {"name_or_path": None, "init": "scratch", "scratch": scratch}
    (metrics, _), out, _ = evaluate(model=model, sft={"max_length": 64})
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["policies"] == ["base", "sft", "ppo"]
    assert metrics["kl/base"] != 0


def test_prompts_do_not_depend_on_seed_or_order_of_the_file(run_dir: Path, tmp_path: Path):
    encoder = ChatEncoder(tiny_tokenizer())
    heldout = run_dir / "data" / "prompts" / "heldout.jsonl"
    backwards = tmp_path / "heldout.jsonl"
    backwards.write_text("\n".join(reversed(heldout.read_text().splitlines())) + "\n")
    first, _ = evaluation_prompts(heldout, encoder, config_of(run_dir, run={"seed": 1}), 64)
    second, _ = evaluation_prompts(backwards, encoder, config_of(run_dir, run={"seed": 2}), 64)
    more, _ = evaluation_prompts(heldout, encoder, config_of(run_dir, eval={"num_prompts": 12}), 64)
    assert first == second == more[:8]
    file_order = [json.loads(line)["prompt"][0]["content"] for line in heldout.read_text().splitlines()[:8]]
    assert [prompt["messages"][0].content for prompt in first] != file_order


def test_too_few_prompts_are_a_data_error(run_dir: Path):
    path = run_dir / "data" / "prompts" / "heldout.jsonl"
    with pytest.raises(DataError) as caught:
        evaluation_prompts(path, ChatEncoder(tiny_tokenizer()), config_of(run_dir), 3)
    assert caught.value.where == str(path)


def test_equal_answers_are_scored_once_and_names_are_made_unique(evaluate: Callable[..., Any], run_dir: Path):
    encoder = ChatEncoder(tiny_tokenizer())
    config = config_of(run_dir)
    prompts, _ = evaluation_prompts(
        run_dir / "data" / "prompts" / "heldout.jsonl", encoder, config, config.ppo.max_prompt_length
    )
    same, other = Completion("aaa", (1, 2), True), Completion("bb", (3,), False)
    answers = {"sft": [same] * 8, "ppo": [same] * 7 + [other]}
    sections = named_apart([*config.eval.scorers[2:3], *config.eval.scorers[2:3]])
    assert [section.name for section in sections] == ["length", "length-2"]
    ctx = StageContext(config, run_dir, {}, Recorder())
    result = judge(sections[1], ctx, torch.device("cpu"), prompts, answers)
    assert result.scorer == "length-2"
    assert result.scores == {"sft": [3.0] * 8, "ppo": [3.0] * 7 + [2.0]}
    assert sys.modules["user_scores"].calls == [9]


def test_best_of_n_takes_the_answer_that_the_reward_prefers(evaluate: Callable[..., Any]):
    (metrics, _), out, _ = evaluate(eval={"policies": ["sft", "bon"], "best_of_n": 8})
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert list(results["measures"]) == ["sft", "bon"]
    assert metrics["mean/bon/reward_model"] > metrics["mean/sft/reward_model"]
    assert metrics["kl/bon"] == pytest.approx(best_of_n_kl(8))
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["answers"]["bon"]["text"] is not None for row in rows)
    assert "best of n" in (out / "table.md").read_text(encoding="utf-8")
    assert f"Best of n, on {len(rows)} prompts:" in (out / "table.txt").read_text(encoding="utf-8")
    curve = results["best_of_n"]
    assert curve["prompts"] == len(rows)
    assert [point["n"] for point in curve["points"]] == [1, 2, 4, 8]
    gains = [point["optimized"]["value"] for point in curve["points"]]
    assert gains == sorted(gains)
    assert gains[-1] == pytest.approx(metrics["mean/bon/reward_model"])
    independent = {scorer["name"] for scorer in results["scorers"] if scorer["role"] == "independent"}
    assert independent
    for name in independent:
        assert all(name in point["judged"] for point in curve["points"])
        assert curve["points"][-1]["judged"][name]["value"] == pytest.approx(metrics[f"mean/bon/{name}"])


def test_the_best_is_the_first_of_the_highest():
    answers = [
        [Completion.of(f"{number}{place}", (number, place), finished=True) for place in range(3)] for number in range(2)
    ]
    chosen = Candidates(answers, [[1.0, 0.0, 2.0], [1.0, 3.0, 1.0]]).best()
    assert chosen == [answers[0][0], answers[1][1], answers[0][2]]
    assert best_of_n_kl(2) == pytest.approx(math.log(2) - 0.5)


def test_the_curve_is_the_mean_over_all_subsets_of_the_candidates():
    proxy, judged = [[3.0, 1.0], [1.0, 2.0], [2.0, 4.0], [0.0, 3.0]], [[1.0, 5.0], [7.0, 2.0], [4.0, 0.0], [9.0, 1.0]]
    curve = Candidates([[Completion("", (), True)] * 2] * 4, proxy).curve({"gold": judged}, 100)
    assert [point["n"] for point in curve["points"]] == [1, 2, 4]
    for point in curve["points"]:
        chosen = [
            (max(subset, key=lambda n: proxy[n][place]), place)
            for place in range(2)
            for subset in itertools.combinations(range(4), point["n"])
        ]
        for scores, estimated in ((proxy, point["optimized"]), (judged, point["judged"]["gold"])):
            assert estimated["value"] == pytest.approx(fmean(scores[n][place] for n, place in chosen))
        assert point["kl"] == {"value": best_of_n_kl(point["n"])}
    assert sizes(2) == [1, 2]
    assert sizes(48) == [1, 2, 4, 8, 16, 32, 48]
    assert sizes(64)[-2:] == [32, 64]
