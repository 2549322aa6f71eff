"""Which side of the split each task is on, in a file beside the tasks.

The split goes by how a prompt begins. The prompt of a task can be a cut one, which would hash to another side than the
prompt it was made from: so `sample` says what the side is, `labels` hands it on, and `pairs` goes by it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from pipelines.data.rows import Message
from pipelines.data.split import is_held_out, prompt_key
from pipelines.disk import disk_errors, write_atomic
from pipelines.errors import ArtifactError
from pipelines.feedback.types import Task

SIDES = "sides.json"
TRAIN, HELDOUT = "train", "heldout"


def write_sides(directory: Path, tasks: Iterable[Task], heldout: Iterable[tuple[Message, ...]]) -> None:
    """Write the side of every task.

    Args:
        directory: of the tasks.
        tasks: of both sides.
        heldout: the held-out prompts, as the tasks have them: a task of one of these is held out.

    Raises:
        DiskError: it cannot be written.
    """
    kept = {prompt_key(prompt) for prompt in heldout}
    _write(directory, {task.id: HELDOUT if prompt_key(task.prompt) in kept else TRAIN for task in tasks})


def hand_on(source: Path, target: Path) -> None:
    """Copy the sides of `source` to `target`; nothing where they are not known.

    Raises:
        ArtifactError, DiskError: they cannot be read or written.
    """
    if sides := _read(source):
        _write(target, sides)


def heldout_prompts(directory: Path, tasks: Collection[Task], fraction: float) -> set[int]:
    """The `prompt_key` of every prompt that has a held-out task.

    Args:
        directory: of the tasks; where it holds no sides, or not that of a task, its prompt decides as everywhere else.
        tasks: all of them.
        fraction: `data.eval_fraction`.

    Raises:
        ArtifactError: the sides cannot be read.
    """
    sides = _read(directory)
    return {prompt_key(task.prompt) for task in tasks if _held_out(task, sides, fraction)}


def _held_out(task: Task, sides: Mapping[str, str], fraction: float) -> bool:
    known = sides.get(task.id)
    return is_held_out(task.prompt, fraction) if known is None else known == HELDOUT


def _write(directory: Path, sides: Mapping[str, str]) -> None:
    with disk_errors(directory):
        write_atomic(directory / SIDES, json.dumps(sides, indent=0) + "\n")


def _read(directory: Path) -> dict[str, str]:
    path = directory / SIDES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the sides of the tasks cannot be read: {error}", where=str(path)) from error
    if not isinstance(found, dict) or not {*found.values()} <= {TRAIN, HELDOUT}:
        raise ArtifactError(f"the sides of the tasks are not {TRAIN} or {HELDOUT} each", where=str(path))
    return found
