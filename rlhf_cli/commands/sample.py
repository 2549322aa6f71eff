"""`rlhf sample`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.chain.preflight import check_sampled_models
from pipelines.config import Config, load_config
from pipelines.config.data_section import Source
from pipelines.config.feedback_section import SampleSection
from pipelines.errors import UsageError
from pipelines.report.safe_text import visible
from pipelines.run.directory import in_round
from rlhf_cli import options, settings
from rlhf_cli.commands.stages import USUAL_OUTPUT, OutputMode, run_one
from rlhf_cli.console import ConsoleReporter, print_json, print_problem
from rlhf_cli.libraries import set_defaults
from rlhf_cli.output_file import make_room

if TYPE_CHECKING:
    from pipelines.sampling.sample_file import Form, Prepared, Request


Prompts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PROMPTS...]",
        help="Files of prompts, or of comparisons or demonstrations with prompts. Default: the prompts of the run.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="X",
        help="Model that answers: hub id (owner/name@commit), directory, or stage of a run (runs/my/sft); in a run "
        "also policy, base, sft or ppo. Repeatable; several models share the completions.",
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--num-completions",
        "-k",
        min=1,
        metavar="K",
        help="Number of completions of each prompt. Default: 4; 1 with --as demonstrations.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="JSON lines file to write; without a run.")]
FormOption = Annotated[
    Literal["tasks", "demonstrations"] | None,
    typer.Option(
        "--as", help="Kind of rows: tasks to be judged, or demonstrations to be edited for SFT; without a run."
    ),
]
Draws = Annotated[
    dict[str, Any],
    options.SectionKeys(
        SampleSection,
        (
            *("temperature", "top_p", "top_k", "max_new_tokens", "max_prompt_length", "near_duplicate", "redraws"),
            *("batch_size", "num_prompts"),
        ),
    ),
]
PerSource = Annotated[
    int | None,
    typer.Option(
        "--max-per-source", min=1, metavar="N", help="Maximum number of prompts from one file; without a run."
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Seed of the sampling; without a run. Default: 0.")
]


def sample(
    prompts: Prompts = None,
    models: Models = None,
    num_completions: Count = None,
    out: Out = None,
    form: FormOption = None,
    *,
    draws: Draws,
    max_per_source: PerSource = None,
    seed: Seed = None,
    rows: options.SourceOptions = options.DEFAULT_ROWS,
    on_bad_row: options.OnBad = None,
    config: options.Config = None,
    run_dir: options.Dir = None,
    sets: options.Sets = None,
    number: options.Round = 1,
    force: options.Force = False,
    mode: OutputMode = USUAL_OUTPUT,
) -> None:
    """Sample several answers to every prompt, for people to judge.

    With --run-dir or --config, this is the `sample` stage of that run. Otherwise the PROMPTS of files are answered, and
    --out is written. Repetitions and blank answers are drawn again. After an interruption the same command continues.
    """
    flags: dict[str, Any] = {f"feedback.sample.{key}": value for key, value in draws.items()}
    flags |= _answering(models or (), num_completions, 4 if form != "demonstrations" else 1)
    if prompts:
        _refuse({"--run-dir": run_dir, "--config": config, "--round": number > 1}, "goes without PROMPTS only")
        if out is None or not models:
            raise UsageError(f"{'--out' if out is None else '--model'} is missing", hint="see rlhf sample --help")
        # the configuration carries the settings of the draws: there is no run, and nothing is trained
        flags |= {} if seed is None else {"run.seed": seed}
        flags |= {} if on_bad_row is None else {"data.on_bad_row": on_bad_row}
        resolved = load_config(None, sets or (), flags)
        sources = [rows.source(path) for path in prompts]
        _alone(mode, sources=sources, out=out, form=form or "tasks", config=resolved, most=max_per_source, force=force)
        return
    if run_dir is None and config is None:
        raise UsageError(
            "neither prompts nor a run are named",
            hint="`rlhf sample prompts.jsonl --model X --out tasks.jsonl`, or --run-dir DIR of a run",
        )
    alone = {"--out": out, "--as": form, "--max-per-source": max_per_source, "--seed": seed, "--on-bad-row": on_bad_row}
    _refuse(alone | dict.fromkeys(rows.changed(), True), "goes with PROMPTS only")
    resolved, run = settings.resolve(config, run_dir, sets or (), flags)
    if num_completions is not None and not models and resolved.feedback.sample.models:
        raise UsageError(
            "feedback.sample.models says how many completions each model gives", hint="name the models with --model"
        )
    run_one(in_round("sample", number), resolved, run, force=force, mode=mode)


def _answering(models: Sequence[str], count: int | None, default: int) -> dict[str, Any]:
    """Translate --model and --num-completions into configuration keys."""
    if not models:
        return {} if count is None else {"feedback.sample.num_completions": count}
    count = count or max(default, len(models))
    if count < len(models):
        raise UsageError(
            f"{count} completions of each prompt cannot be shared out among {len(models)} models",
            where="--num-completions",
        )
    entries = []
    for index, model in enumerate(models):
        share = count // len(models) + (index < count % len(models))
        path, _, revision = (model, "", "") if Path(model).exists() else model.partition("@")
        entries.append({"model": path, "revision": revision or None, "num_completions": share})
    return {"feedback.sample.models": entries}


def _refuse(given: dict[str, Any], why: str) -> None:
    for option, value in given.items():
        if value is not None and value is not False:
            raise UsageError(f"{option} {why}")


def _alone(
    mode: OutputMode, *, sources: Sequence[Source], out: Path, form: Form, config: Config, most: int | None, force: bool
) -> None:
    """Sample without a run; the arguments are those of `sample_file.Request`."""
    check_sampled_models(config, "--model")
    # whether the file is there already is for `prepare` to say, which knows of an interrupted call
    make_room(out, [source.path for source in sources], replace=True, write=not mode.dry_run)
    set_defaults()
    reporter = ConsoleReporter(quiet=mode.quiet)
    # stdout is for data: what a library prints goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        from pipelines.sampling import sample_file

        request = sample_file.Request(sources, out, form, config, most, force)
        prepared = sample_file.prepare(request, reporter)
        result = None if mode.dry_run else sample_file.sample_file(request, prepared, reporter)
    if result is None:
        _show_plan(prepared, request, as_json=mode.json)
    elif mode.json:
        print_json(result)
    else:
        for line in _summary(result):
            print(visible(line))


def _show_plan(prepared: Prepared, request: Request, *, as_json: bool) -> None:
    problem = prepared.conflict
    action = "go on" if prepared.resumes is not None else "begin"
    plan = {
        "action": action,
        "chunks_done": prepared.resumes or 0,
        "out": str(request.out),
        "prompts": len(prepared.asked),
        "sources": [vars(count) for count in prepared.counts],
        "models": [{"model": one.name, "num_completions": one.num_completions} for one in prepared.models],
    }
    if as_json:
        print_json({"plan": plan, "problem": problem.as_dict() if problem else None})
    else:
        for count in prepared.counts:
            print(visible(_source_line(vars(count))))
        for one in prepared.models:
            print(visible(f"{one.name}: {one.num_completions} completions of each of {len(prepared.asked)} prompts"))
        print(visible(f"would {action}, and write {request.out}"))
        if problem is not None:
            print_problem("would refuse:", "1;31", problem.as_dict())
    if problem is not None:
        raise typer.Exit(problem.exit_code)


def _source_line(count: dict[str, Any]) -> str:
    beside = f"{count['repeated']} repeated" + (f", {count['over_cap']} above the cap" if count["over_cap"] else "")
    return f"{count['path']}: {count['prompts']} prompts of {count['rows']} rows ({beside})"


def _summary(result: dict[str, Any]) -> list[str]:
    made = f"{result['tasks']} tasks" if "tasks" in result else f"{result['rows']} demonstrations"
    lines = [f"{made} in {result['out']}: {result['completions']} completions of {result['prompts']} prompts"]
    lines += [f"  {_source_line(count)}" for count in result["sources"]]
    lines += [
        f"  {one['model']}: {one['completions']} completions, {one['finished_share']:.0%} finished, "
        f"{one['mean_tokens']:.0f} tokens on average, {one['distinct_share']:.0%} of the draws distinct"
        for one in result["models"]
    ]
    names = {"too_long": "prompts too long", "redrawn": "drawn again", "left_out": "completions left out"}
    names |= {"short": "tasks with fewer answers", "without_task": "prompts without a task"}
    counted = [f"{result[key]} {words}" for key, words in names.items() if result.get(key)]
    return lines + ([f"  {', '.join(counted)}"] if counted else [])


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=options.examples(
            "rlhf sample prompts.jsonl --model org/model -k 4 --out tasks.jsonl",
            "rlhf sample faq.csv --columns prompt=question --model runs/my/sft --model runs/my/ppo --out tasks.jsonl",
            "rlhf sample --run-dir runs/my --temperature 0.8",
        )
    )(options.with_groups(sample))
