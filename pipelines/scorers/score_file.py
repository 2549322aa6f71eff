"""Scores of the answers in a data file by `ppo.reward` or another scorer, and their agreement with labels."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import Config
from pipelines.config.data_section import OnBadRow, Source
from pipelines.config.scorer_section import ScorerSection
from pipelines.data.read import good_rows
from pipelines.data.rows import CanonicalRow, Comparison, Demonstration, Judgement, Message
from pipelines.errors import DataError
from pipelines.report.statistics import auc, ranks, wilson
from pipelines.run.directory import RunDir
from pipelines.run.manifest import Manifest, refuse_damaged
from pipelines.run.reporting import Reporter, SilentReporter
from pipelines.scorers.examine import Answer, examine
from pipelines.scorers.load_scorer import load_scorer, scorer_name
from pipelines.scorers.protocol import Completion, ScoreError, ScorerWithParts, counts_of

if TYPE_CHECKING:
    from pipelines.data.chat import ChatEncoder

QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class Row:
    """A row of the file: its place, prompt, and answers by their role: chosen and rejected, or completion alone.

    With the label of the completion, where it has one; a comparison comes with the row itself.
    """

    place: str
    prompt: tuple[Message, ...]
    answers: Mapping[str, str]
    label: float | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class RunContext:
    """A `ScorerContext` outside any stage."""

    config: Config
    inputs: Mapping[str, Path]


def context_of_run(config: Config, run_dir: RunDir | None) -> RunContext:
    """The configuration, with the run's SFT and reward stages where they are complete."""
    names = () if run_dir is None else ("sft", "reward")
    newest = {name: run_dir.newest(name) for name in names if run_dir is not None}
    complete = {name: path for name, path in newest.items() if Manifest.read(path) is not None}
    for path in complete.values():
        refuse_damaged(path)
    return RunContext(config, complete)


def read_answers(source: Source, *, on_bad_row: OnBadRow = "fail", reporter: Reporter | None = None) -> list[Row]:
    """Read every row of the file with its answers; `on_bad_row`: drop leaves out, with a warning, those without any.

    Raises:
        DataError: a row is bad or holds no answer, or none is left; see also `SourceReader`.
    """
    rows = list(good_rows(source, None, reporter or SilentReporter(), _with_answers, on_bad_row=on_bad_row))
    if not rows:
        raise DataError("no row with an answer is left", where=source.path)
    return rows


def score_rows(
    section: ScorerSection,
    rows: Sequence[Row],
    context: RunContext,
    reporter: Reporter,
    *,
    as_policy: bool,
    card: bool = False,
) -> dict[str, Any]:
    """Score all answers of all rows.

    Args:
        as_policy: whether the answers pass through the tokenizer of the run's policy first, as in PPO.
        card: whether to make a report card too.

    Returns:
        ``rows``, one plain entry each with its scores and the parts of them, and ``summary``; with `card` also
        ``card``, see `examine`.

    Raises:
        RlhfError: see `load_scorer` and the scorers.
    """
    from pipelines.models.machine import choose_threads, resolve_device

    device = resolve_device(context.config.run)
    encoder = _policy_encoder(context) if as_policy else None
    flat = [(row, role, text) for row in rows for role, text in row.answers.items()]
    prompts = [row.prompt for row, _, _ in flat]
    completions = [_completion(encoder, row, text) for row, _, text in flat]
    with reporter.task(f"answers scored by {scorer_name(section)}", len(flat)) as task:
        scorer = load_scorer(section, context, device, progress=task.advance)
        if parameters := getattr(scorer, "num_parameters", 0):
            choose_threads(context.config.run, parameters, reporter)
        parts: dict[str, list[float]] = {}
        try:
            if isinstance(scorer, ScorerWithParts):
                scores, parts = scorer.with_parts(prompts, completions)
            else:
                scores = scorer(prompts, completions)
        except ScoreError as error:
            row, role, _ = flat[error.row]
            raise DataError(
                error.message, where=f"{row.place} ({role})", hint=error.where and f"see {error.where}"
            ) from error
    entries: list[dict[str, Any]] = [{"place": row.place, "scores": {}} for row in rows]
    for entry, row in zip(entries, rows, strict=True):
        entry |= {"label": row.label} if row.label is not None else {}
        entry |= {"parts": {name: {} for name in parts}} if parts else {}
    owners = (entry for entry, row in zip(entries, rows, strict=True) for _ in row.answers)
    for index, (entry, (_, role, _)) in enumerate(zip(owners, flat, strict=True)):
        entry["scores"][role] = scores[index]
        for name, values in parts.items():
            entry["parts"][name][role] = values[index]
    summary = {"scorer": scorer.name, "rows": len(rows), "counts": counts_of(scorer), **summarize(entries)}
    if section.kind in ("run", "classifier"):
        summary["output"] = section.output
    if not card:
        return {"summary": summary, "rows": entries}

    def score(answers: Sequence[Answer]) -> list[float | None]:
        try:
            read = [_completion(encoder, Row("probe", row.prompt, {}), text) for row, text in answers]
            return list(scorer([row.prompt for row, _ in answers], read))
        except DataError:  # one of them cannot be read
            return [None] if len(answers) == 1 else [value for answer in answers for value in score([answer])]

    return {"summary": summary, "rows": entries, "card": _card(rows, entries, score)}


