"""Turning exceptions into exit codes and helpful messages."""

from __future__ import annotations

import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import typer

from pipelines.errors import DiskError, EnvironmentProblem, HubError, PeopleNeeded, RlhfError, causes, first_line
from pipelines.run.disk import disk_error
from rlhf_cli.console import print_json, print_problem
from rlhf_cli.logs import log_of

MEMORY_HINT = (
    "lower ppo.rollout_forward_batch_size and the stage's per_device_train_batch_size; set gradient_checkpointing: "
    "true; shorten max_length or ppo.response_length (model.use_peft and model.load_in_4bit save most)"
)
GO_ON = "complete stages are kept; the same command, without --force, goes on from the last checkpoint"
_HUB_ERRORS = {
    "HfHubHTTPError",
    "RepositoryNotFoundError",
    "GatedRepoError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
}


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived; passes through `finally` like any exception. The exit code is its number and 128."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.number = number


def describe(error: BaseException) -> dict[str, Any]:
    """The error as ``--json`` prints it: code, exit, message, where, hint."""
    if isinstance(error, Terminated):
        name = signal.Signals(error.number).name
        return _entry("terminated", 128 + error.number, f"terminated by {name}", hint=GO_ON)
    if isinstance(error, KeyboardInterrupt):
        return _entry("interrupted", 130, "interrupted", hint=GO_ON)
    if isinstance(error, typer.TyperException):
        command = getattr(getattr(error, "ctx", None), "command_path", "rlhf")
        if settings := _settings_called(error):
            return _entry("usage", error.exit_code, str(getattr(error, "message", error)), hint=f"use {settings}")
        message = error.format_message().replace("Value error, ", "")  # words of pydantic's
        return _entry("usage", error.exit_code, message, hint=f"see {command} --help")
    known = error if isinstance(error, RlhfError) else _recognized(error)
    if known is not None:
        return known.as_dict()
    log = log_of(error)
    where = f"the traceback is in {log}" if log else "the traceback is above"
    return _entry("bug", 1, f"this is a bug: {type(error).__name__}: {error}", hint=f"{where}; please report it")


_ARGUMENT = re.compile(r"unexpected extra argument\S* \(([A-Za-z_][\w.]*)=")


def _settings_called(error: typer.TyperException) -> str:
    """The keys that an unknown option or argument is the name of, as --set takes them; empty where there are none."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if option is None and (argument := _ARGUMENT.search(str(getattr(error, "message", "")))):
        option = argument[1]  # LLaMA-Factory and Hydra take settings as KEY=VALUE
    if context is None or option is None or all("--set" not in parameter.opts for parameter in context.command.params):
        return ""
    from pipelines.config.reference import keys_called

    keys = keys_called(option.lstrip("-"))
    in_section = [key for key in keys if key.startswith(f"{context.command.name}.")]
    return " or ".join(f"--set {key}=VALUE" for key in in_section or keys)


def render(entry: dict[str, Any], error: BaseException, *, as_json: bool, verbose: bool) -> None:
    """Show the error once: as JSON on stdout, or as words on stderr; a bug that no log holds with its traceback."""
    if verbose or (entry["code"] == "bug" and not log_of(error)):
        traceback.print_exception(error)
    if as_json:
        print_json({"error": entry})
        return
    if type(error).__name__ == "NoArgsIsHelpError":  # Its message is the help.
        print(entry["message"], file=sys.stderr)
        return
    waits = entry["code"] == PeopleNeeded.code
    print_problem(*(("waiting:", "1;35") if waits else ("error:", "1;31")), entry)


def _entry(code: str, exit_code: int, message: str, *, hint: str | None = None) -> dict[str, Any]:
    return {"code": code, "exit": exit_code, "message": message, "where": None, "hint": hint}


def _recognized(error: BaseException) -> RlhfError | None:
    """Translate a library's exception, recognized by name because the library may not be imported here."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return EnvironmentProblem(f"out of memory: {first_line(error)}", hint=MEMORY_HINT)
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate" in str(error):
        return EnvironmentProblem("out of memory", hint=MEMORY_HINT)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in _OWN:
        return EnvironmentProblem(f"the package {error.name} is missing", hint=f"pip install {error.name}")
    for cause in causes(error):
        if _HUB_ERRORS.intersection(kind.__name__ for kind in type(cause).__mro__):
            return HubError(
                f"the hub could not be reached or refused: {first_line(error)}",
                hint="check the name, the network and `hf auth login`; HF_HUB_OFFLINE=1 forbids the network",
            )
    if isinstance(error, Exception):
        mapped: DiskError | None = disk_error(error, Path.cwd())
        return mapped
    return None


_OWN = ("pipelines", "rlhf_cli")
