"""The one encoder of all stages: the same text gives the same ids in SFT, reward training and PPO.

A dialogue is rendered by the chat template and tokenized as a whole: its ids are those of
`apply_chat_template(tokenize=True)`. Answers are found in it by character offsets. An answer that is trained or scored
ends on EOS; earlier turns end as the template ends them.

The prompt always keeps the ids that it has by itself, because a served model is given those and cannot take one back.
Where the tokenizer would join the end of the prompt and the beginning of the answer in one token, that token is split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pipelines.data.faults import BadRow, shorten
from pipelines.data.rows import Comparison, Demonstration, Message
from pipelines.errors import UsageError
from pipelines.run.signals import time_limit

NO_LOSS = -100
_PROBE = "probe"
_MOST_SECONDS = 20
"""Seconds in which a chat template, a program of the model's repository, must have written a dialogue."""
_OTHER = "give the model another chat template"
_TAKE_OUT = "take it out of the text, or leave the row out; `rlhf data check --model NAME` counts such rows"
Ids = list[int]


class _Tokens(NamedTuple):
    ids: Ids
    offsets: list[tuple[int, int]] | None
    """Start and end of each token in the text; None: the tokenizer is in Python and does not tell."""


class ChatEncoder:
    """Dialogues to token ids and back.

    Without a chat template, one user message and one answer are plain text that follow each other.

    Raises:
        UsageError: the tokenizer has no EOS token.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise UsageError("the tokenizer has no EOS token, so no answer could end", where="model")
        self._tokenizer = tokenizer
        self._eos: str = tokenizer.eos_token
        self._eos_id: int = tokenizer.eos_token_id

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template; without one, text goes in as it is."""
        return bool(self._tokenizer.chat_template)

    @property
    def eos_token_id(self) -> int:
        """The token that ends an answer."""
        return self._eos_id

    @property
    def bos_id(self) -> int | None:
        """The token that opens a text, where the tokenizer has one."""
        bos: int | None = self._tokenizer.bos_token_id
        return bos

    def prompt(self, messages: Sequence[Message]) -> Ids:
        """Ids up to where the assistant's answer starts.

        Raises:
            DataError: the template refuses the turns, or there is none and the prompt is more than one user message.
        """
        return self._ids(self._prompt_text(messages)) if self.has_template else self._raw_prompt(messages)

    def answer(self, messages: Sequence[Message], completion: str) -> Ids:
        """Ids of the completion with its EOS, where it answers the prompt `messages`.

        Raises:
            DataError: as for `prompt`; or the completion contains the EOS token as text.
        """
        return self._turn(messages, Message(role="assistant", content=completion))

    def _turn(self, messages: Sequence[Message], turn: Message) -> Ids:
        """Ids of the assistant's turn, which may call tools, after the prompt `messages`."""
        self._refuse_eos_in(turn)
        if not self.has_template:
            _refuse_tools([*messages, turn], "")
            prompt = self._raw_text(messages)
            return [*self._continuation(prompt, prompt + turn.content), self._eos_id]
        opening = self._render(messages, open_turn=True)
        whole = self._render([*messages, turn])
        if not whole.startswith(opening):
            raise BadRow(
                "the chat template writes the prompt differently once it is answered",
                _beginning(messages),
                hint="give the model a chat template that only appends",
            )
        answer = self._closed_turn(whole[len(opening) :], turn).removesuffix(self._eos)
        return [*self._continuation(opening, opening + answer), self._eos_id]

    def demonstration(self, row: Demonstration, train_on: Literal["all", "last"]) -> tuple[Ids, Ids]:
        """Ids of the dialogue, and labels: the same ids on the trained assistant turns, -100 elsewhere.

        A row that is a text has its own ids and EOS, without a template, and all of them but a BOS are trained.

        Raises:
            DataError: as for `answer`; with ``all`` also where the template does not keep earlier turns as they were.
        """
        if row.text is not None:
            return self._text(row.text)
        messages, last = row.messages[:-1], row.messages[-1]
        answer = self._turn(messages, last)
        if not self.has_template:
            prompt = self._raw_prompt(messages)
            return prompt + answer, [NO_LOSS] * len(prompt) + answer
        text = self._prompt_text(messages)
        tokens = self._tokens(text)
        labels = [NO_LOSS] * len(tokens.ids)
        for start, end in self._earlier_answers(messages, text) if train_on == "all" and not row.last_only else ():
            for index in self._within(tokens, text, start, end):
                labels[index] = tokens.ids[index]
        return tokens.ids + answer, labels + answer

    def comparison(self, row: Comparison) -> tuple[Ids, Ids, Ids]:
        """Ids of the prompt, of the chosen and of the rejected answer; each answer ends on EOS.

        Raises:
            DataError: as for `answer`.
        """
        return self.prompt(row.prompt), self.answer(row.prompt, row.chosen), self.answer(row.prompt, row.rejected)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion up to its EOS, without special tokens and without what the template puts around it."""
        before, after = self._around_answer
        return self._continuation_text(ids).removeprefix(before).removesuffix(after)

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """Text of ids that begin a text, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _continuation_text(self, ids: Sequence[int]) -> str:
        """Text of ids up to EOS as it follows other text: some tokenizers drop the blank that begins a text."""
        kept = list(ids)
        if self._eos_id in kept:
            kept = kept[: kept.index(self._eos_id)]
        before = self._ids(_PROBE)
        return self.decode_prompt(before + kept).removeprefix(self.decode_prompt(before))

    @cached_property
    def _around_answer(self) -> tuple[str, str]:
        """Return what the template writes before the text of an assistant turn, and between text and EOS."""
        if not self.has_template:
            return "", ""
        question = (Message(role="user", content=_PROBE),)
        try:
            text = self._continuation_text(self.answer(question, _PROBE))
        except BadRow:
            return "", ""
        before, probe, after = text.partition(_PROBE)
        return (before, after) if probe else ("", "")

    def _prompt_text(self, messages: Sequence[Message]) -> str:
        """Render a prompt up to where the answer starts, with the earlier answers checked for EOS as text."""
        for message in messages:
            if message.role == "assistant":
                self._refuse_eos_in(message)
        return self._render(messages, open_turn=True)

    def _earlier_answers(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """Find the earlier assistant turns in the text of a prompt: start and end of each, the end token included."""
        spans: list[tuple[int, int]] = []
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            opening = self._render(messages[:index], open_turn=True)
            closing = self._render(messages[: index + 1])
            answer = self._closed_turn(closing[len(opening) :], message)
            if not closing.startswith(opening) or not text.startswith(opening + answer):
                raise BadRow(
                    "the chat template writes earlier assistant turns differently once the dialogue goes on "
                    "(reasoning is dropped, for example)",
                    _beginning(messages),
                    hint="set sft.train_on: last",
                )
            spans.append((len(opening), len(opening) + len(answer)))
        return spans

    def _closed_turn(self, text: str, turn: Message) -> str:
        """Cut what the template writes from an assistant turn on at the turn's end.

        The turn ends with EOS where the template has it. Else blanks after what the turn says are the template's and
        belong to what follows.
        """
        answer, eos, _ = text.partition(self._eos)
        if eos:
            return answer + eos
        said = text.rfind(turn.content) + len(turn.content) if turn.content in text and turn.content.strip() else 0
        return text[: max(len(text.rstrip()), said)]

    def _raw_prompt(self, messages: Sequence[Message]) -> Ids:
        return self._raw_ids(self._raw_text(messages))

    def _raw_text(self, messages: Sequence[Message]) -> str:
        if len(messages) != 1 or messages[0].role != "user":
            raise BadRow(
                "the tokenizer has no chat template, so a prompt must be one user message",
                f"{_beginning(messages)}, and there are {len(messages)} turns",
                hint="set model.chat_template",
            )
        _refuse_tools(messages, "")
        return messages[0].content

    def _raw_ids(self, text: str) -> Ids:
        """Ids of a text with what the tokenizer puts before it, without the EOS that some put after it."""
        ids: Ids = list(self._tokenizer(text, verbose=False)["input_ids"])
        return ids[:-1] if ids and ids[-1] == self._eos_id else ids

    def _text(self, text: str) -> tuple[Ids, Ids]:
        if self._eos in text:
            raise BadRow(
                f"a text contains the EOS token {self._eos} as text, so it would end there",
                shorten(text),
                hint=_TAKE_OUT,
            )
        ids = [*self._raw_ids(text), self._eos_id]
        # BOS stands before every text and follows from nothing, and EOS may be the same token.
        return ids, [NO_LOSS, *ids[1:]] if ids[0] == self.bos_id else list(ids)

    def _ids(self, text: str) -> Ids:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []

    def _continuation(self, prompt: str, whole: str) -> Ids:
        """Ids of the text after `prompt` as they are in `whole`, whose beginning it is."""
        ids, offsets = self._tokens(whole)
        boundary = len(prompt)
        if offsets is None:
            before = self._ids(prompt)
            return ids[len(before) :] if ids[: len(before)] == before else self._ids_inside(whole[boundary:])
        first = next((index for index, (_, end) in enumerate(offsets) if end > boundary), len(ids))
        after = next((index for index in range(first, len(ids)) if offsets[index][0] >= boundary), len(ids))
        split = whole[boundary : offsets[after - 1][1]] if after > first else ""
        return self._ids_inside(split) + ids[after:]

    def _within(self, tokens: _Tokens, text: str, start: int, end: int) -> range:
        """Indexes of the tokens that hold any of `text[start:end]`."""
        if tokens.offsets is None:
            return range(len(self._ids(text[:start])), len(self._ids(text[:end])))
        first = next((index for index, (_, last) in enumerate(tokens.offsets) if last > start), len(tokens.ids))
        after = next((index for index in range(first, len(tokens.ids)) if tokens.offsets[index][0] >= end), None)
        return range(first, len(tokens.ids) if after is None else after)

    def _tokens(self, text: str) -> _Tokens:
        """Tokenize a text whole, with the place of each token in it."""
        if not self._tokenizer.is_fast or not text:
            return _Tokens(self._ids(text), None)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return _Tokens(list(encoded["input_ids"]), list(encoded["offset_mapping"]))

    def _ids_inside(self, text: str) -> Ids:
        """Ids of a text that follows other text: some tokenizers put a blank before a text that stands alone."""
        before = self._ids("\n")
        ids = self._ids("\n" + text)
        return ids[len(before) :] if ids[: len(before)] == before else self._ids(text)

    def _render(self, messages: Sequence[Message], *, open_turn: bool = False) -> str:
        text = self._rendered(messages, open_turn)
        for index, message in enumerate(messages):
            content = message.content.strip()
            if content in text:
                continue
            # It may stand there in another form: trimmed, as JSON, without its reasoning.
            other = message.model_copy(update={"content": f"{message.content}\n{_PROBE}"})
            if self._rendered([*messages[:index], other, *messages[index + 1 :]], open_turn) == text:
                raise BadRow(
                    f"the chat template leaves out what a {message.role} turn says",
                    _beginning(messages),
                    hint=_merging(messages)
                    or "give the model a chat template that writes such turns "
                    "(model.chat_template), or leave such rows out",
                )
        return text

    def _rendered(self, messages: Sequence[Message], open_turn: bool) -> str:
        turns = [message.model_dump(exclude={"tools"}) for message in messages]
        return rendered(self._tokenizer, messages, turns, open_turn=open_turn)

    def _refuse_eos_in(self, message: Message) -> None:
        if self._eos in message.content + (
            json.dumps(message.tool_calls, ensure_ascii=False) if message.tool_calls else ""
        ):
            raise BadRow(
                f"an answer contains the EOS token {self._eos} as text, so it would end there",
                shorten(message.content),
                hint=_TAKE_OUT,
            )


def rendered(
    tokenizer: Any, messages: Sequence[Message], turns: Sequence[dict[str, Any]], *, open_turn: bool = False
) -> str:
    """Write a dialogue by a chat template.

    `turns` are those of the dialogue as the template takes them, without the tools.

    Raises:
        BadRow: the template refuses it, takes too long, or would drop tools or calls of them.
    """
    tools = messages[0].tools
    slow = BadRow(f"the chat template takes more than {_MOST_SECONDS} seconds", _beginning(messages), hint=_OTHER)
    try:
        _refuse_tools(messages, tokenizer.get_chat_template(tools=tools))
        with time_limit(_MOST_SECONDS, slow):
            return str(
                tokenizer.apply_chat_template(
                    turns, tools=list(tools) if tools else None, tokenize=False, add_generation_prompt=open_turn
                )
            )
    except BadRow:
        raise
    except Exception as error:  # a template is a program of its own and may raise anything
        raise BadRow(
            f"the chat template refuses the dialogue: {error}",
            _beginning(messages),
            hint=_merging(messages) or f"change the row, or {_OTHER}",
        ) from error


def _refuse_tools(messages: Sequence[Message], template: str) -> None:
    """Raise where there are tools, or calls of them, that the template never mentions: it would drop them."""
    used = {"tools": messages[0].tools, "tool_calls": any(message.tool_calls for message in messages)}
    for word in (word for word, is_used in used.items() if is_used):
        if not re.search(rf"\b{word}\b", template):
            what = "the chat template never mentions" if template else "there is no chat template that could write"
            raise BadRow(
                f"{what} `{word}`, which the dialogue has",
                _beginning(messages),
                hint="give the model a chat template for tools (model.chat_template), or leave such rows out",
            )


def _beginning(messages: Sequence[Message]) -> str:
    first = next((message.content for message in messages if message.role == "user"), "")
    return f"the dialogue begins with {shorten(first)}"


def _merging(messages: Sequence[Message]) -> str | None:
    """Return the usual remedy where a template may refuse the row because of its system turn."""
    if messages[0].role != "system":
        return None
    return "set model.merge_system_turn: true, and the system turn stands in the first user turn; or change the row"
