"""Ids of every stage are those of `apply_chat_template`: templates of many families x tokenizers of four kinds."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from pipelines.data.chat import NO_LOSS, ChatEncoder
from pipelines.data.rows import Comparison, Demonstration, Message
from tests.examples import examples
from tests.tiny import QWEN_TEMPLATE

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
_LLAMA_3 = (
    "<s>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
_GEMMA = (
    "<s>{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_GLM_4 = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_PHI_3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_LLAMA_3_2 = (  # it writes a system turn with the day into every dialogue
    "<s>{% if messages[0].role == 'system' %}{% set said = messages[0].content | trim %}{% set turns = messages[1:] %}"
    "{% else %}{% set said = '' %}{% set turns = messages %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    'Today Date: {{ strftime_now("%d %b %Y") }}\n\n{{ said }}<|eot_id|>'
    "{% for m in turns %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_QWEN_3 = (  # the last answer has a place for a thought, the earlier ones have not
    "{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EXAMPLES = 500 if examples(10) == 10 else 40
"""Dialogues of each template and tokenizer; `make slow` takes all."""
# The template, its EOS, and whether the template itself writes it after an answer.
TEMPLATES = {
    "ChatML, EOS": (_CHATML, "<|im_end|>", True),
    "ChatML, other EOS": (_CHATML, "</s>", False),
    "Llama 2": (_LLAMA_2, "</s>", True),
    "Llama 3": (_LLAMA_3, "<|eot_id|>", True),
    "Mistral": (_MISTRAL, "</s>", True),
    "Gemma": (_GEMMA, "</s>", False),
    "GLM-4": (_GLM_4, "</s>", False),
    "Phi-3": (_PHI_3, "</s>", False),
    "Zephyr": (_ZEPHYR, "</s>", True),
    "Llama 3.2": (_LLAMA_3_2, "<|eot_id|>", True),
    "Qwen 2.5": (QWEN_TEMPLATE, "<|im_end|>", True),
    "Qwen 3": (_QWEN_3, "<|im_end|>", True),
}
LAST_ONLY = {"Qwen 3"}
"""Templates that write an earlier answer differently than the last one."""
_SPECIAL = [
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[gMASK]",
    "<sop>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
]
_WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat,",
    "and",
    "said:",
    "hello!",
    "(how",
    "are",
    "you?)",
    "3.5",
    "ünïcode",
    "你好",
    "🙂",
    "def",
    "f(x):",
    "return",
    "x\n-",
    "one\n-",
    "two",
]
_CORPUS = [" ".join(_WORDS[start:] + _WORDS[:start]) for start in range(len(_WORDS))] * 3


@cache
def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    if kind == "byte-level BPE":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(vocab_size=600, special_tokens=_SPECIAL, initial_alphabet=alphabet)
    elif kind == "WordPiece":
        core = Tokenizer(models.WordPiece(unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece(cleanup=False)
        trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=_SPECIAL)
    else:
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        scheme = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        core.normalizer = scheme if kind == "SentencePiece, prefix space" else normalizers.Replace(" ", "▁")
        core.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
            + ([decoders.Strip(" ", 1, 0)] if kind == "SentencePiece, prefix space" else [])
        )
        trainer = trainers.BpeTrainer(
            vocab_size=700, special_tokens=_SPECIAL + bytes_, limit_alphabet=60, max_token_length=8
        )
    core.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", extra_special_tokens=_SPECIAL[4:]
    )


def _text(random_: random.Random) -> str:
    return " ".join(random_.choices(_WORDS, k=random_.randint(1, 12))).strip()


def _dialogue(random_: random.Random) -> tuple[Message, ...]:
    roles = ("user", "assistant") * random_.randint(1, 3)
    return tuple(Message.model_validate({"role": role, "content": _text(random_)}) for role in roles)


@pytest.mark.hypothesis
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "kind", ["byte-level BPE", "SentencePiece, prefix space", "SentencePiece, no prefix space", "WordPiece"]
)
def test_ids_of_all_stages_are_those_of_the_template(kind: str, name: str) -> None:
    template, eos, writes_eos = TEMPLATES[name]
    tokenizer = _tokenizer(kind)
    tokenizer.chat_template, tokenizer.eos_token = template, eos
    encoder, random_ = ChatEncoder(tokenizer), random.Random(0)
    for _ in range(EXAMPLES):
        dialogue = _dialogue(random_)
        turns = [turn.model_dump(include={"role", "content"}) for turn in dialogue]
        prompt = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(turns, return_dict=False)
        assert encoder.prompt(dialogue[:-1]) == prompt
        ids, labels = encoder.demonstration(Demonstration(messages=dialogue), "last" if name in LAST_ONLY else "all")
        by_template = ids if writes_eos else ids[:-1]
        assert by_template == whole[: len(by_template)]
        assert tokenizer.decode(whole[len(by_template) :]).strip() in ("", "<|end|>")
        assert ids[-1] == labels[-1] == tokenizer.eos_token_id
        answers = [turn.content for turn in dialogue if turn.role == "assistant"]
        answers = answers[-1:] if name in LAST_ONLY else answers
        runs = _runs(labels)
        assert len(runs) == len(answers)
        if kind != "WordPiece" and "你" not in "".join(answers):
            assert all(answer in tokenizer.decode(run) for run, answer in zip(runs, answers, strict=True))
        pair = encoder.comparison(
            Comparison(prompt=dialogue[:-1], chosen=dialogue[-1].content, rejected=dialogue[-2].content + "!")
        )
        assert pair[0] + pair[1] == ids
        assert encoder.answer(dialogue[:-1], dialogue[-1].content) == pair[1]


def _runs(labels: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for before, label in zip([NO_LOSS, *labels], labels, strict=False):
        if label != NO_LOSS:
            if before == NO_LOSS:
                runs.append([])
            runs[-1].append(label)
    return runs


@pytest.mark.parametrize("kind", ["byte-level BPE", "SentencePiece, prefix space", "SentencePiece, no prefix space"])
def test_a_token_that_would_span_prompt_and_answer_is_split(kind: str) -> None:
    tokenizer = _tokenizer(kind)
    tokenizer.chat_template, tokenizer.eos_token = None, "</s>"
    encoder, prompt = ChatEncoder(tokenizer), (Message(role="user", content="the cat "),)
    assert encoder.prompt(prompt) == tokenizer("the cat ")["input_ids"], "as a served model is given it"
    answer = encoder.answer(prompt, "sat on a mat")
    assert encoder.decode(answer) == "sat on a mat"
    assert encoder.decode_prompt(encoder.prompt(prompt) + answer) == "the cat sat on a mat"


@pytest.mark.parametrize("name", ["Zephyr", "Gemma"])
def test_a_tokenizer_in_python_has_no_offsets(name: str) -> None:
    template, _, writes_eos = TEMPLATES[name]
    tokenizer = ByT5Tokenizer(extra_ids=0)
    assert not tokenizer.is_fast
    tokenizer.chat_template = template
    encoder, random_ = ChatEncoder(tokenizer), random.Random(1)
    for _ in range(EXAMPLES):
        dialogue = _dialogue(random_)
        ids, labels = encoder.demonstration(Demonstration(messages=dialogue), "all")
        turns = [turn.model_dump(include={"role", "content"}) for turn in dialogue]
        by_template = ids if writes_eos else ids[:-1]
        assert by_template == tokenizer.apply_chat_template(turns, return_dict=False)[: len(by_template)]
        answers = [turn.content for turn in dialogue if turn.role == "assistant"]
        runs = _runs(labels)
        assert len(runs) == len(answers)
        assert all(tokenizer.decode(run).startswith(answer) for run, answer in zip(runs, answers, strict=True))
