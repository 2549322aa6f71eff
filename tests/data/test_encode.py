"""The encoder: the trained tokens are the answers, and every stage sees the same ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipelines.config.data_section import Source
from pipelines.data.canonical import to_kind, to_line
from pipelines.data.chat import NO_LOSS
from pipelines.data.encode import ChatEncoder, encode_comparisons, encode_demonstrations, encode_prompts
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Demonstration, Message, Prompt
from pipelines.errors import DataError, UsageError
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

NEWLINE_AFTER_EOS = CHAT_TEMPLATE.replace("{{ eos_token }}", "{{ eos_token }}{{ '\\n' }}")
WITHOUT_EOS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
OTHER_END = (
    "{% for m in messages %}<|{{ m.role }}|>{{ '\\n' + m.content }}<end>{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ '\\n' }}{% endif %}"
)
DEFAULT_SYSTEM = "{% if messages[0].role != 'system' %}<|system|>be kind{% endif %}" + NEWLINE_AFTER_EOS
DROPS_EARLIER_REASONING = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
TEMPLATES = {
    "plain": CHAT_TEMPLATE,
    "newline after eos": NEWLINE_AFTER_EOS,
    "without eos": WITHOUT_EOS,
    "other end of turn": OTHER_END,
    "default system": DEFAULT_SYSTEM,
}


def message(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})


QUESTION = (message("user", "how are you today"),)
LONG = (
    message("system", "answer kindly"),
    message("user", "hello world"),
    message("assistant", "hello dog"),
    message("user", "thank you"),
    message("assistant", "the cat sat\non the mat"),
)


@pytest.fixture(params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    return TEMPLATES[request.param]


@pytest.fixture(params=["<pad>", "</s>", None])
def tokenizer(request: pytest.FixtureRequest, template: str) -> Any:
    return tiny_tokenizer(template=template, pad=request.param)


def trained(tokenizer: Any, ids: list[int], labels: list[int]) -> list[list[int]]:
    """The runs of trained tokens."""
    assert len(ids) == len(labels)
    runs: list[list[int]] = []
    before = -100
    for token, label in zip(ids, labels, strict=True):
        assert label in (-100, token)
        if label != -100:
            if before == -100:
                runs.append([])
            runs[-1].append(token)
        before = label
    return runs


def test_trained_tokens_are_the_answers_and_the_last_ends_on_eos(tokenizer: Any) -> None:
    encoder = ChatEncoder(tokenizer)
    row = Demonstration(messages=LONG)
    for train_on, answers in (("all", [LONG[2], LONG[4]]), ("last", [LONG[4]])):
        ids, labels = encoder.demonstration(row, train_on)  # type: ignore[arg-type]
        runs = trained(tokenizer, ids, labels)
        assert [encoder.decode(run) for run in runs] == [answer.content for answer in answers]
        assert runs[-1][-1] == ids[-1] == tokenizer.eos_token_id
        by_template = "eos_token" in tokenizer.chat_template  # an earlier turn ends as the template ends it
        assert all((run[-1] == tokenizer.eos_token_id) is by_template for run in runs[:-1])
        assert all(run.count(tokenizer.eos_token_id) <= 1 for run in runs)
        for role in (LONG[0], LONG[1], LONG[3]):
            assert role.content in tokenizer.decode([i for i, kept in zip(ids, labels, strict=True) if kept == -100])


def test_every_stage_sees_the_same_ids(tokenizer: Any) -> None:
    encoder = ChatEncoder(tokenizer)
    for messages in (LONG, (*QUESTION, message("assistant", " the red ball"))):
        prompt, answer = messages[:-1], messages[-1].content
        whole = encoder.prompt(prompt) + encoder.answer(prompt, answer)
        assert encoder.demonstration(Demonstration(messages=messages), "all")[0] == whole
        assert encoder.demonstration(Demonstration(messages=messages), "last")[0] == whole
        compared = encoder.comparison(Comparison(prompt=prompt, chosen=answer, rejected="no"))
        assert compared[0] + compared[1] == whole
        assert compared[2] == encoder.answer(prompt, "no")


def test_a_generated_answer_becomes_the_text_it_was(tokenizer: Any) -> None:
    encoder = ChatEncoder(tokenizer)
    for text in ("yes", " yes", "yes.\n\nno", "ünïcode 你好"):
        ids = encoder.answer(QUESTION, text)
        assert encoder.decode(ids) == text
        assert encoder.decode(ids[:-1]) == text
        assert encoder.decode([*ids, *ids]) == text


def test_the_ids_are_those_of_the_template(tokenizer: Any, template: str) -> None:
    encoder = ChatEncoder(tokenizer)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello world"}], tokenize=False, add_generation_prompt=True
    )
    ids = encoder.prompt((message("user", "hello world"),))
    assert ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert ("be kind" in rendered) is (template == DEFAULT_SYSTEM)


def test_what_follows_eos_belongs_to_the_next_turn() -> None:
    tokenizer = tiny_tokenizer(template=NEWLINE_AFTER_EOS)
    ids, _ = ChatEncoder(tokenizer).demonstration(Demonstration(messages=LONG), "all")
    assert tokenizer.decode(ids) == (
        "<|system|>answer kindly<|user|>hello world<|assistant|>hello dog</s>\n"
        "<|user|>thank you<|assistant|>the cat sat\non the mat</s>"
    )


def test_eos_is_appended_where_the_template_ends_turns_otherwise() -> None:
    tokenizer = tiny_tokenizer(template=OTHER_END)
    ids, _ = ChatEncoder(tokenizer).demonstration(Demonstration(messages=LONG[1:]), "all")
    assert tokenizer.decode(ids) == (
        "<|user|>\nhello world<end>\n<|assistant|>\nhello dog<end>\n"
        "<|user|>\nthank you<end>\n<|assistant|>\nthe cat sat\non the mat<end></s>"
    )


def test_without_a_template_question_and_answer_are_plain_text() -> None:
    tokenizer = tiny_tokenizer(template=None)
    encoder = ChatEncoder(tokenizer)
    row = Demonstration(messages=(*QUESTION, message("assistant", " the cat")))
    ids, labels = encoder.demonstration(row, "all")
    assert tokenizer.decode(ids) == "how are you today the cat</s>"
    assert [encoder.decode(run) for run in trained(tokenizer, ids, labels)] == [" the cat"]
    assert ids == encoder.prompt(QUESTION) + encoder.answer(QUESTION, " the cat")
    with pytest.raises(DataError, match="no chat template"):
        encoder.demonstration(Demonstration(messages=LONG), "last")


def test_a_template_that_drops_reasoning_needs_train_on_last() -> None:
    tokenizer = tiny_tokenizer(template=DROPS_EARLIER_REASONING)
    encoder = ChatEncoder(tokenizer)
    messages = (
        message("user", "hello"),
        message("assistant", "hm</think>world"),
        message("user", "thank you"),
        message("assistant", "ok</think>dog"),
    )
    row = Demonstration(messages=messages)
    with pytest.raises(DataError) as caught:
        encode_demonstrations([row], encoder, 99, "drop", "all", name="train.jsonl")
    assert caught.value.hint == "set sft.train_on: last"
    assert caught.value.where == "train.jsonl:1"
    assert "hello" in caught.value.message
    ids, labels = encoder.demonstration(row, "last")
    assert tokenizer.decode(ids) == "<|user|>hello<|assistant|>world</s><|user|>thank you<|assistant|>ok</think>dog</s>"
    assert [encoder.decode(run) for run in trained(tokenizer, ids, labels)] == ["ok</think>dog"]
    assert ids == encoder.prompt(messages[:-1]) + encoder.answer(messages[:-1], "ok</think>dog")


def test_a_template_that_rewrites_the_question_is_refused() -> None:
    rewriting = "{% for m in messages %}{{ m.content }}{% if loop.last %}!{% endif %}{% endfor %}"
    with pytest.raises(DataError, match="once it is answered"):
        ChatEncoder(tiny_tokenizer(template=rewriting)).answer(QUESTION, "yes")


def test_a_template_that_raises_names_the_row() -> None:
    encoder = ChatEncoder(tiny_tokenizer(template=REFUSES_SYSTEM))
    rows = [Prompt(prompt=QUESTION), Prompt(prompt=LONG[:2])]
    with pytest.raises(DataError, match=r"no system \(the dialogue begins with 'hello world'\)") as caught:
        encode_prompts(rows, encoder, 99, name="a.jsonl")
    assert caught.value.where == "a.jsonl:2"


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_template_that_leaves_out_a_turn_is_refused(role: str) -> None:
    leaving_out = CHAT_TEMPLATE.replace("{% for m in messages %}", f"{{% for m in messages if m.role != '{role}' %}}")
    encoder = ChatEncoder(tiny_tokenizer(template=leaving_out))
    turn = message(role, "be kind")
    prompt = (turn, *QUESTION) if role == "system" else (*LONG, turn)
    with pytest.raises(DataError, match=f"leaves out what a {role} turn says"):
        encoder.prompt(prompt)
    assert encoder.prompt(QUESTION)
    blank = (message(role, " "), *QUESTION) if role == "system" else (*LONG, message(role, ""))
    assert encoder.prompt(blank), "there is nothing to leave out"


def test_a_turn_may_be_written_in_another_form() -> None:
    quoted = CHAT_TEMPLATE.replace("{{ m.content }}", "{{ m.content | trim | tojson }}")
    assert quoted != CHAT_TEMPLATE
    tokenizer = tiny_tokenizer(template=quoted)
    ids = ChatEncoder(tokenizer).prompt((message("user", 'say "hello"\nworld '),))
    assert 'say \\"hello\\"\\nworld"' in tokenizer.decode(ids)


@pytest.mark.parametrize("template", [WITHOUT_EOS, OTHER_END, CHAT_TEMPLATE, None])
def test_blank_ends_of_an_answer_are_its_own(template: str | None) -> None:
    tokenizer = tiny_tokenizer(template=template)
    encoder = ChatEncoder(tokenizer)
    for text in ("def f():\n    ", "yes \n", "yes"):
        assert encoder.decode(encoder.answer(QUESTION, text)) == text
        if template is None:
            continue
        row = Demonstration(messages=(*QUESTION, message("assistant", text), *QUESTION, message("assistant", text)))
        runs = trained(tokenizer, *encoder.demonstration(row, "all"))
        assert [encoder.decode(run) for run in runs] == [text, text]


def test_eos_as_text_inside_an_answer_is_refused() -> None:
    encoder = ChatEncoder(tiny_tokenizer())
    with pytest.raises(DataError, match="contains the EOS token"):
        encoder.answer(QUESTION, "one</s>two")


def test_a_tokenizer_without_eos_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UsageError, match="no EOS"):
        ChatEncoder(tokenizer)


def test_a_sentencepiece_tokenizer_that_nobody_here_made(shared_data: Path) -> None:
    from pipelines.models.tokenizer import plain_template

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "stories260K-hf")
    for template in (None, plain_template(tokenizer)):
        tokenizer.chat_template = template
        encoder = ChatEncoder(tokenizer)
        row = Demonstration(messages=(*QUESTION, message("assistant", "Once upon a time.")))
        ids, labels = encoder.demonstration(row, "all")
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert [encoder.decode(run) for run in trained(tokenizer, ids, labels)] == ["Once upon a time."]
        assert ids == encoder.prompt(QUESTION) + encoder.answer(QUESTION, "Once upon a time.")


def answered(text: str) -> Demonstration:
    return Demonstration(messages=(*QUESTION, message("assistant", text)))


def test_overlong_demonstrations() -> None:
    encoder = ChatEncoder(tiny_tokenizer())
    rows = [answered("yes"), answered("the cat " * 20), Demonstration(messages=(message("user", "no " * 60), LONG[4]))]
    lengths = [len(encoder.demonstration(row, "all")[0]) for row in rows]
    limit = lengths[0] + 5
    kept, report = encode_demonstrations(iter(rows), encoder, limit, "drop", "all")
    assert [len(row["input_ids"]) for row in kept] == [lengths[0]]
    assert (report.used, report.dropped, report.cut, report.longest) == (1, 2, 0, max(lengths))
    kept, report = encode_demonstrations(rows, encoder, limit, "cut", "all")
    assert (report.used, report.dropped, report.cut) == (2, 1, 1)
    assert kept[1]["input_ids"] == encoder.demonstration(rows[1], "all")[0][:limit]
    assert kept[1]["labels"][-1] == kept[1]["input_ids"][-1] != encoder._eos_id
    with pytest.raises(DataError, match=f"2 of 3 rows are longer than {limit} tokens") as caught:
        encode_demonstrations(rows, encoder, limit, "fail", "all", name="train.jsonl")
    assert caught.value.where == "train.jsonl:2"
    with pytest.raises(DataError, match="none of the 3 rows fits 3 tokens"):
        encode_demonstrations(rows, encoder, 3, "drop", "all")
    assert encode_demonstrations([], encoder, 3, "drop", "all")[1].used == 0


def test_overlong_comparisons_lose_the_start_of_the_prompt_but_never_an_answer() -> None:
    encoder = ChatEncoder(tiny_tokenizer())
    long = (message("user", "the cat sat on the mat " * 20),)
    rows = [
        Comparison(prompt=QUESTION, chosen="yes", rejected="no", margin=0.5),
        Comparison(prompt=long, chosen="yes", rejected="no you"),
        Comparison(prompt=QUESTION, chosen="yes " * 60, rejected="no"),
    ]
    kept, report = encode_comparisons(rows, encoder, 40, "cut")
    assert (report.used, report.dropped, report.cut) == (2, 1, 1)
    assert kept[0]["margin"] == 0.5
    assert "margin" not in kept[1]
    prompt, chosen, rejected = encoder.comparison(rows[1])
    assert (kept[1]["chosen_ids"], kept[1]["rejected_ids"]) == (chosen, rejected)
    assert kept[1]["prompt_ids"] == prompt[-len(kept[1]["prompt_ids"]) :]
    assert len(kept[1]["prompt_ids"]) + max(len(chosen), len(rejected)) == 40
    _, report = encode_comparisons(rows, encoder, 40, "drop")
    assert (report.used, report.dropped, report.cut) == (1, 2, 0)
    with pytest.raises(DataError, match="2 of 3"):
        encode_comparisons(rows, encoder, 40, "fail")


def test_a_cut_prompt_keeps_its_bos() -> None:
    tokenizer = tiny_tokenizer(template="{{ bos_token }}" + CHAT_TEMPLATE)
    tokenizer.bos_token = "<pad>"
    long = (message("user", "the cat sat on the mat " * 20),)
    kept, _ = encode_comparisons([Comparison(prompt=long, chosen="a", rejected="b")], ChatEncoder(tokenizer), 40, "cut")
    prompt = ChatEncoder(tokenizer).prompt(long)
    ids = kept[0]["prompt_ids"]
    assert ids == [prompt[0], *prompt[-len(ids) + 1 :]]


def test_overlong_prompts_are_dropped() -> None:
    encoder = ChatEncoder(tiny_tokenizer())
    rows = [Prompt(prompt=QUESTION), Prompt(prompt=(message("user", "no " * 60),))]
    kept, report = encode_prompts(rows, encoder, 30)
    assert kept == [{"prompt_ids": encoder.prompt(QUESTION), "messages": QUESTION}]
    assert (report.used, report.dropped, report.cut) == (1, 1, 0)


def test_overlong_prompts_are_cut_only_where_there_is_no_template() -> None:
    rows = [Prompt(prompt=QUESTION), Prompt(prompt=(message("user", "the cat sat " * 20),))]
    raw = ChatEncoder(tiny_tokenizer(template=None))
    kept, report = encode_prompts(rows, raw, 12, "cut")
    whole = raw.prompt(rows[1].prompt)
    assert [row["prompt_ids"] for row in kept] == [raw.prompt(QUESTION), whole[:12]]
    assert (report.used, report.dropped, report.cut, report.longest) == (2, 0, 1, len(whole))
    (shown,) = kept[1]["messages"]
    assert shown.role == "user"
    assert rows[1].prompt[0].content.startswith(shown.content)
    assert raw.prompt(kept[1]["messages"]) == whole[:12], "what scorers read is what the policy saw"
    with pytest.raises(DataError, match="1 of 2 rows are longer than 12 tokens"):
        encode_prompts(rows, raw, 12, "fail")
    with pytest.raises(UsageError, match="raw text"):
        encode_prompts(rows, ChatEncoder(tiny_tokenizer()), 12, "cut")


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE])
def test_a_text_is_trained_on_as_it_is(template: str | None) -> None:
    tokenizer = tiny_tokenizer(template=template)
    encoder = ChatEncoder(tokenizer)
    text = " Once, \nünïcode 你好 "
    ids, labels = encoder.demonstration(Demonstration(text=text), "all")
    assert ids == labels == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert encoder.demonstration(Demonstration(text=text), "last") == (ids, labels)
    assert tokenizer.decode(ids) == text + "</s>"
    with pytest.raises(DataError, match="contains the EOS token"):
        encoder.demonstration(Demonstration(text="one</s>two"), "all")


def test_the_bos_of_a_text_is_not_trained(shared_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "stories260K-hf")
    ids, labels = ChatEncoder(tokenizer).demonstration(Demonstration(text="Once upon a time."), "all")
    assert ids[0] == tokenizer.bos_token_id
    assert labels == [-100, *ids[1:]]


@pytest.mark.parametrize(
    "beside", [{"completion": [{"role": "assistant", "content": "a dog"}]}, {"chosen": "a dog", "rejected": "no"}]
)
def test_only_the_answer_to_a_prompt_is_imitated(tmp_path: Path, beside: dict[str, Any]) -> None:
    """Wherever the row is from, and once it is written as one dialogue."""
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), "abc", strict=True)]
    transcript = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    expected = Demonstration(
        messages=(*(Message(**turn) for turn in turns), Message(role="assistant", content="a dog")), last_only=True
    )
    told = {"completion": " a dog"} if "completion" in beside else beside
    for row in ({"prompt": turns, **beside}, {"prompt": transcript, **told}, json.loads(to_line(expected))):
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        (outcome,) = SourceReader(Source(path=str(tmp_path / "a.jsonl")), Demonstration)
        assert outcome.row == expected


def test_of_a_comparison_only_the_chosen_answer_is_imitated() -> None:
    """Nobody preferred the earlier answers of its prompt."""
    tokenizer = tiny_tokenizer()
    before = tuple(
        message(role, text) for role, text in (("user", "hello"), ("assistant", "the cat"), ("user", "world"))
    )
    row = to_kind(Comparison(prompt=before, chosen="a dog", rejected="no"), Demonstration)
    assert Demonstration.model_validate_json(to_line(row)) == row
    _, labels = ChatEncoder(tokenizer).demonstration(row, "all")
    assert tokenizer.decode([label for label in labels if label != NO_LOSS]) == "a dog</s>"
    same = Demonstration(messages=row.messages)
    _, labels = ChatEncoder(tokenizer).demonstration(same, "all")
    assert tokenizer.decode([label for label in labels if label != NO_LOSS]) == "the cat</s>a dog</s>"
    single = to_kind(Comparison(prompt=before[:1], chosen="a dog", rejected="no"), Demonstration)
    assert "last_only" not in to_line(single)
