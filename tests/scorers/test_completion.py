"""The answer as scorers read it: no thought unless they ask for it, and no end that was never reached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

from pipelines.config.model_section import ModelSection
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.data.rows import Message
from pipelines.models.forward import TokenBatch
from pipelines.models.reward_model import TextRewardModel, TokenRewardModel
from pipelines.models.text_classifier import TextClassifier
from pipelines.ppo.rollout import RoleReward
from pipelines.scorers import Completion, sampled_completion
from pipelines.scorers.classifier import ClassifierScorer
from pipelines.scorers.function import FunctionScorer
from pipelines.scorers.reward_model_scorer import RewardModelScorer, row_of
from tests.ppo.test_update import make
from tests.tiny import CHAT_TEMPLATE, tiny_llama, tiny_tokenizer

PROMPT = (Message(role="user", content="hello world"),)
THOUGHT = "<think>\nthe cat\n</think>\n\n"


@pytest.mark.parametrize(
    ("text", "opened", "thought"),
    [
        ("fine", False, ""),
        ("<think>a b</think>\n\nfine", False, "<think>a b</think>\n\n"),
        ("\n<think>\n\n</think>\n\nfine", False, "\n<think>\n\n</think>\n\n"),
        ("a b</think>\nfine", True, "a b</think>\n"),
        ("a b</think>\nfine", False, "a b</think>\n"),
        ("<think>a b", False, "<think>a b"),
        ("a b", True, "a b"),
        ("[THINK]a[/THINK]fine", False, "[THINK]a[/THINK]"),
        ("use <think> and </think> as marks", False, ""),
        ("<think>a</think>fine</think>", False, "<think>a</think>"),
        ("", False, ""),
    ],
)
def test_a_thought_is_no_part_of_the_answer(text: str, opened: bool, thought: str) -> None:
    completion = Completion.of(text, (1, 2), finished=True, opened=opened)
    assert (completion.thought, completion.text) == (thought, text.removeprefix(thought))
    assert completion.read(thoughts=True) == text
    assert completion.read(thoughts=False) == completion.text


def test_a_template_that_opens_the_thought_is_seen_in_the_prompt() -> None:
    """Without it a thought that was cut at the limit would be the answer."""
    plain = tiny_tokenizer()
    opening = tiny_tokenizer(
        template=CHAT_TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")
    )
    for tokenizer, expected in ((plain, ""), (opening, "the cat")):
        encoder = ChatEncoder(tokenizer)
        ids = tokenizer("the cat", add_special_tokens=False)["input_ids"]
        later = (*PROMPT, Message(role="assistant", content="a"), Message(role="user", content="b"))
        for prompt in (PROMPT, later):
            completion = sampled_completion(encoder, encoder.prompt(prompt), ids, finished=False)
            assert completion.thought == expected
            assert completion.read(thoughts=True) == "the cat"


@pytest.mark.parametrize("read_thoughts", [False, True])
def test_functions_and_classifiers_read_thoughts_only_if_asked(read_thoughts: bool) -> None:
    completion = Completion.of(THOUGHT + "fine", (), finished=True)
    seen: list[str] = []

    def score(prompts: Any, completions: list[str]) -> list[float]:
        seen.extend(completions)
        return [1.0]

    FunctionScorer("f", score, "a:f", read_thoughts=read_thoughts)([PROMPT], [completion])
    assert seen == [THOUGHT + "fine" if read_thoughts else "fine"]
    tokenizer = tiny_tokenizer()
    section = ScorerSection(kind="classifier", path="x", read_thoughts=read_thoughts)
    scorer = ClassifierScorer("c", classifier(tokenizer), tokenizer, section)
    same = Completion(seen[0], (), finished=True)
    assert scorer([PROMPT], [completion]) == scorer([PROMPT], [same])
    assert scorer([PROMPT], [completion]) != scorer([PROMPT], [Completion("other", (), finished=True)])


def classifier(tokenizer: PreTrainedTokenizerFast) -> LlamaForSequenceClassification:
    config = tiny_llama(tokenizer).config
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    torch.manual_seed(3)
    model = LlamaForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.score.weight)
    return model


def test_the_runs_reward_model_reads_the_answer_as_it_was_trained_to() -> None:
    tokenizer = tiny_tokenizer()
    encoder = ChatEncoder(tokenizer)
    prompt: EncodedPrompt = {"prompt_ids": encoder.prompt(PROMPT), "messages": PROMPT}
    bare = encoder.answer(PROMPT, "fine")
    thinking = encoder.answer(PROMPT, THOUGHT + "fine")
    roles, eos = make("llama", "full"), tokenizer.eos_token_id

    def score(ids: list[int], reads: ChatEncoder | None) -> float:
        batch = TokenBatch.of([prompt["prompt_ids"]], [ids], eos)
        return RoleReward(roles, 4, (eos,), encoder=reads)(batch, [prompt], [ids]).scores.item()

    assert score(thinking, encoder) == pytest.approx(score(bare, None), abs=1e-5)
    assert score(thinking[:-1], encoder) == pytest.approx(score(bare[:-1], None), abs=1e-5)
    assert abs(score(thinking, None) - score(bare, None)) > 1e-4
    model = TokenRewardModel(tiny_llama(tokenizer), encoder, ModelSection(), 4)
    for thoughts, finished, expected in (
        (False, True, bare),
        (False, False, bare[:-1]),
        (True, True, thinking),
        (True, False, thinking[:-1]),
    ):
        ids = thinking if finished else thinking[:-1]
        sampled = sampled_completion(encoder, prompt["prompt_ids"], ids, finished=finished)
        row = row_of(model, PROMPT, sampled, same_run=True, thoughts=thoughts)
        assert row.ids == [*prompt["prompt_ids"], *expected]


CLOSES = "{% for m in messages %}<|{{ m.role }}|>{{ m.content TRIM}}{{ eos_token }}\n{% endfor %}"


@pytest.mark.parametrize(
    "template", [None, CHAT_TEMPLATE, CLOSES.replace("TRIM", ""), CLOSES.replace("TRIM", "| trim ")]
)
@pytest.mark.parametrize("answer", ["the cat sat", " the cat\n", "hello world", ""])
def test_an_answer_that_was_cut_has_no_end(template: str | None, answer: str) -> None:
    tokenizer = tiny_tokenizer(template=template)
    model = TextClassifier("c", classifier(tokenizer), tokenizer)
    finished, cut = (tokenizer.decode(model.encode(PROMPT, answer, finished=end).ids) for end in (True, False))
    assert finished.startswith(cut)
    assert not cut.endswith(tokenizer.eos_token)
    assert cut.rstrip().endswith(answer.strip())
    if template is not None:
        assert finished[len(cut) :].strip() == tokenizer.eos_token
        for scorer in (
            ClassifierScorer("c", model.model, tokenizer, ScorerSection(kind="classifier", path="x")),
            RewardModelScorer("r", TextRewardModel(model, 4), ScorerSection(), same_run=True),
            RewardModelScorer("r", TextRewardModel(model, 4), ScorerSection(), same_run=False),
        ):
            done, broken = scorer([PROMPT] * 2, [Completion(answer, (5,), end) for end in (True, False)])
            assert abs(done - broken) > 1e-4


def test_a_decoder_without_a_template_gets_no_eos_either() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer(template=None)
    eos = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", eos)])
    model = TextClassifier("c", classifier(tokenizer), tokenizer)
    finished, cut = (model.encode(PROMPT, "fine", finished=end).ids for end in (True, False))
    assert finished == [*cut, eos]


def test_a_function_may_ask_which_answers_ended() -> None:
    seen: list[Any] = []

    def with_finished(prompts: Any, completions: Any, finished: Any = None) -> list[float]:
        seen.append(finished)
        return [0.0] * len(completions)

    def keywords(prompts: Any, completions: Any, **rest: Any) -> list[float]:
        seen.append(rest)
        return [0.0] * len(completions)

    both = [Completion("a", (), finished=True), Completion("b", (), finished=False)]
    for function in (with_finished, keywords):
        FunctionScorer("f", function, "a:f")([PROMPT] * 2, both)
    assert seen == [[True, False], {}]
