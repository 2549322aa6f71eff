"""The one encoder of all stages: the same text gives the same ids in SFT, reward training and PPO.

A dialogue is rendered by the chat template and cut where each assistant turn starts and ends. Every piece is tokenized
by itself, so the boundary between prompt and answer is always a boundary between tokens; an answer ends on EOS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal, NamedTuple

from pipelines.data.faults import shorten
from pipelines.data.rows import Comparison, Demonstration, Message
from pipelines.errors import DataError, UsageError

NO_LOSS = -100
_PROBE = "probe"
_TAKE_OUT = "take it out of the text, or leave the row out; `rlhf data check --model NAME` counts such rows"
Ids = list[int]


class _Segment(NamedTuple):
    ids: Ids
    is_answer: bool


class _UnstableTemplate(Exception):
    """The template writes the beginning of a dialogue differently once it goes on."""


class ChatEncoder:
    """Dialogues to token ids and back.

    Without a chat template, one user message and one answer are plain text that follow each other.

    Args:
        tokenizer: of transformers.

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
        return _joined(self._prompt_segments(messages))

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
            self._refuse_tools([*messages, turn], "")
            return [*self._ids(turn.content), self._eos_id]
        opening = self._render(messages, open_turn=True)
        whole = self._render([*messages, turn])
        if not whole.startswith(opening):
            raise DataError(
                "the chat template writes the prompt differently once it is answered: "
                f"the dialogue that begins with {_beginning(messages)}",
                hint="give the model a chat template that only appends",
            )
        return self._ended(whole[len(opening) :], turn)[0]

    def demonstration(self, row: Demonstration, train_on: Literal["all", "last"]) -> tuple[Ids, Ids]:
        """Ids of the dialogue, and labels: the same ids on the trained assistant turns, -100 elsewhere.

        A row that is a text has its own ids and EOS, without a template, and all of them but a BOS are trained.

        Raises:
            DataError: as for `answer`; with ``all`` also where the template does not keep earlier turns as they were.
        """
        if row.text is not None:
            return self._text(row.text)
        messages, last = row.messages[:-1], row.messages[-1]
        try:
            segments = self._prompt_segments(messages, cut_or_raise=train_on == "all")
        except _UnstableTemplate:
            raise DataError(
                "the chat template writes earlier assistant turns differently once the dialogue goes on "
                f"(reasoning is dropped, for example): the dialogue that begins with {_beginning(messages)}",
                hint="set sft.train_on: last",
            ) from None
        segments.append(_Segment(self._turn(messages, last), True))
        labels: Ids = []
        for segment in segments:
            trained = segment.is_answer and (train_on == "all" or segment is segments[-1])
            labels += segment.ids if trained else [NO_LOSS] * len(segment.ids)
        return _joined(segments), labels

    def comparison(self, row: Comparison) -> tuple[Ids, Ids, Ids]:
        """Ids of the prompt, of the chosen and of the rejected answer; each answer ends on EOS.

        Raises:
            DataError: as for `answer`.
        """
        return self.prompt(row.prompt), self.answer(row.prompt, row.chosen), self.answer(row.prompt, row.rejected)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion up to its EOS, without special tokens and without what the template puts around it."""
        kept = list(ids)
        if self._eos_id in kept:
            kept = kept[: kept.index(self._eos_id)]
        text: str = self._tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        before, after = self._around_answer
        return text.removeprefix(before).removesuffix(after)

    @cached_property
    def _around_answer(self) -> tuple[str, str]:
        """Return what the template writes before the text of an assistant turn, and between text and EOS."""
        if not self.has_template:
            return "", ""
        question = Message(role="user", content=_PROBE)
        try:
            opening = self._render([question], open_turn=True)
            whole = self._render([question, Message(role="assistant", content=_PROBE)])
        except DataError:
            return "", ""
        before, probe, after = whole.removeprefix(opening).partition(_PROBE)
        return (before, after.partition(self._eos)[0].rstrip()) if probe else ("", "")

    def _prompt_segments(self, messages: Sequence[Message], *, cut_or_raise: bool = False) -> list[_Segment]:
        """The prompt in pieces, its earlier assistant turns each by itself.

        Where the template does not keep earlier turns as they were, the prompt is one piece, in every stage alike.

        Raises:
            _UnstableTemplate: the same, with `cut_or_raise`.
        """
        if not self.has_template:
            return [_Segment(self._raw_prompt(messages), False)]
        whole = self._render(messages, open_turn=True)
        try:
            return self._cut(messages, whole)
        except _UnstableTemplate:
            if cut_or_raise:
                raise
            return [_Segment(self._ids(whole), False)]

    def _cut(self, messages: Sequence[Message], whole: str) -> list[_Segment]:
        segments: list[_Segment] = []
        done, rest = 0, ""
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            self._refuse_eos_in(message)
            opening = self._render(messages[:index], open_turn=True)
            closing = self._render(messages[: index + 1])
            if len(opening) < done or not closing.startswith(opening) or not whole.startswith(closing):
                raise _UnstableTemplate
            segments.append(_Segment(self._ids(rest + whole[done : len(opening)]), False))
            ids, rest = self._ended(closing[len(opening) :], message)
            segments.append(_Segment(ids, True))
            done = len(closing)
        segments.append(_Segment(self._ids(rest + whole[done:]), False))
        return segments

    def _ended(self, text: str, turn: Message) -> tuple[Ids, str]:
        """Ids of an assistant turn with EOS as the last, and the text that belongs to what follows.

        Where the template closes the turn with another token or with none, EOS is appended: it is the token that
        generation stops at. Blanks after what the turn says are the template's, and belong to what follows.
        """
        answer, eos, rest = text.partition(self._eos)
        if not eos:
            said = text.rfind(turn.content) + len(turn.content) if turn.content in text and turn.content.strip() else 0
            end = max(len(text.rstrip()), said)
            answer, rest = text[:end], text[end:]
        return [*self._ids(answer), self._eos_id], rest

    def _raw_prompt(self, messages: Sequence[Message]) -> Ids:
        if len(messages) != 1 or messages[0].role != "user":
            raise DataError(
                "the tokenizer has no chat template, so a prompt must be one user message: "
                f"the dialogue that begins with {_beginning(messages)} has {len(messages)} turns",
                hint="set model.chat_template",
            )
        self._refuse_tools(messages, "")
        return self._raw_ids(messages[0].content)

    def _raw_ids(self, text: str) -> Ids:
        """Ids of a text with what the tokenizer puts before it, without the EOS that some put after it."""
        ids: Ids = list(self._tokenizer(text, verbose=False)["input_ids"])
        return ids[:-1] if ids and ids[-1] == self._eos_id else ids

    def _text(self, text: str) -> tuple[Ids, Ids]:
        if self._eos in text:
            raise DataError(
                f"a text contains the EOS token {self._eos} as text, so it would end there: {shorten(text)}",
                hint=_TAKE_OUT,
            )
        ids = [*self._raw_ids(text), self._eos_id]
        # BOS stands before every text and follows from nothing, and EOS may be the same token.
        return ids, [NO_LOSS, *ids[1:]] if ids[0] == self.bos_id else list(ids)

    def _ids(self, text: str) -> Ids:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []

    def _render(self, messages: Sequence[Message], *, open_turn: bool = False) -> str:
        text = self._rendered(messages, open_turn)
        for index, message in enumerate(messages):
            content = message.content.strip()
            if content in text:
                continue
            # It may stand there in another form: trimmed, as JSON, without its reasoning.
            other = message.model_copy(update={"content": f"{message.content}\n{_PROBE}"})
            if self._rendered([*messages[:index], other, *messages[index + 1 :]], open_turn) == text:
                raise DataError(
                    f"the chat template leaves out what a {message.role} turn says: "
                    f"the dialogue that begins with {_beginning(messages)}",
                    hint="give the model a chat template that writes such turns (model.chat_template), "
                    "or leave such rows out",
                )
        return text

    def _rendered(self, messages: Sequence[Message], open_turn: bool) -> str:
        tools = messages[0].tools
        turns = [message.model_dump(include={"role", "content", "tool_calls"}) for message in messages]
        try:
            template = self._tokenizer.get_chat_template(tools=tools)
            self._refuse_tools(messages, template)
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tools=list(tools) if tools else None, tokenize=False, add_generation_prompt=open_turn
                )
            )
        except DataError:
            raise
        except Exception as error:  # a template is a program of its own and may raise anything
            raise DataError(
                f"the chat template refuses the dialogue that begins with {_beginning(messages)}: {error}",
                hint="change the row, or give the model another chat template",
            ) from error

    def _refuse_tools(self, messages: Sequence[Message], template: str) -> None:
        """Raise where there are tools, or calls of them, that the template never mentions: it would drop them."""
        used = {"tools": messages[0].tools, "tool_calls": any(message.tool_calls for message in messages)}
        for word in (word for word, is_used in used.items() if is_used):
            if not re.search(rf"\b{word}\b", template):
                what = "the chat template never mentions" if template else "there is no chat template that could write"
                raise DataError(
                    f"{what} `{word}`, which the dialogue that begins with {_beginning(messages)} has",
                    hint="give the model a chat template for tools (model.chat_template), or leave such rows out",
                )

    def _refuse_eos_in(self, message: Message) -> None:
        if self._eos in message.content + (
            json.dumps(message.tool_calls, ensure_ascii=False) if message.tool_calls else ""
        ):
            raise DataError(
                f"an answer contains the EOS token {self._eos} as text, so it would end there: "
                f"{shorten(message.content)}",
                hint=_TAKE_OUT,
            )


def _joined(segments: Sequence[_Segment]) -> Ids:
    return list(chain.from_iterable(segment.ids for segment in segments))


def _beginning(messages: Sequence[Message]) -> str:
    return shorten(next((message.content for message in messages if message.role == "user"), ""))