def _card(
    rows: Sequence[Row], entries: Sequence[Mapping[str, Any]], score: Callable[[Sequence[Answer]], list[float | None]]
) -> dict[str, Any] | None:
    pairs = [(row.comparison, entry["scores"]) for row, entry in zip(rows, entries, strict=True) if row.comparison]
    chosen, rejected = ([scores[role] for _, scores in pairs] for role in ("chosen", "rejected"))
    return examine([row for row, _ in pairs], chosen, rejected, score)


def summarize(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compute figures of the scored rows.

    Returns:
        For each role of answers ``mean``, ``sd`` and quantiles; for comparisons ``accuracy``, the share whose chosen
        answer scores higher (a tie is half), with its 95 % interval (Wilson); for labels ``auc`` where they are 0 and
        1, else ``rank_correlation`` (Spearman).
    """
    by_role: dict[str, list[float]] = {}
    for entry in entries:
        for role, score in entry["scores"].items():
            by_role.setdefault(role, []).append(score)
    summary: dict[str, Any] = {"answers": {role: _spread(scores) for role, scores in by_role.items()}}
    pairs = [entry["scores"] for entry in entries if "chosen" in entry["scores"]]
    if pairs:
        right = sum(0.5 if p["chosen"] == p["rejected"] else float(p["chosen"] > p["rejected"]) for p in pairs)
        low, high = wilson(right, len(pairs))
        summary["accuracy"] = {"value": right / len(pairs), "low": low, "high": high, "n": len(pairs)}
    judged = [(entry["label"], entry["scores"]["completion"]) for entry in entries if "label" in entry]
    if judged:
        summary |= agreement([float(label) for label, _ in judged], [score for _, score in judged])
    return summary


def agreement(labels: Sequence[float], scores: Sequence[float]) -> dict[str, float | None]:
    """Agreement of scores with labels: ``auc`` for 0 and 1, else ``rank_correlation``; None where one never varies."""
    if set(labels) <= {0.0, 1.0}:
        return {"auc": auc([label == 1 for label in labels], scores)}
    if len(set(labels)) < 2 or len(set(scores)) < 2:
        return {"rank_correlation": None}
    return {"rank_correlation": statistics.correlation(ranks(labels), ranks(scores))}


def _spread(scores: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(scores, n=100, method="inclusive") if len(scores) > 1 else scores * 99
    return {
        "n": len(scores),
        "mean": statistics.fmean(scores),
        "sd": statistics.stdev(scores) if len(scores) > 1 else 0.0,
        "min": min(scores),
        **{f"p{percent}": cuts[percent - 1] for percent in QUANTILES},
        "max": max(scores),
    }


def _with_answers(row: CanonicalRow, place: str) -> Row:
    if isinstance(row, Comparison):
        return Row(place, row.prompt, {"chosen": row.chosen, "rejected": row.rejected}, comparison=row)
    if isinstance(row, Judgement):
        return Row(place, row.prompt, {"completion": row.completion}, float(row.label))
    if isinstance(row, Demonstration) and row.messages:
        return Row(place, row.messages[:-1], {"completion": row.messages[-1].content})
    raise DataError("the row holds no prompt with an answer, so there is nothing to score", where=place)


def _policy_encoder(context: RunContext) -> ChatEncoder:
    from pipelines.data.chat import ChatEncoder
    from pipelines.models.policies import open_tokenizer

    return ChatEncoder(open_tokenizer(context.inputs.get("sft"), context.config.model))


def _completion(encoder: ChatEncoder | None, row: Row, text: str) -> Completion:
    """The answer as PPO scores it: finished, with the text of its tokens; without a policy the plain text."""
    if encoder is None:
        return Completion.of(text, (), finished=True)
    try:
        ids = encoder.answer(row.prompt, text)
    except DataError as error:
        raise DataError(error.message, where=row.place, hint=error.hint) from error
    return Completion.of(encoder.decode(ids), ids, finished=True)
