"""`rlhf baseline`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipelines.run.directory import BASELINES
from rlhf_cli import options, settings
from rlhf_cli.commands.stages import USUAL_OUTPUT, OutputMode, run_one

Kind = Literal["dpo", "rloo", "grpo", "bon"]


def baseline(
    kind: Annotated[Kind, typer.Argument(help="The simpler method.", show_default=False)],
    config: options.Config = None,
    run_dir: options.Dir = None,
    sets: options.Sets = None,
    force: options.Force = False,
    mode: OutputMode = USUAL_OUTPUT,
) -> None:
    """Compare PPO with a simpler method: DPO, RLOO, GRPO or best of n.

    rloo and grpo are the PPO stage without a value model, with the base, reward, prompts, KL weight and number of
    responses of the run's section `ppo`. dpo learns from the pairs of the reward model, without one. Their policy goes
    to baselines/KIND/ of the run directory; nothing else in the run changes. bon (best of n) trains nothing: it is the
    evaluation, with best of n among its policies.
    """
    resolved, run = settings.resolve(config, run_dir, sets or (), {})
    if kind == "bon":
        policies = resolved.eval.policies
        if "bon" not in policies:
            resolved, run = settings.resolve(config, run_dir, sets or (), {"eval.policies": [*policies, "bon"]})
        run_one("eval", resolved, run, force=force, mode=mode)
        return
    run_one(f"{BASELINES}/{kind}", resolved, run, force=force, mode=mode)


def register(app: typer.Typer) -> None:
    """Add the command."""
    examples = options.examples(
        "rlhf baseline grpo --run-dir runs/my --set baselines.num_generations=8",
        "rlhf baseline dpo --run-dir runs/my --set baselines.dpo.beta=0.3",
        "rlhf baseline bon --run-dir runs/my --set eval.best_of_n=64 --force",
    )
    app.command("baseline", epilog=examples)(options.with_groups(baseline))
