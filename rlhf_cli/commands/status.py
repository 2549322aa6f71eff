"""`rlhf status`."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated, Any

import typer

from pipelines.chain import chain
from pipelines.config import Config
from pipelines.errors import ArtifactError, DataError, UsageError
from pipelines.report.safe_text import visible
from pipelines.run.directory import RunDir
from pipelines.run.manifest import Manifest
from rlhf_cli import options, settings
from rlhf_cli.console import print_json, seconds_text, styled

_STYLES = {
    "complete": "32",
    "stale": "33",
    "running": "36",
    "partial": "33",
    "damaged": "1;31",
    "missing": "2",
    "waiting": "35",
    "off": "2",
}
Verify = Annotated[bool, typer.Option("--verify", help="Hash every file instead of comparing sizes and times.")]


def status(
    run_dir: options.Dir = None,
    config: options.Config = None,
    sets: options.Sets = None,
    verify: Verify = False,
    json: options.Json = False,
) -> None:
    """Show what is complete, stale or missing in a run.

    With --config or --set, the run is compared with those settings instead of its own. Exit code 6 means that an
    artifact is damaged.
    """
    if config is None:
        run_dir = settings.find_run(run_dir)
    resolved, run = settings.resolve(config, run_dir, sets or ())
    if not run.root.is_dir():
        raise UsageError("there is no run directory here", where=str(run.root))
    entries = chain.status_of(resolved, run, verify=verify)
    _tell_what_is_missing(entries, resolved, run)
    holder, page, verdict = run.holder(), _label_page(run), _verdict(entries, run)
    if json:
        print_json(
            {"run_dir": str(run.root), "held_by": holder, "label_page": page, "verdict": verdict, "stages": entries}
        )
    else:
        print(run.root)
        if page is not None:
            print(f"  the label page is open at {visible(page)}")
        if holder is not None:
            print(f"  process {holder['pid']} works on it since {holder['since']}")
        for entry in entries:
            _print_entry(entry)
        if verdict is not None:
            print(f"  verdict: {visible(verdict['sentence'])}")
    if any(entry["state"] == "damaged" for entry in entries):
        raise typer.Exit(ArtifactError.exit_code)


def _tell_what_is_missing(entries: list[dict[str, Any]], config: Config, run: RunDir) -> None:
    """Update the entry of a stage that waits for people with their present progress."""
    for entry in entries:
        if entry["state"] == "waiting" and run.label_store.is_file():
            from pipelines.labels.stage import describe_wait

            with contextlib.suppress(DataError):  # what was told last then stands
                entry["reason"] = describe_wait(config, run, entry["stage"])


def _label_page(run: RunDir) -> str | None:
    """Return the address of the label page that serves the run's store; None: no page is open."""
    if not run.label_store.is_file():
        return None
    from pipelines.labels.store.store import running_server

    return running_server(run.label_store)


def _verdict(entries: list[dict[str, Any]], run: RunDir) -> dict[str, Any] | None:
    """Return call and sentence of a complete evaluation; None: there is none, or it is from before verdicts."""
    if not any(entry["stage"] == "eval" and entry["state"] == "complete" for entry in entries):
        return None
    manifest = Manifest.read(run.stage("eval"))
    verdict = manifest.notes.get("verdict") if manifest is not None else None
    return {key: verdict[key] for key in ("call", "sentence", "scorer", "independent")} if verdict else None


def _print_entry(entry: dict[str, Any]) -> None:
    state = entry["state"]
    shown = styled(f"{state:9}", _STYLES[state], sys.stdout)
    if state == "complete":
        remark = seconds_text(entry["wall_seconds"])
    else:
        remark = visible(entry["reason"])
    print(f"  {entry['stage']:20} {shown} {remark}")
    for line in entry["differences"]:
        print(f"{'':33}{visible(line)}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=options.examples(
            "rlhf status --run-dir runs/quickstart",
            "rlhf status --run-dir runs/my --verify",
            "rlhf status --run-dir runs/my --set ppo.kl_coef=0.1 --json",
        )
    )(status)
