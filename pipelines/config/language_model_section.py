"""`eval.language_model`: a language model behind an OpenAI-compatible address that compares answers."""

from __future__ import annotations

from pydantic import Field, field_validator

from pipelines.config.scorer_section import check_url
from pipelines.config.section import Section, cosmetic


class LanguageModelSection(Section):
    """A judge that reads both answers, in both orders, and says which one is better."""

    url: str = Field(
        description="Address of the chat completions, such as http://localhost:8000/v1/chat/completions; ${NAME} in it "
        "stands for a variable of the environment."
    )
    model: str = Field(description="Name of the model, as the server knows it.")
    token_env: str | None = Field(None, description="Environment variable whose value is sent as a bearer token.")
    num_prompts: int = Field(
        200, ge=2, description="Maximum number of held-out prompts whose answers it compares; two requests each."
    )
    max_tokens: int = Field(1024, ge=1, description="Maximum number of tokens of its reply, its thoughts included.")
    timeout: float = cosmetic(120.0, gt=0, description="Seconds to wait for one reply.")
    retries: int = cosmetic(
        4,
        ge=0,
        description="Number of retries after a 5xx answer, a timeout, a lost connection or an unreadable reply.",
    )
    concurrency: int = cosmetic(4, ge=1, description="Number of requests at a time.")

    @field_validator("url")
    @classmethod
    def _an_address_that_can_be_asked(cls, value: str) -> str:
        check_url(value)
        return value
