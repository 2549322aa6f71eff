"""The stages in their order: what each needs, makes and goes by; a further one is one more entry. No torch here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.config.scorer import ScorerSection
from pipelines.data.prepare import DataKind, effective_sources
from pipelines.data.sources import source_files
from pipelines.errors import UsageError
from pipelines.scorers.function import function_file
from pipelines.stage import Stage


def _common(config: Config) -> dict[str, Any]:
    return {"seed": config.run.seed, "model": config.model.results_view()}


def _data_section(kind: DataKind) -> Callable[[Config], dict[str, Any]]:
    def section(config: Config) -> dict[str, Any]:
        data = config.data
        view: dict[str, Any] = {"eval_fraction": data.eval_fraction, "on_bad_row": data.on_bad_row}
        if data.task is not None:
            view |= {"task": data.task.name, "rows": getattr(data.task, kind), "seed": config.run.seed}
            if kind == "comparisons":
                pool = config.feedback.simulated
                view["feedback"] = {"annotators": pool.annotators, "noise": pool.noise, "bias": pool.bias}
        else:
            view["sources"] = [source.results_view() for source in effective_sources(config, kind)]
        return view

    return section


def _data_files(kind: DataKind) -> Callable[[Config], tuple[Path, ...]]:
    def files(config: Config) -> tuple[Path, ...]:
        if config.data.task is not None:
            return ()
        found = (source_files(source) for source in effective_sources(config, kind))
        return tuple(path for paths in found for path in paths)

    return files


def _data_stage(kind: DataKind, enabled: Callable[[Config], bool]) -> Stage:
    return Stage(
        name=f"data/{kind}",
        runner=f"pipelines.data.prepare:{kind}",
        needs=lambda config: (),
        section=_data_section(kind),
        produces=("train.jsonl", "heldout.jsonl"),
        sources=_data_files(kind),
        heavy=False,
        enabled=enabled,
    )


def _sft(config: Config) -> tuple[str, ...]:
    return ("sft",) if config.sft.enabled else ()


def _eval_needs(config: Config) -> tuple[str, ...]:
    ppo = ("ppo",) if config.ppo.enabled else ()
    reward = ("reward",) if any(scorer.uses("run") for scorer in config.eval_scorers) else ()
    return ("data/prompts", *_sft(config), *reward, *ppo)


def _of_ppo(config: Config, *keys: str) -> dict[str, Any]:
    """Values of the ppo section that another stage works by: how a response is drawn is said once, there."""
    return {key: getattr(config.ppo, key) for key in keys}


def _function_files(*scorers: ScorerSection) -> tuple[Path, ...]:
    """The files of the Python functions among the scorers: editing one changes the result."""
    parts = (part for scorer in scorers for part in scorer.flat())
    found = (function_file(part.function) for part in parts if part.function is not None)
    return tuple(path for path in found if path is not None)


def _ppo_needs(config: Config) -> tuple[str, ...]:
    return ("data/prompts", *_sft(config), *(("reward",) if config.ppo.reward.uses("run") else ()))


STAGES: tuple[Stage, ...] = (
    _data_stage("demonstrations", lambda config: config.sft.enabled),
    _data_stage("comparisons", lambda config: config.reward.enabled),
    _data_stage("prompts", lambda config: config.ppo.enabled or config.eval.enabled),
    Stage(
        name="sft",
        runner="pipelines.sft:run",
        needs=lambda config: ("data/demonstrations",),
        section=lambda config: _common(config) | {"sft": config.sft.results_view()},
        produces=("model", "metrics.jsonl"),
        enabled=lambda config: config.sft.enabled,
    ),
    Stage(
        name="reward",
        runner="pipelines.reward:run",
        needs=lambda config: ("data/comparisons", *_sft(config)),
        section=lambda config: (
            _common(config)
            | {
                "reward": config.reward.results_view(),
                "ppo": _of_ppo(config, "response_length", "temperature", "rollout_forward_batch_size", "stop_tokens"),
            }
        ),
        produces=("model", "golden.json", "metrics.jsonl"),
        enabled=lambda config: config.reward.enabled,
    ),
    Stage(
        name="ppo",
        runner="pipelines.ppo.stage:run",
        parallel=True,
        needs=_ppo_needs,
        section=lambda config: _common(config) | {"ppo": config.ppo.results_view()},
        sources=lambda config: _function_files(config.ppo.reward),
        produces=("model", "metrics.jsonl", "samples.jsonl"),
        enabled=lambda config: config.ppo.enabled,
    ),
    Stage(
        name="eval",
        runner="pipelines.evaluate.stage:run",
        needs=_eval_needs,
        section=lambda config: (
            _common(config)
            | {
                "eval": config.eval.results_view(),
                "scorers": [scorer.results_view() for scorer in config.eval_scorers],
                "ppo": _of_ppo(config, "response_length", "max_prompt_length", "stop_tokens"),
            }
        ),
        sources=lambda config: _function_files(*config.eval_scorers),
        produces=("results.json", "answers.jsonl", "table.md", "table.txt"),
        enabled=lambda config: config.eval.enabled,
    ),
)
NAMES = ("data", "sft", "reward", "ppo", "eval")
"""What a user calls a stage; `data` is the three data stages together, and each of them has its own name too."""


def named(name: str) -> tuple[Stage, ...]:
    """The stages that a user's name means.

    Raises:
        UsageError: no such stage.
    """
    found = tuple(stage for stage in STAGES if name in (stage.name, *stage.name.split("/")))
    if not found:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise UsageError(
            f"there is no stage `{name}`",
            hint=f"did you mean `{near[0]}`?" if near else f"stages: {', '.join(NAMES)}",
        )
    return found


def select(first: str | None, last: str | None) -> tuple[Stage, ...]:
    """The stages from `first` to `last`, both included.

    Raises:
        UsageError: no such stage, or they stand the other way round.
    """
    start = STAGES.index(named(first)[0]) if first else 0
    stop = STAGES.index(named(last)[-1]) if last else len(STAGES) - 1
    if start > stop:
        raise UsageError(f"--from {first} comes after --until {last}")
    return STAGES[start : stop + 1]


def with_data_of(name: str, config: Config) -> tuple[Stage, ...]:
    """A stage and the data stages that it reads: what `rlhf sft` and its like run."""
    (stage,) = named(name)
    return (*(other for other in STAGES if not other.heavy and other.name in stage.needs(config)), stage)
