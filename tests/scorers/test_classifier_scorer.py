"""Outside classifiers: the text they see, the logit that counts, padding, truncation, lost heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertForMultipleChoice,
    BertModel,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pipelines.config import Config
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.rows import Message
from pipelines.errors import ArtifactError, DataError, RlhfError, UsageError
from pipelines.models.text_classifier import TextClassifier, load_text_classifier
from pipelines.scorers import Completion
from pipelines.scorers.classifier import ClassifierScorer
from pipelines.scorers.load_scorer import load_scorer
from pipelines.scorers.score_file import RunContext
from tests.tiny import CHAT_TEMPLATE, save_pair, tiny_bert, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
SECTION = ScorerSection(kind="classifier", path="tiny")
TEXTS = [("hello world", "the cat"), ("please write a short story about a red ball", "no"), ("how", "thank you " * 9)]
PROMPTS = [(Message(role="user", content=prompt),) for prompt, _ in TEXTS]
COMPLETIONS = [Completion(text, (), True) for _, text in TEXTS]


def plain_tokenizer(**kwargs: object) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer(template=None, **kwargs)
    tokenizer.model_max_length = 256
    return tokenizer


def decoder(tokenizer: PreTrainedTokenizerFast, pad: int | None) -> PreTrainedModel:
    config = tiny_llama(tokenizer).config
    config.num_labels, config.pad_token_id = 1, pad
    torch.manual_seed(3)
    model = LlamaForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.score.weight)
    return model


def alone(model: PreTrainedModel, ids: list[int]) -> list[float]:
    """What plain transformers gives for one row."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].tolist()


def test_an_encoder_sees_prompt_and_completion_joined_where_its_tokenizer_knows_no_pairs(tmp_path: Path):
    tokenizer = plain_tokenizer()
    model = tiny_bert(tokenizer).eval()
    save_pair(model, tokenizer, tmp_path / "bert")
    scorer = ClassifierScorer.load("bert", ScorerSection(kind="classifier", path=str(tmp_path / "bert")), CPU)
    expected = [alone(model, tokenizer(f"{prompt}\n{text}")["input_ids"])[0] for prompt, text in TEXTS]
    assert scorer(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)


