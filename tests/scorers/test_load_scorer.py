"""One door for every kind; the run's reward model and the gold scorer behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers import LlamaForSequenceClassification

from pipelines.config import Config
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.encode import ChatEncoder
from pipelines.data.rows import Message
from pipelines.errors import ArtifactError, UsageError
from pipelines.scorers import Completion, ScorerWithParts, load_scorer, scorer_name
from pipelines.tasks import load_task
from tests.tiny import save_pair, tiny_bert, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
PROMPT = (Message(role="user", content="how are you today"),)


@dataclass(frozen=True)
class Context:
    config: Config = field(default_factory=Config)
    inputs: Mapping[str, Path] = field(default_factory=dict)


def test_the_runs_reward_model_reads_prompt_and_ids_as_they_are(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    config = tiny_llama(tokenizer).config
    config.num_labels = 1
    torch.manual_seed(1)
    model = LlamaForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.score.weight)
    save_pair(model, tokenizer, tmp_path / "reward" / "model")
    told: list[int] = []
    scorer = load_scorer(
        ScorerSection(batch_size=2), Context(inputs={"reward": tmp_path / "reward"}), CPU, progress=told.append
    )
    prompt = ChatEncoder(tokenizer).prompt(PROMPT)
    words = tokenizer("thank you", add_special_tokens=False)["input_ids"]
    answers = [(*words, tokenizer.eos_token_id), tuple(words), (words[0],)]
    with torch.no_grad():
        # without pads HF reads the last token: the EOS where there is one, else the last word
        expected = [model(input_ids=torch.tensor([[*prompt, *ids]])).logits.item() for ids in answers]
    completions = [Completion("thank you", ids, finished=ids[-1] == tokenizer.eos_token_id) for ids in answers]
    scores = scorer([PROMPT] * 3, completions)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len(set(scores)) == 3
    assert sum(told) == 3


def test_without_a_reward_stage_there_is_no_run_scorer():
    with pytest.raises(ArtifactError, match="no reward model"):
        load_scorer(ScorerSection(), Context(), CPU)


def test_gold_gives_the_tasks_utility_and_its_attributes():
    config = Config.model_validate({"data": {"task": {"name": "support"}}, "reward": {"enabled": True}})
    scorer = load_scorer(ScorerSection(kind="gold"), Context(config), CPU)
    task = load_task("support")
    probe = next(iter(task.probes(1, 0)))
    completions = [Completion(probe.good, (), True), Completion(probe.spoiled, (), True)]
    assert isinstance(scorer, ScorerWithParts)
    scores, parts = scorer.with_parts([probe.prompt] * 2, completions)
    assert scores == scorer([probe.prompt] * 2, completions)
    assert scores[0] > scores[1]
    assert set(parts) == set(task.attributes)
    assert parts["relevance"][0] == task.gold(probe.prompt, probe.good)["relevance"]


def test_gold_without_a_task_is_refused():
    with pytest.raises(UsageError) as caught:
        load_scorer(ScorerSection(kind="gold"), Context(), CPU)
    assert caught.value.where == "data.task"


def test_functions_and_classifiers_come_through_the_same_door(tmp_path: Path):
    tokenizer = tiny_tokenizer(template=None)
    save_pair(tiny_bert(tokenizer), tokenizer, tmp_path / "bert")
    completion = [Completion("fine", (), True)]
    classifier = load_scorer(ScorerSection(kind="classifier", path=str(tmp_path / "bert")), Context(), CPU)
    function = load_scorer(ScorerSection(kind="function", function="builtins:zip"), Context(), CPU)
    assert classifier.name == "bert"
    assert function.name == "zip"
    assert len(classifier([PROMPT], completion)) == 1


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (ScorerSection(), "reward_model"),
        (ScorerSection(name="mine"), "mine"),
        (ScorerSection(kind="function", function="a.b:score"), "score"),
        (ScorerSection(kind="classifier", path="owner/nice-model"), "nice-model"),
        (ScorerSection(kind="gold"), "gold"),
    ],
)
def test_names(section: ScorerSection, name: str):
    assert scorer_name(section) == name


def test_the_door_opens_without_torch():
    import subprocess
    import sys

    code = "import sys, pipelines.scorers; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
