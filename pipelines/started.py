"""What an unfinished stage was begun with: by it a later run decides whether it may go on. Never imports torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.disk import read_json, write_atomic
from pipelines.manifest import FileRecord
from pipelines.rundir import CHECKPOINTS

_NAME = "started.json"


@dataclass(frozen=True)
class Started:
    """Settings and inputs of a stage at its start; the fields are those of its later manifest."""

    fingerprint: str
    section: dict[str, Any]
    inputs: dict[str, list[FileRecord]]

    def write(self, directory: Path) -> None:
        """Write it beside the checkpoints of the working directory of the stage."""
        (directory / CHECKPOINTS).mkdir(exist_ok=True)
        write_atomic(directory / CHECKPOINTS / _NAME, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Started | None:
        """What the stage that works in `directory` was begun with; None where that is not known."""
        data = read_json(directory / CHECKPOINTS / _NAME)
        try:
            inputs = {name: [FileRecord(**record) for record in records] for name, records in data["inputs"].items()}
            return cls(str(data["fingerprint"]), dict(data["section"]), inputs)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
