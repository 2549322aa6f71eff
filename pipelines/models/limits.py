"""How long a row may be: what the configuration allows, and what the model's positions can hold."""

from __future__ import annotations

from transformers import PretrainedConfig

from pipelines.config.ppo import PpoSection
from pipelines.config.training import TrainerSection
from pipelines.errors import UsageError
from pipelines.progress import Reporter


def position_bound(model: PretrainedConfig) -> int | None:
    """Most tokens that the model was built for; None where positions are not bounded."""
    bound = getattr(model.get_text_config(), "max_position_embeddings", None)
    return int(bound) if bound else None


def length_limit(section: TrainerSection, model: PretrainedConfig, reporter: Reporter) -> int:
    """`max_length`, or the model's own bound where that is lower."""
    bound = position_bound(model)
    if bound is not None and section.max_length > bound:
        reporter.warn(f"max_length {section.max_length} is above what the model can hold; {bound} is used")
        return bound
    return section.max_length


def prompt_limit(settings: PpoSection, model: PretrainedConfig, reporter: Reporter) -> int:
    """`ppo.max_prompt_length`, or what the model's bound leaves beside a response where that is lower.

    Raises:
        UsageError: a response alone fills the model.
    """
    bound = position_bound(model)
    room = settings.max_prompt_length if bound is None else bound - settings.response_length
    if room < 1:
        raise UsageError(
            f"the model holds {bound} tokens, so a response of {settings.response_length} leaves no room for a prompt",
            where="ppo.response_length",
            hint="lower ppo.response_length",
        )
    if room < settings.max_prompt_length:
        reporter.warn(f"the model holds {bound} tokens: prompts above {room} are left out")
    return min(room, settings.max_prompt_length)
