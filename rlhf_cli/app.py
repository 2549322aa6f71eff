"""The Typer application and main(): every error becomes an exit code and a helpful message."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipelines.run.signals import STOPPING
from rlhf_cli import PARENT_PIPE_VARIABLE, __version__, failures, libraries

_COMMANDS = {
    "init": ("config", "Write one of the shipped configurations, to be edited."),
    "sft": ("stages", "Fine-tune the base model on demonstrations."),
    "reward": ("stages", "Train the reward model on comparisons, from the SFT model."),
    "ppo": ("stages", "Optimize the policy against the reward with PPO."),
    "judge": (
        "stages",
        "Train an independent judge on comparisons that the reward model never saw; `rlhf eval` does it too.",
    ),
    "eval": ("stages", "Compare base, SFT and PPO on held-out prompts."),
    "all": ("stages", "Run all stages, from the data to the evaluation."),
    "baseline": ("baseline", "Compare PPO with a simpler method: DPO, RLOO, GRPO or best of n."),
    "sample": ("sample", "Sample several answers to every prompt, for people to judge."),
    "label": ("label", "Serve the page where people judge answers."),
    "agreement": ("agreement", "Report how well annotators agree, and how each of them works."),
    "pairs": ("pairs", "Turn labels into training rows."),
    "score": ("score", "Score the answers of a file with a reward model, as PPO would."),
    "status": ("status", "Show what is complete, stale or missing in a run."),
    "report": ("report", "Write a run's report: one HTML file that opens without network or scripts."),
    "compare": ("compare", "Compare runs with the first of them."),
    "env": ("env", "Print versions and devices, for bug reports."),
    "config": ("config", "Show the configuration."),
    "labels": ("labels", "Show labels, and exchange them with other programs."),
    "data": ("data", "Check data files."),
}
"""Of each command the module in `rlhf_cli.commands`, which is imported when it is called, and its help in short."""


def loaded(name: str) -> Any:
    """The command of this name, its module imported."""
    part = typer.Typer(rich_markup_mode=None)
    importlib.import_module(f"rlhf_cli.commands.{_COMMANDS[name][0]}").register(part)
    return typer.main.get_group(part).commands[name]


class _Commands(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        _, stub, rest = super().resolve_command(ctx, args)
        name = (stub and stub.name) or ""
        return name, loaded(name) if name else None, rest


app = typer.Typer(
    cls=_Commands,
    name="rlhf",
    help="From demonstrations and human comparisons to an aligned language model: SFT, reward model, PPO, evaluation.",
    epilog="\b\nExamples:\n"
    "  rlhf init quickstart && rlhf all --config quickstart.yaml\n"
    "  rlhf status --run-dir runs/quickstart\n"
    "  rlhf ppo --run-dir runs/quickstart --set ppo.kl_coef=0.1 --force",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # --run_dir is --run-dir.
    context_settings={
        "token_normalize_func": lambda name: name.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
    },
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rlhf {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for _name, (_, _about) in _COMMANDS.items():
    app.command(_name, help=_about)(lambda: None)


def run(args: Sequence[str]) -> int:
    """Run one command line; returns its exit code, every error already shown."""
    as_json = "--json" in args
    verbose = "-v" in args or "--verbose" in args
    try:
        result = app(args=list(args), prog_name="rlhf", standalone_mode=False)
        sys.stdout.flush()
        if result == 130:  # Typer made an exit code of a KeyboardInterrupt.
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except BaseException as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
            # Whoever read stdout has gone; keep Python from complaining when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        if isinstance(error, SystemExit) and not isinstance(error, failures.Terminated):
            return error.code if isinstance(error.code, int) else 1
        entry = failures.describe(error)
        failures.render(entry, error, as_json=as_json, verbose=verbose)
        return int(entry["exit"])


def _terminate(number: int, frame: object) -> None:
    raise failures.Terminated(number)


def main() -> None:
    """Entry point of ``rlhf``."""
    if PARENT_PIPE_VARIABLE in os.environ:
        from rlhf_cli.children import watch_parent

        watch_parent()
    libraries.of_own_process()
    for number in STOPPING:  # one that is ignored stays so: nohup, and SIGINT of what a shell runs in the background
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _terminate)
    sys.exit(run(sys.argv[1:]))
