"""Lengths in tokens by the stages' own encoders, and the rows that each stage would leave out or cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """Measures rows with the tokenizer of the configured model, by the limits of the configuration.

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
        """Return the fit of the rows, whose places are given beside them, for each stage that they can serve."""
        fits = {}
        for stage, (kind, encode, overlong) in self._stages().items():
            usable = [(place, row) for place, row in zip(places, rows, strict=True) if _serves(row, kind)]
            if usable:
                fits[stage] = _fit(usable, kind, encode, self.limits[stage], overlong, stage, reporter)
        return fits

    def _stages(self) -> dict[str, tuple[type[Any], Callable[..., Any], str]]:
        """Kind of row, encoder of one row within a limit, and what happens to longer ones, by stage."""
        from pipelines.data.encode import encode_comparisons, encode_demonstrations, encode_judgements, encode_prompts

        config, encoder = self.config, self.encoder
        sft, reward, train_on = config.sft.overlong, config.reward.overlong, config.sft.train_on

        def demonstration(row: Demonstration, limit: int, overlong: Any) -> Any:
            return encode_demonstrations([row], encoder, limit, overlong, train_on)

        return {
            "sft": (Demonstration, demonstration, sft),
            "reward": (Comparison, lambda row, *limit: encode_comparisons([row], encoder, *limit), reward),
            "pointwise": (Judgement, lambda row, *limit: encode_judgements([row], encoder, *limit), reward),
            "ppo": (Prompt, lambda row, limit, _: encode_prompts([row], encoder, limit), "drop"),
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
            same = to_kind(row, kind)
            try:
                lengths.append(encode(same, UNBOUNDED, "drop")[1].longest)
            except DataError as error:
                refused, reason, where = refused + 1, reason or error.message, where or place
            else:
                if lengths[-1] > limit:
                    is_cut = overlong == "cut" and _is_left(encode, same, limit)
                    cut, dropped = cut + is_cut, dropped + (not is_cut)
            if number % _STEP == 0 or number == len(rows):
                task.advance((number - 1) % _STEP + 1)
    return Fit(limit, len(rows), dropped, cut, refused, reason, where, spread(lengths))


def _is_left(encode: Callable[..., Any], row: CanonicalRow, limit: int) -> bool:
    """Whether something is left of a row that is cut."""
    try:
        return bool(encode(row, limit, "cut")[1].used)
    except DataError:
        return False


def _serves(row: CanonicalRow, kind: type[Any]) -> bool:
    if not can_serve(type(row), kind):
        return False
    return not (isinstance(row, Demonstration) and row.text is not None and kind is not Demonstration)


def _limits(config: Config, path: str) -> dict[str, int]:
    """Tokens that a row may have in each stage: as configured, or as the model's positions allow where that is less."""
    from pipelines.models.base_model import length_limit, load_config, prompt_limit

    stages = {"sft": config.sft, "reward": config.reward, "pointwise": config.reward}
    try:
        model = load_config(config.model, path, revision=config.model.revision)
    except RlhfError:  # a tokenizer without a model beside it
        return {name: section.max_length for name, section in stages.items()} | {"ppo": config.ppo.max_prompt_length}
    quiet = SilentReporter()
    limits = {name: length_limit(section, model, quiet) for name, section in stages.items()}
    return limits | {"ppo": prompt_limit(config.ppo, model, quiet)}
