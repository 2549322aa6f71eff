"""The Typer application and main(): every error becomes an exit code and a helpful message."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from pipelines.run.signals import STOPPING
from rlhf_cli import __version__, failures, libraries, options
from rlhf_cli.children import watch_parent
from rlhf_cli.commands import (
    agreement,
    baseline,
    compare,
    config,
    data,
    env,
    label,
    labels,
    pairs,
    report,
    sample,
    score,
    stages,
    status,
)

app = typer.Typer(
    name="rlhf",
    help="From demonstrations and human comparisons to an aligned language model: SFT, reward model, PPO, evaluation.",
    epilog=options.examples(
        "rlhf init quickstart && rlhf all --config quickstart.yaml",
        "rlhf status --run-dir runs/quickstart",
        "rlhf ppo --run-dir runs/quickstart --set ppo.kl_coef=0.1 --force",
    ),
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


config.register(app)
stages.register(app)
baseline.register(app)
sample.register(app)
label.register(app)
labels.register(app)
agreement.register(app)
pairs.register(app)
score.register(app)
status.register(app)
report.register(app)
compare.register(app)
data.register(app)
env.register(app)


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
    watch_parent()
    libraries.of_own_process()
    for number in STOPPING:  # one that is ignored stays so: nohup, and SIGINT of what a shell runs in the background
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _terminate)
    sys.exit(run(sys.argv[1:]))
