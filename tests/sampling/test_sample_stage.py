"""The sample stage on tiny models: what it writes, who answers, what is drawn again; interruptions leave no mark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.chain.chain import run_chain
from pipelines.chain.table import with_data_of
from pipelines.config import Config
from pipelines.errors import ArtifactError, ConflictError, DataError, UsageError
from pipelines.labels.label_types import Task
from pipelines.labels.tasks_file import read_tasks
from pipelines.models.adapters import DEFAULT, add_adapter, lora_config
from pipelines.models.base_ref import BaseRef
from pipelines.models.policies import open_policy
from pipelines.models.publish import publish_model
from pipelines.run.directory import RunDir
from pipelines.run.manifest import Manifest
from pipelines.run.reporting import SilentReporter
from pipelines.run.stage import StageContext
from pipelines.sampling import sampler
from pipelines.sampling import stage as sample
from pipelines.sampling.sampler import RepetitionFilter
from tests.models.helpers import outside_base, run_stage, write_data
from tests.tiny import save_pair, tiny_llama, tiny_tokenizer

WORDS = ["cat", "dog", "red ball", "world", "story", "mat", "day", "kind answer", "short story", "1 2 3"]


def prompt(text: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": text}]}


SCALE = [{"name": "overall", "kind": "scale"}]
PROMPTS = [f"say {word} {number}" for word in WORDS for number in range(2)]


class Recorder(SilentReporter):
    """Keeps what it was told, and can act when so many completions are drawn."""

    def __init__(self, at: int = 0, act: Callable[[], None] | None = None) -> None:
        self.at, self.act, self.done, self.left = at, act, 0, 0
        self.words: list[str] = []
        self.labels: list[str] = []

    @contextmanager
    def task(self, label: str, total: int, done: int = 0) -> Iterator[Recorder]:
        self.labels.append(label)
        self.left = total - done
        yield self

    def advance(self, steps: int = 1, **fields: float) -> None:
        before, self.done = self.done, self.done + steps
        if self.act is not None and before < self.at <= self.done:
            self.act()

    def info(self, text: str) -> None:
        self.words.append(text)

    warn = info


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return outside_base(tmp_path_factory.mktemp("base") / "base")


def config_of(base: Path, model: dict[str, Any] | None = None, **sections: Any) -> Config:
    given = {"num_completions": 3, "max_new_tokens": 6, "max_prompt_length": 40, "batch_size": 4}
    feedback = {"source": "human", "sample": given | sections.pop("sample", {})}
    if "questions" in sections:
        feedback["label"] = {"questions": sections.pop("questions")}
    return Config.model_validate(
        {
            "run": {"device": "cpu", "threads": 1},
            "model": {"name_or_path": str(base)} | (model or {}),
            "sft": {"enabled": False},
            "feedback": feedback,
            **sections,
        }
    )


def run_dir_with(root: Path, *stages: str) -> dict[str, Path]:
    """Prompts, 3 of 20 held out, and inputs of a stage by their roles."""
    write_data(root, "prompts", [prompt(text) for text in PROMPTS[3:]], [prompt(text) for text in PROMPTS[:3]])
    return {"data/prompts": root / "data" / "prompts", **{name: root / name for name in stages}}


def run(root: Path, config: Config, *stages: str, reporter: SilentReporter | None = None, name: str = "sample") -> Any:
    """Metrics, tasks and context of the stage."""
    inputs = run_dir_with(root, *stages)
    out = root / f"{name}.partial"
    out.mkdir(parents=True, exist_ok=True)
    ctx = StageContext(config, out, inputs, reporter or SilentReporter())
    metrics = sample.run(ctx)
    return metrics, read_tasks(out / "tasks.jsonl"), ctx


def texts(task: Task) -> list[str]:
    return [answer.text for answer in task.answers]


def test_every_prompt_becomes_a_task_of_distinct_answers_and_no_label(base: Path, tmp_path: Path):
    metrics, found, ctx = run(tmp_path, config_of(base))
    assert {task.prompt[0].content for task in found.tasks.values()} == set(PROMPTS)
    assert found.labels == []
    assert [question.kind for question in found.questions] == ["ranking"]
    for task in found.tasks.values():
        assert {answer.model for answer in task.answers} == {"base"}
        assert task.source == "round-1"
        distinct = RepetitionFilter(0.95)
        assert all(distinct.add(text) for text in texts(task))
    assert metrics["prompts"] == metrics["tasks"] == 20
    assert metrics["completions"] == 60 - metrics["left_out"] == sum(len(t.answers) for t in found.tasks.values())
    assert metrics["drawn"] == 60 + metrics["redrawn"]
    assert metrics["drawn"] == metrics["completions"] + metrics["blank"] + metrics["repeated"]
    assert 1 <= metrics["mean_tokens"] <= 6
    assert metrics["tokens_per_second"] > 0
    assert ctx.notes["heldout_prompts"] == 3
    json.dumps(metrics, allow_nan=False)


def test_the_answers_are_what_the_model_gives_to_the_prompt(base: Path, tmp_path: Path):
    """Near temperature 0 sampling is greedy: every answer is the likeliest one, worked out by plain transformers."""
    config = config_of(base, sample={"num_completions": 1, "temperature": 1e-4, "redraws": 0}, questions=SCALE)
    _, found, _ = run(tmp_path, config)
    model, tokenizer = tiny_llama(tiny_tokenizer()).eval(), tiny_tokenizer()
    for task in found.tasks.values():
        text = f"<|user|>{task.prompt[0].content}<|assistant|>"
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            output = model.generate(input_ids=ids, do_sample=False, max_new_tokens=6)
        assert texts(task) == [tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)]


def test_the_progress_counts_what_is_asked_for_and_no_redraw(base: Path, tmp_path: Path):
    reporter = Recorder()
    config = config_of(base, sample={"temperature": 1e-3, "redraws": 1}, questions=SCALE)
    metrics, _, _ = run(tmp_path, config, reporter=reporter)
    assert metrics["redrawn"] > 0
    assert reporter.done == reporter.left == 60


def test_num_prompts_and_rounds(base: Path, tmp_path: Path):
    config = config_of(base, sample={"num_prompts": 7, "num_completions": 2})
    metrics, first, ctx = run(tmp_path, config)
    assert (metrics["prompts"], ctx.notes["heldout_prompts"]) == (7, 1)
    later = StageContext(
        config, tmp_path / "rounds" / "02" / "sample.partial", run_dir_with(tmp_path), SilentReporter()
    )
    later.out.mkdir(parents=True)
    sample.run(later)
    second = read_tasks(later.out / "tasks.jsonl")
    asked = [{task.prompt[0].content for task in found.tasks.values()} for found in (first, second)]
    assert not asked[0] & asked[1]
    assert {task.source for task in second.tasks.values()} == {"round-2"}


def test_prompts_that_come_again_in_a_later_round_are_answered_anew(base: Path, tmp_path: Path):
    config = config_of(base)
    _, first, _ = run(tmp_path, config)
    _, second, _ = run(tmp_path, config, name="rounds/02/sample")
    assert not set(first.tasks) & set(second.tasks)


def test_prompts_that_are_too_long_are_left_out_and_counted(base: Path, tmp_path: Path):
    reporter = Recorder()
    metrics, _, _ = run(tmp_path, config_of(base, sample={"max_prompt_length": 9}), reporter=reporter)
    assert 0 < metrics["too_long"] < 20
    assert metrics["prompts"] == 20 - metrics["too_long"]
    assert any("longer than 9 tokens" in words for words in reporter.words)
    with pytest.raises(DataError, match="no prompt is left"):
        run(tmp_path / "none", config_of(base, sample={"max_prompt_length": 2}))


def test_answers_that_are_mostly_cut_are_pointed_out(base: Path, tmp_path: Path):
    reporter = Recorder()
    metrics, _, _ = run(tmp_path, config_of(base, sample={"max_new_tokens": 2}), reporter=reporter)
    assert metrics["finished_share"] < 0.5
    [line] = [words for words in reporter.words if "cut at 2 tokens" in words]
    assert f"{1 - metrics['finished_share']:.0%} of the completions" in line


def test_raw_text_is_cut_where_ppo_cuts_it(base: Path, tmp_path: Path):
    config = config_of(base, {"chat_template": "none"}, sample={"max_prompt_length": 5}, ppo={"overlong": "cut"})
    metrics, found, _ = run(tmp_path, config)
    assert metrics["too_long"] == 0
    tokenizer = tiny_tokenizer(template=None)
    asked = [task.prompt[0].content for task in found.tasks.values()]
    assert all(any(whole.startswith(text) for whole in PROMPTS) for text in asked)
    assert max(len(tokenizer(text)["input_ids"]) for text in asked) == 5


def test_a_cut_prompt_keeps_the_side_of_the_whole_one(base: Path, tmp_path: Path):
    config = config_of(base, {"chat_template": "none"}, sample={"max_prompt_length": 4}, ppo={"overlong": "cut"})
    _, found, ctx = run(tmp_path, config)
    sides = json.loads((ctx.out / "sides.json").read_text())
    assert sides.keys() == found.tasks.keys()
    for task in found.tasks.values():
        # two prompts that are the same once they are cut: held out if one of them is
        heldout = any(whole.startswith(task.prompt[0].content) for whole in PROMPTS[:3])
        assert sides[task.id] == ("heldout" if heldout else "train")
    assert sum(side == "heldout" for side in sides.values()) == 4  # both dogs are the same now


def test_new_tokens_that_fill_the_model_are_refused(base: Path, tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        run(tmp_path, config_of(base, sample={"max_new_tokens": 256}))
    assert caught.value.where == "feedback.sample.max_new_tokens"


def test_a_pairwise_question_gets_two_answers_a_task(base: Path, tmp_path: Path):
    questions = [{"name": "better", "kind": "pairwise"}]
    metrics, found, _ = run(tmp_path, config_of(base, sample={"num_completions": 4}, questions=questions))
    assert {len(task.answers) for task in found.tasks.values()} == {2}
    assert metrics["tasks"] > 30


def scripted(monkeypatch: pytest.MonkeyPatch, draws: Sequence[str]) -> list[list[int]]:
    """Every call answers all its prompts with the next words; returns how many prompts each call had."""
    calls: list[list[int]] = []
    tokenizer = tiny_tokenizer()

    def fake(model: Any, prompts: Sequence[Any], **kwargs: Any) -> list[list[int]]:
        own = draws[len(calls)]
        calls.append([len(prompts), kwargs["seed"]])
        parts = own.split("|")
        said = [parts[index % len(parts)] for index in range(len(prompts))]
        return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in said]

    monkeypatch.setattr(sampler, "sample", fake)
    return calls


def one_prompt(root: Path) -> None:
    write_data(root, "prompts", [prompt("hello")], [])


def run_one(root: Path, config: Config) -> Any:
    one_prompt(root)
    out = root / "sample.partial"
    out.mkdir(parents=True)
    ctx = StageContext(config, out, {"data/prompts": root / "data" / "prompts"}, SilentReporter())
    return sample.run(ctx), read_tasks(out / "tasks.jsonl")


def test_repetitions_and_blanks_alone_are_drawn_again_with_other_seeds(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = scripted(monkeypatch, ["cat|Cat!| |dog", "dog|mat", "day"])
    metrics, found = run_one(tmp_path, config_of(base, sample={"num_completions": 4}))
    (task,) = found.tasks.values()
    assert sorted(texts(task)) == ["cat", "day", "dog", "mat"]
    assert [count for count, _ in calls] == [4, 2, 1]
    assert len({seed for _, seed in calls}) == 3
    assert (metrics["drawn"], metrics["redrawn"], metrics["blank"], metrics["repeated"]) == (7, 3, 1, 2)
    assert (metrics["left_out"], metrics["short"], metrics["finished_share"]) == (0, 0, 1.0)
    assert metrics["distinct_share"] == round(4 / 6, 4)


def test_what_stays_a_repetition_is_left_out(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = scripted(monkeypatch, ["cat|dog|cat|cat", "dog", "cat"])
    metrics, found = run_one(tmp_path, config_of(base, sample={"num_completions": 4}))
    (task,) = found.tasks.values()
    assert sorted(texts(task)) == ["cat", "dog"]
    assert (len(calls), metrics["left_out"], metrics["short"], metrics["without_task"]) == (3, 2, 1, 0)


def test_a_model_that_says_one_thing_only_is_refused_for_a_ranking_and_taken_for_a_scale(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scripted(monkeypatch, ["cat"] * 3)
    with pytest.raises(DataError, match="has 2 distinct answers"):
        run_one(tmp_path / "ranking", config_of(base))
    scripted(monkeypatch, ["cat"] * 3)
    _, found = run_one(tmp_path / "scale", config_of(base, questions=SCALE))
    assert [texts(task) for task in found.tasks.values()] == [["cat"]]


def adapter_stage(root: Path, base: Path, stage: str, seed: int) -> dict[str, Any]:
    """Publish a LoRA policy with random weights as `stage`."""
    section = {"use_peft": True, "lora_r": 4}
    config = config_of(base, section)

    def runner(ctx: StageContext) -> dict[str, Any]:
        model = open_policy(None, config.model, torch.device("cpu"))
        wrapped = add_adapter(model, DEFAULT, lora_config(config.model, "CAUSAL_LM"), trainable=True)
        torch.manual_seed(seed)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        outside = BaseRef.of(config)
        publish_model(wrapped, tiny_tokenizer(), ctx.out / "model", base=outside, run_dir=root)
        ctx.notes["base"] = outside.as_dict()
        return {}

    run_stage(root, stage, runner, config)
    return section


def test_several_models_answer_in_an_order_that_does_not_tell_them(base: Path, tmp_path: Path):
    """The base, two adapters on it, and an outside model with another tokenizer."""
    section = adapter_stage(tmp_path, base, "sft", 1)
    adapter_stage(tmp_path, base, "rounds/02/ppo", 2)
    tokenizer = tiny_tokenizer(template=None, bos="<s>", more=("<|odd|>",))
    outside = save_pair(tiny_llama(tokenizer, seed=5), tokenizer, tmp_path / "outside")
    names = ["policy", "sft", "base", str(outside)]
    models = [{"model": name, "num_completions": 1} for name in names]
    config = config_of(base, section, sample={"models": models, "temperature": 0.5})
    inputs = run_dir_with(tmp_path, "sft") | {"policy": tmp_path / "rounds/02/ppo"}
    out = tmp_path / "sample.partial"
    out.mkdir()
    ctx = StageContext(config, out, inputs, SilentReporter())
    metrics = sample.run(ctx)
    found = read_tasks(out / "tasks.jsonl")
    orders = [tuple(answer.model for answer in task.answers) for task in found.tasks.values()]
    assert {name for order in orders for name in order} == {"ppo round 2", "sft", "base", str(outside)}
    assert len(set(orders)) > 5
    assert [one["model"] for one in ctx.notes["models"]] == ["ppo round 2", "sft", "base", str(outside)]
    assert sum(one["completions"] for one in ctx.notes["models"]) == metrics["completions"]
    said = {name: {a.text for t in found.tasks.values() for a in t.answers if a.model == name} for name in orders[0]}
    assert len({frozenset(texts) for texts in said.values()}) == 4, "every model has a voice of its own"


def test_no_model_repeats_what_another_one_said(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    models = [{"model": "base", "num_completions": 2}, {"model": "policy", "num_completions": 1}]
    calls = scripted(monkeypatch, ["cat|dog", "cat", "dog", "day"])
    _, found = run_one(tmp_path, config_of(base, sample={"models": models}))
    (task,) = found.tasks.values()
    assert sorted(texts(task)) == ["cat", "day", "dog"]
    assert [count for count, _ in calls] == [2, 1, 1, 1]


def test_a_model_that_the_run_does_not_have_is_refused(base: Path, tmp_path: Path):
    for name in ("ppo", "sft"):
        with pytest.raises(UsageError) as caught:
            run(tmp_path / name, config_of(base, sample={"models": [{"model": name}]}))
        assert caught.value.where == "feedback.sample.models"


def test_a_model_from_scratch_is_asked_before_any_training(base: Path, tmp_path: Path):
    from pipelines.models.scratch import build_scratch
    from tests.models.helpers import TINY

    tokenizer = tiny_tokenizer()
    model = {"name_or_path": None, "init": "scratch", "scratch": TINY | {"vocab_size": 400}}
    config = config_of(
        base, model, sample={"models": [{"model": "base", "num_completions": 2}]}, sft={"max_length": 64}
    )
    trained = build_scratch(config.model.scratch, tokenizer, 9)
    save_pair(trained, tokenizer, tmp_path / "sft" / "model")
    _, found, _ = run(tmp_path, config, "sft")
    assert {answer.model for task in found.tasks.values() for answer in task.answers} == {"base"}


def test_broken_weights_are_named(base: Path, tmp_path: Path):
    tokenizer = tiny_tokenizer()
    broken = tiny_llama(tokenizer)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    path = save_pair(broken, tokenizer, tmp_path / "broken")
    with pytest.raises(ArtifactError) as caught:
        run(tmp_path, config_of(path))
    assert caught.value.where == "base"


# --- interruptions


class Killed(BaseException):
    """The process is gone: nothing may tidy up after it."""


def kill() -> None:
    raise Killed


def chain(root: Path, config: Config, reporter: SilentReporter | None = None, **kwargs: Any) -> None:
    run_dir = RunDir(root)
    run_dir.create()
    with run_dir.lock():
        run_chain(with_data_of("sample", config), config, run_dir, reporter or SilentReporter(), **kwargs)


def chained(base: Path, folder: Path, **sample: Any) -> Config:
    rows = folder / "prompts.jsonl"
    rows.write_text("".join(json.dumps(prompt(text)) + "\n" for text in PROMPTS))
    models = [{"model": "base", "num_completions": 3}, {"model": "policy", "num_completions": 2, "temperature": 0.7}]
    data = {"prompts": str(rows), "eval_fraction": 0.2}
    return config_of(base, sample={"models": models} | sample, data=data)


def test_killed_anywhere_the_same_command_gives_the_same_bytes(base: Path, tmp_path: Path):
    """20 prompts, 5 a chunk with 3 completions and 8 with 2: chunks end at 15, 30, 45, 60, 76, 92, 100."""
    config = chained(base, tmp_path)
    chain(tmp_path / "never", config)
    never = {path.name: path.read_bytes() for path in (tmp_path / "never" / "sample").iterdir()}
    assert set(never) == {"tasks.jsonl", "sides.json", "completions.jsonl", "manifest.json"}
    for at, chunks in ((14, 0), (16, 1), (61, 4), (99, 6)):
        root = tmp_path / f"killed-{at}"
        shutil.copytree(tmp_path / "never", root)
        shutil.rmtree(root / "sample")
        with pytest.raises(Killed):
            chain(root, config, Recorder(at, kill))
        again = Recorder()
        chain(root, config, again)
        assert again.left == 100 - {0: 0, 1: 15, 4: 60, 6: 92}[chunks]
        assert (again.labels[-1] == "completions, on from the last chunk") is (chunks > 0)
        for name in ("tasks.jsonl", "completions.jsonl"):
            assert (root / "sample" / name).read_bytes() == never[name]
        manifest = Manifest.read(root / "sample")
        assert manifest is not None
        assert manifest.notes.get("resumed_from_step") == (chunks or None)
        assert not list(root.rglob("checkpoints"))


def test_a_signal_lets_the_chunk_end_and_be_kept(base: Path, tmp_path: Path):
    import os
    import signal

    config = chained(base, tmp_path)
    reporter = Recorder(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        chain(tmp_path / "run", config, reporter)
    assert reporter.done == 15
    again = Recorder()
    chain(tmp_path / "run", config, again)
    assert again.left == 85


def test_half_a_line_of_a_killed_write_does_no_harm(base: Path, tmp_path: Path):
    config = chained(base, tmp_path)
    with pytest.raises(Killed):
        chain(tmp_path / "run", config, Recorder(40, kill))
    work = tmp_path / "run" / "sample.partial" / "completions.jsonl"
    with work.open("a") as file:
        file.write('{"model": 0, "pro')
    again = Recorder()
    chain(tmp_path / "run", config, again)
    assert again.left == 70
    chain(tmp_path / "never", config)
    found = [(tmp_path / name / "sample" / "tasks.jsonl").read_bytes() for name in ("run", "never")]
    assert found[0] == found[1]


def test_a_working_file_that_lost_lines_is_drawn_anew(base: Path, tmp_path: Path):
    config = chained(base, tmp_path)
    with pytest.raises(Killed):
        chain(tmp_path / "run", config, Recorder(40, kill))
    work = tmp_path / "run" / "sample.partial" / "completions.jsonl"
    work.write_text(work.read_text().split("\n", 1)[1])
    again = Recorder()
    chain(tmp_path / "run", config, again)
    assert again.left == 100
    assert any("starts again" in words for words in again.words)


def test_other_settings_do_not_go_on_from_an_interruption(base: Path, tmp_path: Path):
    with pytest.raises(Killed):
        chain(tmp_path / "run", chained(base, tmp_path), Recorder(40, kill))
    with pytest.raises(ConflictError, match="temperature"):
        chain(tmp_path / "run", chained(base, tmp_path, temperature=0.5))
