"""`rlhf sft | reward | ppo | judge | eval | all`."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from pipelines.chain import chain
from pipelines.chain.table import named, select, with_data_of
from pipelines.config import Config
from pipelines.errors import UsageError
from pipelines.evaluate.conclusion import best_update
from pipelines.run.directory import RunDir, in_round
from pipelines.run.processes import dismissing_workers, rank, world_size
from pipelines.run.stage import Stage
from rlhf_cli import libraries, options
from rlhf_cli.children import ChildLauncher, is_child
from rlhf_cli.commands import plan_view as plan
from rlhf_cli.console import ConsoleReporter, print_json
from rlhf_cli.logs import log_to


@dataclass(frozen=True)
class OutputMode:
    """Output options of a command."""

    dry_run: options.DryRun = False
    json: options.Json = False
    verbose: options.Verbose = False
    quiet: options.Quiet = False


USUAL_OUTPUT = OutputMode()


def stage_command(name: str) -> Callable[..., None]:
    """The command that runs the stage `name` and the data stages before it."""

    def command(
        named: options.RunOptions = options.DEFAULT_RUN,
        number: options.Round = 1,
        force: options.Force = False,
        mode: OutputMode = USUAL_OUTPUT,
    ) -> None:
        resolved, run = named.resolve(name)
        run_one(in_round(name, number), resolved, run, force=force, mode=mode)

    return command


def ppo_command(
    named: options.RunOptions = options.DEFAULT_RUN,
    number: options.Round = 1,
    force: options.Force = False,
    use_best: options.UseBest = False,
    mode: OutputMode = USUAL_OUTPUT,
) -> None:
    """Run PPO, and the data stages before it."""
    resolved, run = named.resolve("ppo")
    if use_best:
        resolved, run = named.resolve("ppo", **{"ppo.last_update": _update_before_turn(resolved, run)})
    run_one(in_round("ppo", number), resolved, run, force=force or use_best, mode=mode)


def _update_before_turn(config: Config, run_dir: RunDir) -> int:
    """Number of the update after which the judge of the verdict liked the answers best, and PPO went on.

    Raises:
        UsageError: the evaluation is not there, or it names no such update.
    """
    path = run_dir.stage("eval") / "results.json"
    if config.feedback.rounds > 1:
        raise UsageError("--use-best is for runs of one round", hint="set ppo.last_update, which holds for every round")
    if not path.is_file():
        raise UsageError("--use-best goes by the evaluation, which has not run", hint="`rlhf eval` judges the training")
    update = best_update(json.loads(path.read_text(encoding="utf-8")))
    if update is None:
        raise UsageError(
            "--use-best has no better update to go back to: by the evaluation no judge's score turned down on the way",
            where=str(path),
        )
    if update == 0:
        raise UsageError(
            "--use-best has no update to go back to: the judge liked the answers best before PPO",
            where=str(path),
            hint="use the SFT model, or train with a larger ppo.kl_coef",
        )
    return update


def all_command(
    named: options.RunOptions = options.DEFAULT_RUN,
    first: options.From = None,
    last: options.Until = None,
    rounds: options.Rounds = None,
    force: options.ForceStages = None,
    mode: OutputMode = USUAL_OUTPUT,
) -> None:
    """Run all stages, from the data to the evaluation.

    They are data, SFT, sampling and labels, reward model, PPO and evaluation.
    Complete stages are skipped. Exit code 11 means that the run waits for people to judge answers; once they have, the
    same command continues.
    """
    resolved, run = named.resolve("all", **({} if rounds is None else {"feedback.rounds": rounds}))
    run_all(resolved, run, first=first, last=last, force=force or (), mode=mode)


def run_one(name: str, config: Config, run_dir: RunDir, *, force: bool, mode: OutputMode) -> None:
    """Run one stage in this process."""
    # The parent has run the data stages already.
    stages = named(name, config) if is_child() else with_data_of(name, config)
    if not stages[-1].enabled(config):
        raise UsageError(f"stage {name} is switched off by the configuration", hint=_how_to_enable(stages[-1].kind))
    if world_size() > 1 and not stages[-1].parallel:
        raise UsageError(f"stage {name} runs in one process", hint="start it without torchrun or accelerate launch")
    if rank() > 0:
        _join(config, mode)
        return
    forced = (name,) if force else ()
    if mode.dry_run:
        plan.show(stages, config, run_dir, force=forced, as_json=mode.json)
        return
    cpu = config.run.device == "cpu"
    with dismissing_workers(cpu=cpu):
        outcome = _run(stages, config, run_dir, force=forced, mode=mode, isolated=False)[-1]
    if mode.json:
        print_json(plan.outcome_entry(outcome, run_dir))
        return
    print(_final_table(run_dir) if name == "eval" else plan.metrics_text(outcome))


def run_all(
    config: Config, run_dir: RunDir, *, first: str | None, last: str | None, force: Sequence[str], mode: OutputMode
) -> None:
    """Run the chain, every heavy stage in a process of its own, and show the final table."""
    if world_size() > 1:
        raise UsageError(
            "`rlhf all` starts its own processes",
            hint="run it without torchrun up to the stage before, then `torchrun ... -m rlhf_cli ppo` on the run",
        )
    stages = select(first, last, config)
    if mode.dry_run:
        plan.show(stages, config, run_dir, force=force, as_json=mode.json)
        return
    outcomes = _run(stages, config, run_dir, force=force, mode=mode, isolated=True)
    report = _report(config, run_dir, outcomes, ConsoleReporter(quiet=mode.quiet))
    if mode.json:
        entries = [plan.outcome_entry(outcome, run_dir) for outcome in outcomes]
        print_json({"run_dir": str(run_dir.root), "stages": entries, "report": report and str(report)})
        return
    if any(outcome.stage == "eval" for outcome in outcomes):
        print(_final_table(run_dir))
    if not mode.quiet:
        print(f"the run is in {run_dir.root}" + (f"; report: {report}" if report else ""), file=sys.stderr)


def _report(
    config: Config, run_dir: RunDir, outcomes: Sequence[chain.Outcome], reporter: ConsoleReporter
) -> Path | None:
    """Write the report of the run unless it is there and nothing has run since; None: it could not be written.

    A finished run is not a failure because its report is.
    """
    path = run_dir.report_path
    if path.is_file() and all(outcome.action == "skip" for outcome in outcomes):
        return path
    try:
        from pipelines.overview.report_page import write_report

        return write_report(config, run_dir)
    except Exception as error:
        with log_to(run_dir.log_path), contextlib.suppress(Exception):
            logging.getLogger("rlhf").exception("the report could not be written")
        reporter.warn(f"the report could not be written ({error}); `rlhf report {run_dir.root}` tries again")
        return None


def _how_to_enable(kind: str) -> str:
    if kind == "sample":
        return "let people judge the run's own answers: --set feedback.source=human (or simulated)"
    if kind == "judge":
        return "it judges what PPO makes of the run's own reward model: --set eval.independent_judge=auto"
    if kind == "dpo":
        return "it learns from the pairs of the run's reward model: set reward.enabled=true, and name comparisons"
    return f"switch it on: --set {kind}.enabled=true"


def _join(config: Config, mode: OutputMode) -> None:
    """Work beside the first process, which alone locks, speaks and writes."""
    if mode.dry_run:
        return
    libraries.set_defaults()
    libraries.spare(config)
    with contextlib.redirect_stdout(sys.stderr):
        chain.join_chain(config)


def _final_table(run_dir: RunDir) -> str:
    """Return the table of the evaluation; empty: its artifact has none."""
    path = run_dir.stage("eval") / "table.txt"
    return path.read_text(encoding="utf-8").rstrip() if path.is_file() else ""


def _run(
    stages: Sequence[Stage],
    config: Config,
    run_dir: RunDir,
    *,
    force: Sequence[str],
    mode: OutputMode,
    isolated: bool,
) -> list[chain.Outcome]:
    libraries.set_defaults()
    libraries.spare(config)
    forks = libraries.may_fork(config)
    launcher = ChildLauncher(run_dir, forks=forks, verbose=mode.verbose, quiet=mode.quiet) if isolated else None
    reporter = ConsoleReporter(quiet=mode.quiet)
    run_dir.create()
    # stdout is for data: what a library prints goes to stderr.
    with (
        run_dir.lock(),
        log_to(run_dir.log_path, verbose=mode.verbose),
        contextlib.redirect_stdout(sys.stderr),
    ):
        return chain.run_chain(stages, config, run_dir, reporter, force=force, launcher=launcher, said=is_child())


_ABOUT = {
    "sft": "Fine-tune the base model on demonstrations.",
    "reward": "Train the reward model on comparisons, from the SFT model.",
    "ppo": "Optimize the policy against the reward with PPO.",
    "judge": "Train an independent judge on comparisons that the reward model never saw; `rlhf eval` does it too.",
    "eval": "Compare base, SFT and PPO on held-out prompts.",
}
_EXAMPLES = {
    "sft": (
        "rlhf sft --config my.yaml",
        "rlhf sft --config my.yaml --model gpt2 --dataset chats.jsonl",
        "rlhf sft --run-dir runs/my --set sft.num_train_epochs=2 --force",
    ),
    "reward": (
        "rlhf reward --run-dir runs/my",
        "rlhf reward --config my.yaml --dataset comparisons.jsonl",
        "rlhf reward --run-dir runs/my --set reward.learning_rate=1e-4 --force",
    ),
    "ppo": (
        "rlhf ppo --run-dir runs/my",
        "rlhf ppo --run-dir runs/my --set ppo.kl_coef=0.1 --force",
        "rlhf ppo --config my.yaml --reward-model ./classifier --dry-run",
    ),
    "judge": (
        "rlhf judge --run-dir runs/my",
        "rlhf judge --run-dir runs/my --force",
    ),
    "eval": (
        "rlhf eval --run-dir runs/my",
        "rlhf eval --run-dir runs/my --set eval.num_prompts=500 --force",
        "rlhf eval --run-dir runs/my --json",
    ),
    "all": (
        "rlhf all --config configs/quickstart.yaml",
        "rlhf all --config my.yaml --model gpt2 --dataset comparisons.jsonl",
        "rlhf all --run-dir runs/my --from reward --force reward",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the stage commands."""
    for name, about in _ABOUT.items():
        app.command(name, help=about, epilog=options.examples(*_EXAMPLES[name]))(
            options.with_groups(ppo_command if name == "ppo" else stage_command(name))
        )
    app.command("all", epilog=options.examples(*_EXAMPLES["all"]))(options.with_groups(all_command))
