"""Sampling without a run: files in, one file out, interrupted and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config import load_config
from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import Demonstration
from pipelines.errors import ArtifactError, ConflictError, DataError, LockedError, UsageError
from pipelines.labels.tasks_file import read_tasks
from pipelines.models.generate import end_token_ids
from pipelines.run.directory import RunDir
from pipelines.run.reporting import SilentReporter
from pipelines.sampling.sample_file import Form, Request, prepare, sample_file
from pipelines.sampling.sampling_models import from_outside, models_of_run
from tests.models.helpers import outside_base
from tests.sampling.test_sample_stage import Killed, Recorder, adapter_stage, kill
from tests.tiny import save_pair, tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return outside_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def prompts(tmp_path: Path) -> Source:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"say {number}"}) + "\n" for number in range(12)))
    return Source(path=str(path))


def request(
    prompts: Source, out: Path, *models: tuple[str | Path, int], form: Form = "tasks", force: bool = False, **own: Any
) -> Request:
    named = [{"model": str(name), "num_completions": count} for name, count in models]
    values = {"models": named, "max_new_tokens": 5, "batch_size": 4} | own
    flags = {f"feedback.sample.{key}": value for key, value in values.items()}
    config = load_config(None, (), flags | {"run.device": "cpu", "run.threads": 1})
    return Request([prompts], out, form, config, None, force)


def go(wanted: Request, reporter: SilentReporter | None = None) -> dict[str, Any]:
    reporter = reporter or SilentReporter()
    return sample_file(wanted, prepare(wanted, reporter), reporter)


def test_tasks_of_an_outside_model(base: Path, prompts: Source, tmp_path: Path):
    out = tmp_path / "tasks.jsonl"
    found = go(request(prompts, out, (base, 3)))
    tasks = read_tasks(out)
    assert found["tasks"] == len(tasks.tasks) == 12
    assert tasks.questions == ()
    assert {answer.model for task in tasks.tasks.values() for answer in task.answers} == {str(base)}
    assert {task.source for task in tasks.tasks.values()} == {"prompts.jsonl"}
    assert found["sources"][0]["prompts"] == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.jsonl", "tasks.jsonl"]


def test_bad_prompts_are_left_out_on_request(base: Path, prompts: Source, tmp_path: Path):
    with Path(prompts.path).open("a") as file:
        file.write('{"prompt": 5}\n')
    wanted = request(prompts, tmp_path / "tasks.jsonl", (base, 2))
    with pytest.raises(DataError) as caught:
        prepare(wanted, SilentReporter())
    assert str(caught.value.where).endswith(":13")
    dropping = wanted.config.model_copy(update={"data": wanted.config.data.model_copy(update={"on_bad_row": "drop"})})
    assert len(prepare(replace(wanted, config=dropping), SilentReporter()).asked) == 12


def test_demonstrations_are_rows_that_sft_reads(base: Path, prompts: Source, tmp_path: Path):
    out = tmp_path / "demos.jsonl"
    found = go(request(prompts, out, (base, 2), form="demonstrations"))
    rows = [outcome.row for outcome in SourceReader(Source(path=str(out)))]
    assert len(rows) == found["rows"] == found["completions"] > 12
    assert all(isinstance(row, Demonstration) and row.messages[0].content.startswith("say ") for row in rows)
    assert {tuple(json.loads(line)) for line in out.read_text().splitlines()} == {("messages",)}


def test_killed_it_goes_on_to_the_same_bytes(base: Path, prompts: Source, tmp_path: Path):
    never, killed = tmp_path / "never.jsonl", tmp_path / "killed.jsonl"
    go(request(prompts, never, (base, 4)))
    wanted = request(prompts, killed, (base, 4))
    with pytest.raises(Killed):
        go(wanted, Recorder(20, kill))
    assert not killed.exists()
    assert prepare(wanted, SilentReporter()).resumes == 1
    again = Recorder()
    go(wanted, again)
    assert again.left == 48 - 16
    assert killed.read_bytes() == never.read_bytes()
    assert not wanted.work.exists()


def test_killed_while_it_replaces_a_file_it_goes_on_too(base: Path, prompts: Source, tmp_path: Path):
    out = tmp_path / "tasks.jsonl"
    out.write_text("old\n")
    wanted = request(prompts, out, (base, 4), force=True)
    with pytest.raises(Killed):
        go(wanted, Recorder(20, kill))
    assert out.read_text() == "old\n"
    again = Recorder()
    go(wanted, again)
    assert again.left == 48 - 16
    assert len(read_tasks(out).tasks) == 12


def test_other_settings_and_other_prompts_do_not_go_on(base: Path, prompts: Source, tmp_path: Path):
    out = tmp_path / "tasks.jsonl"
    with pytest.raises(Killed):
        go(request(prompts, out, (base, 4)), Recorder(20, kill))
    with pytest.raises(ConflictError, match=r"sample\.temperature: 1\.0 -> 0\.5"):
        go(request(prompts, out, (base, 4), temperature=0.5))
    with pytest.raises(ConflictError, match="num_completions: 4 -> 3"):
        go(request(prompts, out, (base, 3)))
    lines = Path(prompts.path).read_text()
    Path(prompts.path).write_text(lines + '{"prompt": "one more"}\n')
    with pytest.raises(ConflictError, match="prompts"):
        go(request(prompts, out, (base, 4)))
    Path(prompts.path).write_text(lines)
    again = Recorder()
    go(request(prompts, out, (base, 3), force=True), again)
    assert again.left == 36


def test_a_file_that_is_there_is_not_written_over(base: Path, prompts: Source, tmp_path: Path):
    out = tmp_path / "tasks.jsonl"
    out.write_text("precious\n")
    with pytest.raises(ConflictError) as caught:
        go(request(prompts, out, (base, 2)))
    assert caught.value.where == str(out)
    assert out.read_text() == "precious\n"
    go(request(prompts, out, (base, 2), force=True))
    assert len(read_tasks(out).tasks) == 12


def test_two_processes_do_not_work_on_one_file(base: Path, prompts: Source, tmp_path: Path):
    wanted = request(prompts, tmp_path / "tasks.jsonl", (base, 2))
    place = RunDir(wanted.work)
    place.create()
    with place.lock(), pytest.raises(LockedError):
        go(wanted)


def test_a_stage_of_a_run_is_named_by_its_directory(base: Path, prompts: Source, tmp_path: Path):
    """An adapter, whose base the manifest names; the manifest also says how it is loaded."""
    section = adapter_stage(tmp_path / "run", base, "sft", 3)
    manifest = tmp_path / "run" / "sft" / "manifest.json"
    plain = json.loads(manifest.read_text())
    del plain["sha256"]
    plain["section"] = {"model": {"name_or_path": str(base), **section}}
    manifest.write_text(json.dumps(plain))
    stage = tmp_path / "run" / "sft"
    first = go(request(prompts, tmp_path / "a.jsonl", (stage, 1), temperature=0.01))
    second = go(request(prompts, tmp_path / "b.jsonl", (stage / "model", 1), temperature=0.01))
    bare = go(request(prompts, tmp_path / "c.jsonl", (base, 1), temperature=0.01))
    said = [
        [answer.text for task in read_tasks(Path(found["out"])).tasks.values() for answer in task.answers]
        for found in (first, second, bare)
    ]
    assert said[0] == said[1] != said[2]
    [within_a_run] = models_of_run(request(prompts, tmp_path / "d.jsonl", (stage, 1)).config, {})
    assert (within_a_run.stage_dir, within_a_run.section.name_or_path) == (stage, str(base))


def test_what_is_no_model_is_refused(base: Path, prompts: Source, tmp_path: Path):
    run = tmp_path / "run"
    adapter_stage(run, base, "reward", 3)
    out = tmp_path / "tasks.jsonl"
    with pytest.raises(UsageError) as caught:
        go(request(prompts, out, (run / "reward", 1)))
    assert caught.value.where == str(run / "reward")
    (run / "config.yaml").write_text("{}")
    with pytest.raises(UsageError) as caught:
        go(request(prompts, out, (run, 1)))
    assert caught.value.where == str(run)
    with pytest.raises(ArtifactError) as caught:
        go(request(prompts, out, ("./nowhere", 1)))
    assert caught.value.where == "./nowhere"
    assert not list(tmp_path.glob("tasks.jsonl*"))


def test_a_chat_model_ends_where_its_generation_config_says_but_never_on_bos(tmp_path: Path):
    """As stories260K has it: EOS and BOS are both listed."""
    tokenizer = tiny_tokenizer(bos="<s>", more=("<|end|>",))
    end, bos = tokenizer.convert_tokens_to_ids(["<|end|>", "<s>"])
    model = tiny_llama(tokenizer)
    model.generation_config.eos_token_id = [bos, tokenizer.eos_token_id, end]
    path = save_pair(model, tokenizer, tmp_path / "chat")
    config = request(Source(path="x"), tmp_path, (path, 1)).config
    answerer = from_outside(config.feedback.sample.models[0], config, ())
    opened = answerer.open(torch.device("cpu"))
    assert end_token_ids(opened, answerer.tokenizer(), answerer.stop_tokens) == (tokenizer.eos_token_id, end)