def test_an_encoder_sees_a_pair_with_segments_where_its_tokenizer_knows_pairs():
    from tokenizers.processors import TemplateProcessing

    tokenizer = plain_tokenizer()
    eos = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A:0 </s>:0", pair="$A:0 </s>:0 $B:1 </s>:1", special_tokens=[("</s>", eos)]
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    model = tiny_bert(tokenizer).eval()
    expected = []
    for prompt, text in TEXTS:
        first, second = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, text))
        ids = torch.tensor([[*first, eos, *second, eos]])
        segments = torch.tensor([[0] * (len(first) + 1) + [1] * (len(second) + 1)])
        with torch.no_grad():
            expected.append(model(input_ids=ids, token_type_ids=segments).logits.item())
    scorer = ClassifierScorer("pairs", model, tokenizer, SECTION)
    assert scorer(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("label", [2, "good"])
def test_the_label_chooses_among_several_logits(label: int | str):
    tokenizer = plain_tokenizer()
    model = tiny_bert(tokenizer, num_labels=3).eval()
    model.config.id2label = {0: "bad", 1: "middling", 2: "good"}
    expected = [alone(model, tokenizer(f"{prompt}\n{text}")["input_ids"])[2] for prompt, text in TEXTS]
    scorer = ClassifierScorer("mood", model, tokenizer, SECTION.model_copy(update={"label": label}))
    assert scorer(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("label", [None, 3, "excellent"])
def test_several_logits_without_a_choice_are_refused_with_the_list(label: int | str | None):
    tokenizer = plain_tokenizer()
    model = tiny_bert(tokenizer, num_labels=3)
    model.config.id2label = {0: "bad", 1: "middling", 2: "good"}
    with pytest.raises(UsageError) as caught:
        ClassifierScorer("mood", model, tokenizer, SECTION.model_copy(update={"label": label}))
    assert caught.value.where == "label"
    assert "0: bad, 1: middling, 2: good" in (caught.value.hint or "")


def test_a_decoder_with_a_chat_template_sees_the_whole_dialogue(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    model = decoder(tokenizer, tokenizer.pad_token_id)
    save_pair(model, tokenizer, tmp_path / "rm")
    scorer = ClassifierScorer.load("rm", ScorerSection(kind="classifier", path=str(tmp_path / "rm")), CPU)
    expected = [
        alone(model, tokenizer(f"<|user|>{p}<|assistant|>{c}</s>", add_special_tokens=False)["input_ids"])[0]
        for p, c in TEXTS
    ]
    assert scorer(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_a_classifier_from_outside_reads_the_day_of_the_run(tmp_path: Path, lora: bool):
    tokenizer = tiny_tokenizer(template="{{ strftime_now('%Y %d') }}" + CHAT_TEMPLATE)
    model = decoder(tokenizer, tokenizer.pad_token_id)
    save_pair(model, tokenizer, tmp_path / "rm")
    if lora:
        wrapped = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules="all-linear"))
        wrapped.peft_config["default"].base_model_name_or_path = str(tmp_path / "rm")
        wrapped.save_pretrained(tmp_path / "rm" / "adapter")
    path = tmp_path / "rm" / ("adapter" if lora else "")
    config = Config.model_validate({"run": {"date": "1999-01-31"}})
    scorer = load_scorer(ScorerSection(kind="classifier", path=str(path)), RunContext(config, {}), CPU)
    expected = [
        alone(model, tokenizer(f"1999 31<|user|>{p}<|assistant|>{c}</s>", add_special_tokens=False)["input_ids"])[0]
        for p, c in TEXTS
    ]
    assert scorer(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pad", ["own", "eos", None])
def test_a_row_of_a_decoder_gets_in_a_batch_what_transformers_gives_it_alone(pad: str | None):
    tokenizer = tiny_tokenizer(pad={"own": "<pad>", "eos": "</s>", None: None}[pad])
    model = decoder(tokenizer, {"own": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id, None: None}[pad])
    texts = [f"<|user|>{p}<|assistant|>{c}</s>" for p, c in TEXTS]
    expected = [alone(model, tokenizer(text, add_special_tokens=False)["input_ids"])[0] for text in texts]
    batched = ClassifierScorer("rm", model, tokenizer, SECTION)(PROMPTS, COMPLETIONS)
    single = [
        ClassifierScorer("rm", model, tokenizer, SECTION)([p], [c])[0]
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    assert batched == pytest.approx(expected, abs=1e-5)
    assert single == pytest.approx(expected, abs=1e-5)


def test_batch_size_and_order_change_nothing_and_progress_is_told():
    tokenizer = plain_tokenizer()
    model = tiny_bert(tokenizer)
    told: list[int] = []
    whole = ClassifierScorer("bert", model, tokenizer, SECTION)(PROMPTS, COMPLETIONS)
    one_by_one = SECTION.model_copy(update={"batch_size": 1})
    one = ClassifierScorer("bert", model, tokenizer, one_by_one, progress=told.append)
    assert one(PROMPTS[::-1], COMPLETIONS[::-1])[::-1] == pytest.approx(whole, abs=1e-5)
    assert told == [1, 1, 1]


def test_too_long_texts_lose_their_beginning_and_are_counted():
    tokenizer = plain_tokenizer()
    tokenizer.model_max_length = 12
    model = tiny_bert(tokenizer).eval()
    scorer = ClassifierScorer("bert", model, tokenizer, SECTION)
    long = [Completion("the dog looked at the cat " * 20, (), True), Completion("x", (), True)]
    scores = scorer([PROMPTS[0], (Message(role="user", content="a"),)], long)
    assert scorer.truncated == 1
    kept = tokenizer(f"hello world\n{long[0].text}", truncation=False)["input_ids"][-12:]
    assert scores[0] == pytest.approx(alone(model, kept)[0], abs=1e-5)


def test_positions_limit_the_text_where_the_tokenizer_knows_no_limit():
    tokenizer = plain_tokenizer()
    tokenizer.model_max_length = int(1e30)
    scorer = ClassifierScorer("bert", tiny_bert(tokenizer), tokenizer, SECTION)  # 256 positions
    scorer([PROMPTS[0]], [Completion("7 " * 300, (), True)])
    assert scorer.truncated == 1


def test_a_head_that_was_never_trained_is_refused(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    save_pair(tiny_llama(tokenizer), tokenizer, tmp_path / "causal")
    bert = tiny_bert(tokenizer)
    body = BertModel(bert.config)
    save_pair(body, tokenizer, tmp_path / "body")
    for name, lost in (("causal", "score.weight"), ("body", "classifier.")):
        with pytest.raises(ArtifactError, match=lost):
            ClassifierScorer.load(name, ScorerSection(kind="classifier", path=str(tmp_path / name), label=0), CPU)


def test_a_model_of_another_task_is_refused_though_every_weight_has_its_place(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    shape = tiny_llama(tokenizer).config
    shape.num_labels = 1
    save_pair(LlamaForTokenClassification(shape), tokenizer, tmp_path / "tagger")
    save_pair(BertForMultipleChoice(tiny_bert(tokenizer).config), tokenizer, tmp_path / "choice")
    for name in ("tagger", "choice"):
        with pytest.raises(ArtifactError, match=r"saved as (Llama|Bert)For(Token|Multiple)"):
            ClassifierScorer.load(name, ScorerSection(kind="classifier", path=str(tmp_path / name)), CPU)
    load_text_classifier(str(tmp_path / "tagger"), CPU, new_head=True)  # a base that is trained anew
    config = tmp_path / "tagger" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": None}))
    with pytest.raises(ArtifactError, match=r"score\.bias"):
        ClassifierScorer.load("tagger", ScorerSection(kind="classifier", path=str(tmp_path / "tagger")), CPU)


def test_what_is_no_classifier_is_refused_in_words(tmp_path: Path):
    def load(path: Path | str) -> None:
        ClassifierScorer.load("c", ScorerSection(kind="classifier", path=str(path)), CPU)

    with pytest.raises(UsageError) as caught:
        load(tmp_path / "nowhere")
    assert caught.value.where == "path"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError):
        load(tmp_path / "empty")


ODD: dict[str, dict[str, Any]] = {
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 256},
    "flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 256},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "fnet": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256},
    "ctrl": {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 64, "n_positions": 256},
}
"""No segments though the model would take them; read at the last place; without a mask; without batches."""


@pytest.mark.parametrize("family", ODD)
def test_a_family_that_bears_no_padding_or_no_segments_scores_as_alone(family: str):
    tokenizer = plain_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), num_labels=1, **ODD[family])
    torch.manual_seed(4)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    expected = [alone(model, tokenizer(f"{prompt}\n{text}")["input_ids"])[0] for prompt, text in TEXTS]
    assert ClassifierScorer("c", model, tokenizer, SECTION)(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-4)
    classifier = TextClassifier("c", model, tokenizer)
    assert classifier.one_by_one is (family in ("fnet", "ctrl"))
    if family == "fnet":
        rows = [classifier.encode(prompt, "no") for prompt in PROMPTS]
        with pytest.raises(UsageError, match="change with padding"):
            classifier.inputs(rows, "cpu")


TOOL = {"type": "function", "function": {"name": "weather"}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
WITH_TOOLS = (
    Message(role="user", content="rain?", tools=(TOOL,)),
    Message(role="assistant", content="", tool_calls=(CALL,)),
    Message(role="tool", content="sunny"),
)


def test_tools_and_calls_reach_the_classifier():
    def seen(template: str | None) -> str:
        tokenizer = tiny_tokenizer(template=template)
        classifier = TextClassifier("rm", decoder(tokenizer, 0), tokenizer)
        return str(tokenizer.decode(classifier.encode(WITH_TOOLS, "ok").ids))

    written = seen("{{ tools[0].function.name }}{% for m in messages %}{{ m.content }}{{ m.tool_calls }}{% endfor %}")
    assert written.startswith("weather")
    assert "Rome" in written
    assert "Rome" in seen(None)
    for half in ("{{ tools }}", "{% for m in messages %}{{ m.tool_calls }}{% endfor %}"):
        with pytest.raises(DataError, match="never mentions"):
            seen(half)


def test_a_template_that_refuses_a_dialogue_is_a_data_error():
    tokenizer = tiny_tokenizer(template="{{ raise_exception('no system turn, please') }}")
    with pytest.raises(DataError, match="no system turn, please"):
        ClassifierScorer("rm", decoder(tokenizer, 0), tokenizer, SECTION)(PROMPTS, COMPLETIONS)


def test_a_score_that_is_not_finite_is_a_data_error():
    tokenizer = plain_tokenizer()
    model = tiny_bert(tokenizer)
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    with pytest.raises(DataError, match="must be finite"):
        ClassifierScorer("bert", model, tokenizer, SECTION)(PROMPTS, COMPLETIONS)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("output", ["probability", "logprob"])
@pytest.mark.parametrize("lower", [False, True])
def test_the_output_is_a_sigmoid_of_one_logit_or_a_softmax_over_classes(classes: int, output: str, lower: bool):
    tokenizer = plain_tokenizer()
    model = tiny_bert(tokenizer, num_labels=classes).eval()
    section = SECTION.model_copy(update={"label": classes - 1, "output": output, "lower_is_better": lower})
    expected = []
    for prompt, text in TEXTS:
        logits = torch.tensor(alone(model, tokenizer(f"{prompt}\n{text}")["input_ids"]))
        share = (1 / (1 + (-logits).exp()) if classes == 1 else logits.exp() / logits.exp().sum())[-1]
        expected.append((-1 if lower else 1) * (share if output == "probability" else share.log()).item())
    assert ClassifierScorer("c", model, tokenizer, section)(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)


def lora_reward_model(folder: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    """A LoRA reward model in `folder`/adapter whose base is named by a relative path."""
    tokenizer = tiny_tokenizer()
    save_pair(tiny_llama(tokenizer), tokenizer, folder / "base")
    config = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS", modules_to_save=["score"])
    bare = LlamaForSequenceClassification.from_pretrained(folder / "base", num_labels=1)
    model = get_peft_model(bare, config)
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    model.peft_config["default"].base_model_name_or_path = "../base"
    model.save_pretrained(folder / "adapter")
    return model.eval(), tokenizer


def test_a_lora_reward_model_gives_the_scores_that_peft_gives(tmp_path: Path):
    model, tokenizer = lora_reward_model(tmp_path)
    ids = [tokenizer(f"<|user|>{p}<|assistant|>{c}</s>", add_special_tokens=False)["input_ids"] for p, c in TEXTS]
    expected = [alone(model, row)[0] for row in ids]
    section = ScorerSection(kind="classifier", path=str(tmp_path / "adapter"))
    scores = ClassifierScorer.load("rm", section, CPU)(PROMPTS, COMPLETIONS)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert max(scores) - min(scores) > 1e-2


def test_an_adapter_without_its_head_its_base_or_of_another_kind_is_refused(tmp_path: Path):
    lora_reward_model(tmp_path)
    place = tmp_path / "adapter"

    def refusal() -> RlhfError:
        with pytest.raises(RlhfError) as caught:
            ClassifierScorer.load("rm", ScorerSection(kind="classifier", path=str(place)), CPU)
        return caught.value

    shape = json.loads((place / "adapter_config.json").read_text())
    weights = load_file(place / "adapter_model.safetensors")
    save_file({key: value for key, value in weights.items() if "score" not in key}, place / "adapter_model.safetensors")
    lost = refusal()
    assert isinstance(lost, ArtifactError)
    assert "lack 1 of its weights: score.weight" in lost.message
    (place / "adapter_config.json").write_text(json.dumps(shape | {"base_model_name_or_path": "../gone"}))
    gone = refusal()
    assert isinstance(gone, UsageError)
    assert "../gone" in gone.message
    (place / "adapter_config.json").write_text(json.dumps(shape | {"task_type": "CAUSAL_LM"}))
    assert "CAUSAL_LM" in refusal().message
