"""Display of plans (`--dry-run`) and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import typer

from pipelines.chain import chain
from pipelines.chain.plan import Plan
from pipelines.config import Config
from pipelines.data.prepare import DataKind, effective_sources
from pipelines.data.sources import find_source
from pipelines.errors import RlhfError
from pipelines.report.safe_text import visible
from pipelines.run.directory import RunDir
from pipelines.run.stage import Stage
from rlhf_cli.console import print_json, print_problem


def show(stages: Sequence[Stage], config: Config, run_dir: RunDir, *, force: Sequence[str], as_json: bool) -> None:
    """Print the plan; write nothing.

    Raises:
        typer.Exit: the run itself would refuse, with the same exit code.
    """
    plans = chain.plan_chain(stages, config, run_dir, force=force)
    problem: RlhfError | None = None
    try:
        chain.check_plans(plans, config, run_dir)
    except RlhfError as error:
        problem = error
    entries = [_entry(plan, config, run_dir) for plan in plans]
    if as_json:
        shown = problem.as_dict() if problem else None
        print_json({"run_dir": str(run_dir.root), "plan": entries, "problem": shown})
    else:
        print(f"run directory: {run_dir.root}")
        for entry in entries:
            _print_entry(entry)
        if any(entry["action"] == "run" and entry["stage"].startswith("data/") for entry in entries):
            print("the data is not opened: `rlhf data check` reads a FILE, or with --config all that a run would read")
        if problem is not None:
            print_problem("would refuse:", "1;31", problem.as_dict())
    if problem is not None:
        raise typer.Exit(problem.exit_code)


def outcome_entry(outcome: chain.Outcome, run_dir: RunDir) -> dict[str, Any]:
    """Return the outcome of a stage as ``--json`` prints it."""
    manifest = outcome.manifest
    return {
        "stage": outcome.stage,
        "action": outcome.action,
        "reason": outcome.reason,
        "metrics": manifest.metrics if manifest else {},
        "wall_seconds": manifest.wall_seconds if manifest else None,
        "directory": str(run_dir.stage(outcome.stage)),
    }


def metrics_text(outcome: chain.Outcome) -> str:
    """The final metrics of a stage, one a line, for people."""
    metrics = outcome.manifest.metrics if outcome.manifest else {}
    width = max(map(len, metrics), default=0)
    return "\n".join(
        f"{name:{width}}  {value:.4g}" if isinstance(value, float) else f"{name:{width}}  {visible(str(value))}"
        for name, value in metrics.items()
    )


def _entry(plan: Plan, config: Config, run_dir: RunDir) -> dict[str, Any]:
    running = plan.action != "off"
    return {
        "stage": plan.stage.name,
        "action": "refuse" if plan.differences else plan.action,
        "reason": plan.reason,
        "differences": list(plan.differences),
        "needs": list(plan.stage.needs(config)) if running else [],
        "sources": [*map(str, plan.stage.sources(config)), *_on_hub(plan.stage.name, config)] if running else [],
        "produces": list(plan.stage.produces),
        "directory": str(run_dir.stage(plan.stage.name)),
    }


def _on_hub(stage: str, config: Config) -> list[str]:
    """The hub data sets that a data stage reads, each with its revision."""
    if not stage.startswith("data/"):
        return []
    sources = [find_source(source) for source in effective_sources(config, cast(DataKind, stage.removeprefix("data/")))]
    return [
        f"{one.source.path}@{one.source.revision}" if one.source.revision else one.source.path
        for one in sources
        if one.path is None
    ]


def _print_entry(entry: dict[str, Any]) -> None:
    print(f"  {entry['action']:6} {entry['stage']:20} {entry['reason']}")
    for line in entry["differences"]:
        print(f"{'':30}{line}")
    if entry["action"] == "run":
        read = ", ".join([*entry["sources"], *entry["needs"]]) or "nothing"
        print(f"{'':9}{read} -> {entry['stage']}/{{{', '.join(entry['produces'])}}}")
