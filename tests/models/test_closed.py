"""What a reward model reads of a response that ended on a stop token other than EOS."""

from __future__ import annotations

from pipelines.config.model_section import ModelSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.rows import Message
from pipelines.models.generate import closed
from pipelines.models.reward_model import TokenRewardModel
from tests.tiny import tiny_llama, tiny_tokenizer


def test_only_another_stop_token_is_followed_by_eos() -> None:
    assert closed([5, 6, 9], (2, 9)) == [5, 6, 9, 2]
    assert closed([5, 6, 2], (2, 9)) == [5, 6, 2]
    assert closed([5, 6, 7], (2, 9)) == [5, 6, 7]


def test_the_reward_model_reads_an_eos_at_the_end() -> None:
    tokenizer = tiny_tokenizer()
    model = TokenRewardModel(tiny_llama(tokenizer), ChatEncoder(tokenizer), ModelSection(), 4)
    prompt, eos = (Message(role="user", content="hello"),), tokenizer.eos_token_id
    asked = model.row(prompt, "", [10], finished=False).ids[:-1]
    assert model.row(prompt, "", [10, 11], finished=True).ids == [*asked, 10, 11, eos]
    assert model.row(prompt, "", [10, eos], finished=True).ids == [*asked, 10, eos]
    assert model.row(prompt, "", [10, 11], finished=False).ids == [*asked, 10, 11]
