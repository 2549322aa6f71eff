"""A sum with the run's reward model through all stages, and that model as an outside source of scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.chain.chain import run_chain
from pipelines.chain.table import STAGES
from pipelines.config import Config, dump_config
from pipelines.config.data_section import Source
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.rows import Message
from pipelines.errors import UsageError
from pipelines.models.policies import open_tokenizer
from pipelines.models.published_reward import PublishedReward, Scale
from pipelines.ppo import stage as ppo_stage
from pipelines.ppo.rollout import TextReward
from pipelines.ppo.stage import normalization_of_logit
from pipelines.ppo.train import Training
from pipelines.ppo.types import Normalization
from pipelines.run.directory import RunDir
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import StageContext
from pipelines.scorers import Completion, load_scorer
from pipelines.scorers.reward_model_scorer import RewardModelScorer
from pipelines.scorers.score_file import context_of_run, read_answers, score_rows
from tests.tiny import save_pair, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
WORDS = ["cat", "dog", "ball", "story", "mat", "world"]
# a closing newline: a plain classifier would read its score there, and not at the EOS
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SUM = {
    "kind": "sum",
    "parts": [{"kind": "run"}, {"kind": "length", "target": 3, "weight": 0.5}, {"kind": "repetition", "weight": 2.0}],
}


@pytest.fixture(scope="module", params=["full", "lora"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Config, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = tiny_tokenizer(template=TEMPLATE)
    pairs = [
        {"prompt": f"tell me of {a} and {b}", "chosen": f"the {a} likes {b}", "rejected": f"no {b}"}
        for a in WORDS
        for b in WORDS
        if a != b
    ]
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    small = {"max_length": 64, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    config = Config.model_validate(
        {
            "run": {"device": "cpu"},
            "model": {
                "name_or_path": str(save_pair(tiny_llama(tokenizer), tokenizer, folder / "base")),
                "use_peft": request.param == "lora",
            },
            "data": {"comparisons": str(rows), "eval_fraction": 0.2},
            "sft": small,
            "reward": {**small, "normalization_prompts": 4},
            "ppo": {
                "reward": SUM,
                "total_episodes": 8,
                "rollout_batch_size": 8,
                "num_mini_batches": 2,
                "num_ppo_epochs": 1,
                "max_prompt_length": 32,
                "response_length": 6,
                "num_eval_prompts": 2,
            },
            "eval": {"num_prompts": 4, "bootstrap_samples": 100},
        }
    )
    run_dir = RunDir(folder / "run")
    run_dir.create()
    with run_dir.lock():
        run_chain(STAGES, config, run_dir, SilentReporter())
    assert run_dir.config_path.read_text() == dump_config(config)
    return run_dir, config, rows


def test_ppo_logs_and_eval_shows_every_part(run: tuple[RunDir, Config, Path]):
    line = json.loads((run[0].stage("ppo") / "metrics.jsonl").read_text().splitlines()[0])
    total = line["scores/reward_model"] + 0.5 * line["scores/length"] + 2 * line["scores/repetition"]
    assert line["objective/scores"] == pytest.approx(total, abs=1e-4)
    assert line["scores/length"] == pytest.approx(-max(0.0, line["val/response_length"] - 3) / 3, abs=0.35)
    assert line["scores/length"] < 0
    (scorer,) = json.loads((run[0].stage("eval") / "results.json").read_text())["scorers"]
    assert scorer["parts"] == ["reward_model", "length", "repetition"]


def test_the_published_model_scores_for_others_as_the_run_does(run: tuple[RunDir, Config, Path]):
    run_dir, config, rows = run
    encoder = ChatEncoder(open_tokenizer(run_dir.stage("sft"), config.model))
    prompts, own, foreign = [], [], []
    for row in read_answers(Source(path=str(rows)))[:5]:
        for finished in (True, False):
            ids = encoder.answer(row.prompt, row.answers["chosen"])
            prompts.append(row.prompt)
            own.append(Completion(row.answers["chosen"], tuple(ids if finished else ids[:-1]), finished))
            foreign.append(Completion(row.answers["chosen"], (1, 2, 3), finished))
    context = context_of_run(config, run_dir)
    expected = load_scorer(ScorerSection(), context, CPU)(prompts, own)
    path = str(run_dir.stage("reward") / "model")
    published = load_scorer(ScorerSection(kind="classifier", path=path), context_of_run(Config(), None), CPU)
    assert published(prompts, foreign) == pytest.approx(expected, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3  # the EOS counts
    with pytest.raises(UsageError) as caught:
        load_scorer(ScorerSection(kind="classifier", path=path, label="bad"), context, CPU)
    assert caught.value.where == "label"


def test_a_scored_file_holds_what_ppo_would_see(run: tuple[RunDir, Config, Path]):
    run_dir, config, rows = run
    found = score_rows(
        config.ppo.reward,
        read_answers(Source(path=str(rows))),
        context_of_run(config, run_dir),
        SilentReporter(),
        as_policy=True,
    )
    first = found["rows"][0]
    assert first["place"] == f"{rows}:1"
    encoder = ChatEncoder(open_tokenizer(run_dir.stage("sft"), config.model))
    row = read_answers(Source(path=str(rows)))[0]
    tokens = len(encoder.answer(row.prompt, row.answers["chosen"]))
    assert first["parts"]["length"]["chosen"] == pytest.approx(-max(0, tokens - 3) / 3)
    parts: dict[str, Any] = first["parts"]
    total = parts["reward_model"]["chosen"] + 0.5 * parts["length"]["chosen"] + 2 * parts["repetition"]["chosen"]
    assert first["scores"]["chosen"] == pytest.approx(total)
    assert found["summary"]["answers"]["rejected"]["n"] == len(found["rows"]) == 30


def test_a_part_of_a_sum_is_the_role_and_the_value_model_starts_from_it(
    run: tuple[RunDir, Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No second copy is loaded; the scores are those of one; the value model predicts the part's share of the sum."""
    run_dir, config, _ = run
    context = context_of_run(config, run_dir)
    outside = load_scorer(config.ppo.reward, context, CPU)
    monkeypatch.setattr(RewardModelScorer, "of_run", lambda *_, **__: pytest.fail("a second copy was loaded"))
    reward: list[TextReward] = []

    class Stopped(Exception): ...

    def stop(training: Training) -> None:
        assert isinstance(training.context.reward, TextReward)
        reward.append(training.context.reward)
        first = training.context.roles.value.head
        scale = PublishedReward.read(run_dir.stage("reward")).scale()
        scores = training.context.roles.reward.head.weight / scale.std
        torch.testing.assert_close(first.weight, scores)
        assert first.bias.item() == pytest.approx(-scale.mean / scale.std, rel=1e-5)
        raise Stopped

    monkeypatch.setattr(Training, "run", stop)
    inputs = {name: run_dir.stage(name) for name in ("data/prompts", "sft", "reward")}
    with pytest.raises(Stopped):
        ppo_stage.run(StageContext(config, run_dir.root / "ppo.partial", inputs, SilentReporter()))
    encoder = ChatEncoder(open_tokenizer(run_dir.stage("sft"), config.model))
    prompts, completions = [], []
    for number, word in enumerate(WORDS):
        prompts.append((Message(role="user", content=f"tell me of {word}"),))
        ids = encoder.answer(prompts[-1], f"the {word} " * (1 + number))
        completions.append(Completion(encoder.decode(ids), tuple(ids[: -(number % 2) or None]), number % 2 == 0))
    expected, expected_parts = outside.with_parts(prompts, completions)
    scores, parts = reward[0].scorer.with_parts(prompts, completions)
    assert scores == pytest.approx(expected, abs=1e-4)
    assert parts.keys() == expected_parts.keys()
    assert parts["reward_model"] == pytest.approx(expected_parts["reward_model"], abs=1e-4)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"kind": "run"}, Normalization(1.0, 2.0)),
        ({"kind": "run", "output": "probability"}, None),
        ({"kind": "sum", "parts": [{"kind": "run"}, {"kind": "length", "target": 3}]}, Normalization(3.0, 4.0)),
        ({"kind": "sum", "parts": [{"kind": "run", "weight": 2.0}]}, Normalization(3.0, 2.0)),
        ({"kind": "sum", "parts": [{"kind": "run", "weight": -2.0}]}, Normalization(3.0, -2.0)),
        ({"kind": "sum", "parts": [{"kind": "run", "normalize": False}]}, Normalization(0.0, 1.0)),
        ({"kind": "sum", "parts": [{"kind": "run"}, {"kind": "run", "normalize": False}]}, Normalization(0.6, 0.8)),
        ({"kind": "sum", "parts": [{"kind": "run", "weight": 0.0}]}, None),
        ({"kind": "sum", "parts": [{"kind": "run", "output": "logprob"}]}, None),
        ({"kind": "sum", "parts": [{"kind": "sum", "parts": [{"kind": "run"}]}]}, None),
        ({"kind": "ensemble", "parts": [{"kind": "run"}, {"kind": "length", "target": 3}]}, None),
    ],
)
def test_by_which_scale_the_logit_enters_the_score(source: dict[str, Any], expected: Normalization | None):
    class Published:
        def scale(self, output: str) -> Scale:
            return Scale(3.0, 4.0)

    section = ScorerSection.model_validate(source)
    told = normalization_of_logit(section, Published(), Normalization(1.0, 2.0))  # type: ignore[arg-type]
    assert (told is None) is (expected is None)
    if told is not None and expected is not None:
        assert (told.mean, told.std) == pytest.approx((expected.mean, expected.std))
    assert normalization_of_logit(section, None, Normalization()) is None
