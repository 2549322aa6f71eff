"""README.md of a published model: a few lines of plain transformers and peft that open it and give the same scores."""

from __future__ import annotations

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.config.model_section import is_gguf
from pipelines.models.own_head import OwnHead, trunk_of
from pipelines.models.published_reward import Reads

README = "README.md"
_TEXTS: dict[tuple[Reads, bool], str] = {
    ("tokens", True): """\
def score(messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    text = text.removesuffix(tokenizer.eos_token) + tokenizer.eos_token  # the score is read at the end
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)""",
    ("tokens", False): """\
def score(messages):
    text = messages[0]["content"] + messages[1]["content"] + tokenizer.eos_token  # the score is read at the end
    ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)""",
    ("text", True): """\
def score(messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)""",
    ("text", False): """\
def score(messages):
    text = "\\n".join(message["content"] for message in messages)
    ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)""",
}
"""Encoding of a dialogue by what the model reads, and by whether the tokenizer has a chat template."""


def reward_readme(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, reads: Reads, base: str | None
) -> str:
    """README of a reward model; `base`: name of an adapter's base in its configuration, None for a whole model."""
    classifier = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(classifier, OwnHead):
        trunk = "" if base is None else f".get_base_model().{trunk_of(classifier)[0]}"
        weights, key = ("model", "score.weight") if base is None else ("adapter_model", "base_model.model.score.weight")
        auto, labels = ("AutoModel" if base is None else "AutoModelForCausalLM"), ""
        head = [
            f'files = (load_file(path) for path in Path(here).glob("{weights}*.safetensors"))',
            f'head = next(weights["{key}"] for weights in files if "{key}" in weights)',
        ]
        result = f"(model{trunk}(**ids).last_hidden_state[0, -1] @ head.T).squeeze()"
    else:
        auto, labels, head = "AutoModelForSequenceClassification", ", num_labels=1", []
        result = "model(**ids).logits[0].squeeze()"
    opening = [f"model = {auto}.from_pretrained(here).eval()"]
    if base is not None:
        pad = [] if head else ["model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # not its EOS"]
        opening = _adapter_on(base, auto, labels, pad)
    lines = [*opening, *head, "", "", "@torch.no_grad()", _TEXTS[reads, tokenizer.chat_template is not None]]
    lines += [f"    return {result}.tolist()", "", "", *_example("score", "Say hello.", "Hello!")]
    return _page("This is a reward model: it gives an answer a score.", lines, auto, base, own_head=bool(head))


def gguf_readme(base: str) -> str:
    """README of an adapter of a policy on a .gguf file, which peft does not open by its name alone."""
    auto = "AutoModelForCausalLM"
    lines = _adapter_on(base, auto, "", [])
    return _page("This is an adapter on a model in a .gguf file.", lines, auto, base, own_head=False)


def _adapter_on(base: str, auto: str, labels: str, between: list[str]) -> list[str]:
    """Lines that load the base, which a file of this name, a directory or the hub has, and the adapter on it."""
    named = "PeftConfig.from_pretrained(here).base_model_name_or_path"
    name, dtype = "base", ', dtype="float32"'
    if is_gguf(base):
        name, dtype = (
            "Path(base).parent, gguf_file=Path(base).name",
            ", quantization_config=GgufConfig(dequantize=True)",
        )
    elif base.startswith("."):
        named = f"Path(here, {named}).resolve()"
    return [
        f"base = {named}",
        f"model = {auto}.from_pretrained({name}{labels}{dtype})",
        *between,
        "model = PeftModel.from_pretrained(model, here).eval()",
    ]


def _example(function: str, question: str, answer: str) -> list[str]:
    turns = [f'{{"role": "user", "content": "{question}"}}', f'{{"role": "assistant", "content": "{answer}"}}']
    return [f"print({function}([{', '.join(turns)}]))"]


def _page(what: str, lines: list[str], auto: str, base: str | None, *, own_head: bool) -> str:
    body = "\n".join(lines)
    imports = [
        *(["from pathlib import Path", ""] if "Path(" in body else []),
        *(["import torch"] if "torch." in body else []),
        *(["from peft import PeftConfig, PeftModel"] if base is not None else []),
        *(["from safetensors.torch import load_file"] if own_head else []),
        f"from transformers import {auto}, AutoTokenizer{', GgufConfig' if 'GgufConfig' in body else ''}",
        "",
        'here = "."  # this directory',
        "tokenizer = AutoTokenizer.from_pretrained(here)",
    ]
    return f"{what} It opens in plain code:\n\n```python\n" + "\n".join([*imports, body]) + "\n```\n"
