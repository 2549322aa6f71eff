"""Lengths in tokens by the stages' own encoders, and the rows that each stage would leave out or cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.config import Config
from pipelines.data.canonical import can_serve, to_kind
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Prompt
from pipelines.errors import DataError, RlhfError
from pipelines.report.statistics import Spread, spread
from pipelines.run.reporting import Reporter, SilentReporter

if TYPE_CHECKING:
    from pipelines.data.encode import ChatEncoder

UNBOUNDED = 10**9
_STEP = 100


@dataclass(frozen=True)
class Fit:
    """Token lengths of the rows of one stage, and how many fit.

    Attributes:
        limit: tokens that a row may have there.
        rows: rows that were measured.
        dropped: rows that the stage would leave out as too long; with `overlong: fail` it would stop at them.
        cut: rows that it would shorten.
        refused: rows that cannot be encoded at all, and the first reason.
        reason: of the first refused row.
        place: of the first refused row.
        tokens: lengths; None where no row could be measured.
    """

    limit: int
    rows: int
    dropped: int
    cut: int
    refused: int
    reason: str | None
    place: str | None
    tokens: Spread | None


class Measure:
    """Measures rows with one model's tokenizer.

    Args:
        config: with the model, the limits and what to do with rows above them.

    Raises:
        ArtifactError, HubError, UsageError: the tokenizer cannot be had.
    """

    def __init__(self, config: Config) -> None:
        from pipelines.data.encode import ChatEncoder
        from pipelines.models.base_ref import BaseRef
        from pipelines.models.tokenizer import load_tokenizer

        self.config = config
        base = BaseRef.outside(config.model)
        path = str(base.name_or_path)
        self.tokenizer: Any = load_tokenizer(path, config.model, revision=config.model.revision)
        self.encoder: ChatEncoder = ChatEncoder(self.tokenizer)
        self.limits = _limits(config, path)

    def fits(self, rows: Sequence[CanonicalRow], places: Sequence[str], reporter: Reporter) -> dict[str, Fit]:
        """Return the fit of the rows for each stage that they can serve.

        Args:
            rows: measured one by one.
            places: of the rows.
            reporter: shows the progress.
        """
        fits = {}
        for stage, (kind, encode, overlong) in self._stages().items():
            usable = [(place, row) for place, row in zip(places, rows, strict=True) if _serves(row, kind)]
            if usable:
                fits[stage] = _fit(usable, kind, encode, self.limits[stage], overlong, stage, reporter)
        return fits

    def _stages(self) -> dict[str, tuple[type[Any], Callable[..., Any], str]]:
        from pipelines.data.encode import encode_comparisons, encode_demonstrations, encode_judgements, encode_prompts

        config, encoder = self.config, self.encoder

        def demonstration(row: Demonstration, limit: int, overlong: Any) -> Any:
            return encode_demonstrations([row], encoder, limit, overlong, config.sft.train_on)[1]

        def comparison(row: Comparison, limit: int, overlong: Any) -> Any:
            return encode_comparisons([row], encoder, limit, overlong)[1]

        def judgement(row: Judgement, limit: int, overlong: Any) -> Any:
            return encode_judgements([row], encoder, limit, overlong)[1]

        def prompt(row: Prompt, limit: int, overlong: Any) -> Any:
            return encode_prompts([row], encoder, limit)[1]

        return {
            "sft": (Demonstration, demonstration, config.sft.overlong),
            "reward": (Comparison, comparison, config.reward.overlong),
            "pointwise": (Judgement, judgement, config.reward.overlong),
            "ppo": (Prompt, prompt, "drop"),
        }


def _fit(
    rows: Sequence[tuple[str, CanonicalRow]],
    kind: type[Any],
    encode: Callable[..., Any],
    limit: int,
    overlong: str,
    stage: str,
    reporter: Reporter,
) -> Fit:
    lengths: list[int] = []
    dropped = cut = refused = 0
    reason: str | None = None
    where: str | None = None
    with reporter.task(f"measuring for {stage} (rows)", len(rows)) as task:
        for number, (place, row) in enumerate(rows, 1):
            measure = partial(encode, to_kind(row, kind))
            try:
                lengths.append(measure(UNBOUNDED, "drop").longest)
            except DataError as error:
                refused, reason, where = refused + 1, reason or error.message, where or place
            else:
                if lengths[-1] > limit:
                    is_cut = overlong == "cut" and _is_left(measure, limit)
                    cut, dropped = cut + is_cut, dropped + (not is_cut)
            if number % _STEP == 0 or number == len(rows):
                task.advance((number - 1) % _STEP + 1)
    return Fit(limit, len(rows), dropped, cut, refused, reason, where, spread(lengths))


def _is_left(measure: Callable[..., Any], limit: int) -> bool:
    """Whether something is left of a row that is cut."""
    try:
        return bool(measure(limit, "cut").used)
    except DataError:
        return False


def _serves(row: CanonicalRow, kind: type[Any]) -> bool:
    if not can_serve(type(row), kind):
        return False
    return not (isinstance(row, Demonstration) and row.text is not None and kind is not Demonstration)


def _limits(config: Config, path: str) -> dict[str, int]:
    """Tokens that a row may have in each stage: as configured, or as the model's positions allow where that is less."""
    from pipelines.models.base_model import length_limit, load_config, prompt_limit

    try:
        model = load_config(config.model, path, revision=config.model.revision)
    except RlhfError:  # a tokenizer without a model beside it
        return {
            "sft": config.sft.max_length,
            "reward": config.reward.max_length,
            "pointwise": config.reward.max_length,
            "ppo": config.ppo.max_prompt_length,
        }
    quiet = SilentReporter()
    return {
        "sft": length_limit(config.sft, model, quiet),
        "reward": length_limit(config.reward, model, quiet),
        "pointwise": length_limit(config.reward, model, quiet),
        "ppo": prompt_limit(config.ppo, model, quiet),
    }
