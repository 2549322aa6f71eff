"""`rlhf baseline`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.config.baselines_section import Baseline
from pipelines.run.directory import BASELINES
from rlhf_cli import options, settings
from rlhf_cli.commands.stages import USUAL_OUTPUT, OutputMode, run_one


def baseline(
    kind: Annotated[Baseline, typer.Argument(help="Source of the advantages.", show_default=False)],
    config: options.Config = None,
    run_dir: options.Dir = None,
    sets: options.Sets = None,
    force: options.Force = False,
    mode: OutputMode = USUAL_OUTPUT,
) -> None:
    """Train a policy to compare PPO's with: by RLOO or GRPO.

    It is the PPO stage without a value model, with the base, reward, prompts, KL weight and number of responses of the
    run's section `ppo`. The policy goes to baselines/KIND/ of the run directory; nothing else in the run changes.
    """
    resolved, run = settings.resolve(config, run_dir, sets or (), {})
    run_one(f"{BASELINES}/{kind}", resolved, run, force=force, mode=mode)


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = options.examples(
        "rlhf baseline rloo --run-dir runs/my",
        "rlhf baseline grpo --run-dir runs/my --set baselines.num_generations=8",
        "rlhf baseline rloo --config my.yaml --dry-run",
    )
    app.command("baseline", epilog=examples)(options.with_groups(baseline))
