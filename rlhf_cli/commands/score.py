"""`rlhf score`."""

from __future__ import annotations

import contextlib
import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipelines.config import load_config
from pipelines.config.scorer_section import ScorerSection
from pipelines.errors import UsageError
from pipelines.report.safe_text import visible
from pipelines.run.disk import write_atomic
from rlhf_cli import options, settings
from rlhf_cli.console import ConsoleReporter, print_json
from rlhf_cli.libraries import set_defaults
from rlhf_cli.output_file import make_room

File = Annotated[str, typer.Argument(metavar="FILE", help="File of comparisons, judgements or demonstrations.")]
RewardModel = Annotated[
    str | None,
    typer.Option(
        "--reward-model",
        metavar="X",
        help="Reward source: directory or hub id of a model, module:function, or http(s) address.",
    ),
]
Label = Annotated[
    str | None,
    typer.Option("--label", metavar="CLASS", help="Class whose logit is the score, for a classifier with several."),
]
Output = Annotated[
    Literal["logit", "probability", "logprob"] | None,
    typer.Option("--output", help="Function of the class, or of a run's pointwise model, that is the score."),
]
Lower = Annotated[
    bool, typer.Option("--lower-is-better", help="Negate the score, because the classifier rates something bad.")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, metavar="N", help="Number of answers in one batch.")
]
Card = Annotated[
    Path | None,
    typer.Option(
        "--report-card",
        metavar="FILE",
        help="Markdown file to write a report card of the scorer to, made from the comparisons; FILE.json beside it.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="JSON lines file to write the scored rows to.")]


def score(
    file: File,
    reward_model: RewardModel = None,
    run_dir: options.Dir = None,
    config: options.Config = None,
    sets: options.Sets = None,
    label: Label = None,
    output: Output = None,
    lower_is_better: Lower = False,
    batch_size: BatchSize = None,
    rows: options.SourceOptions = options.DEFAULT_ROWS,
    on_bad_row: options.OnBad = None,
    report_card: Card = None,
    out: Out = None,
    force: options.Replace = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score the answers of a file with a reward model, as PPO would.

    The scorer is --reward-model, `ppo.reward` of --config, or the reward model of the run in --run-dir. One JSON line
    for each row goes to stdout or to --out. The summary gives the distribution of the scores, and how often the chosen
    answer of a comparison scores higher. --report-card says more: where the scorer fails, and what fools it.
    """
    source = rows.source(file)
    card_files = [] if report_card is None else [report_card, report_card.with_suffix(".json")]
    if len({*card_files, out}) < len([*card_files, out]):
        raise UsageError("--report-card, its .json and --out are three files", where=str(report_card))
    for path in [*card_files, *([out] if out is not None else [])]:
        make_room(path, [file], replace=force)
    details: dict[str, Any] = {
        "label": int(label) if label is not None and label.lstrip("-").isdigit() else label,
        "output": output,
        "lower_is_better": lower_is_better or None,
        "batch_size": batch_size,
    }
    given = {key: value for key, value in details.items() if value is not None}
    set_defaults()
    run = None
    if reward_model is not None:
        if run_dir is not None or config is not None:
            raise UsageError("--reward-model stands alone: without --run-dir and --config")
        scorer = settings.reward_source(reward_model) | given
        resolved = load_config(None, sets or (), {"ppo.reward": scorer, "reward.enabled": False})
        section = resolved.ppo.reward
    else:
        resolved, run = settings.resolve(config, run_dir, sets or ())
        section = resolved.ppo.reward if config is not None else ScorerSection()
        further = given.keys() - ({"batch_size", "output"} if section.kind == "run" else {"batch_size"})
        if further:
            raise UsageError(f"--{min(further).replace('_', '-')} goes with --reward-model only")
        section = section.model_copy(update=given)

    from pipelines.scorers import score_file

    reporter = ConsoleReporter(quiet=quiet)
    # stdout is for data: what a library or a reward function prints goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        answers = score_file.read_answers(source, on_bad_row=on_bad_row or resolved.data.on_bad_row, reporter=reporter)
        context = score_file.context_of_run(resolved, run)
        scored = score_file.score_rows(
            section, answers, context, reporter, as_policy=run is not None, card=bool(card_files)
        )
    if card_files:
        _write_card(scored.pop("card"), scored["summary"]["scorer"], *card_files)
    lines = "".join(jsonlib.dumps(entry, ensure_ascii=False) + "\n" for entry in scored["rows"])
    if out is not None:
        write_atomic(out, lines)
    if json:
        print_json(scored["summary"] if out is not None else scored)
        return
    if out is None:
        sys.stdout.write(lines)
    for line in _summary_lines(scored["summary"]):
        print(visible(line), file=sys.stderr if out is None else sys.stdout)


def _write_card(card: dict[str, Any] | None, scorer: str, markdown: Path, data: Path) -> None:
    if card is None:
        raise UsageError("a report card needs comparisons with a better answer, and the file holds none")
    from pipelines.report.report_card import markdown_card

    write_atomic(data, jsonlib.dumps(card, indent=2, ensure_ascii=False) + "\n")
    write_atomic(markdown, markdown_card(card, f"Report card of {scorer}"))


def _summary_lines(summary: dict[str, Any]) -> list[str]:
    by = summary["scorer"] + (f" ({summary['output']})" if "output" in summary else "")
    lines = [f"{summary['rows']} rows scored by {by}"]
    for role, spread in summary["answers"].items():
        lines.append(f"  {role:10} " + "  ".join(f"{name} {value:.4g}" for name, value in spread.items()))
    if "accuracy" in summary:
        accuracy = summary["accuracy"]
        share = f"{accuracy['value']:.1%} (95 % interval {accuracy['low']:.1%} to {accuracy['high']:.1%})"
        lines.append(f"  the chosen answer scores higher in {share} of {accuracy['n']} comparisons")
    for name, words in (("auc", "area under the curve of the labels"), ("rank_correlation", "rank correlation")):
        if name in summary:
            value = summary[name]
            lines.append(f"  {words}: {'not defined, something never varies' if value is None else f'{value:.3f}'}")
    if summary["counts"]:
        lines.append("  " + "  ".join(f"{name} {value:.4g}" for name, value in summary["counts"].items()))
    return lines


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=options.examples(
            "rlhf score pairs.jsonl --run-dir runs/my --out scored.jsonl",
            "rlhf score a.jsonl --reward-model org/toxic --label toxic --lower-is-better",
            "rlhf score chats.jsonl --reward-model my_reward:score --json",
        )
    )(options.with_groups(score))
