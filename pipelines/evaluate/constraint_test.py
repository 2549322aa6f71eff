"""Following of instructions: the share of verifiable constraints that the answers of each policy follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.data.encode import ChatEncoder, EncodedPrompt
from pipelines.evaluate.further_tests import ByPolicy, Figure, answer_cells, encode
from pipelines.run.stage import StageContext
from pipelines.scorers.constraints import read_constraints

TITLE = "constraints followed"


class ConstraintTest:
    """The four accuracies of IFEval: by prompt and by constraint, strict and loose (see `ConstrainedPrompt`).

    Args:
        path: file that `read_constraints` reads.
        encoder: encoder of the policies.
        limit: most tokens of a prompt.
    """

    def __init__(self, path: Path, encoder: ChatEncoder, limit: int) -> None:
        rows = read_constraints(path)
        encoded = encode([row.prompt for row in rows], encoder, limit, str(path))
        self.prompts: Sequence[EncodedPrompt] = list(encoded.values())
        self._rows = [rows[place] for place in encoded]
        self._left_out = len(rows) - len(encoded)
        self._followed: dict[str, list[list[tuple[bool, bool]]]] = {}

    def figures(self, ctx: StageContext, answers: ByPolicy, device: torch.device) -> list[Figure]:
        """Measure the answers; the interval is clustered by prompt."""
        with ctx.reporter.task("verifying constraints", len(answers) * len(self._rows)) as task:
            for policy, completions in answers.items():
                self._followed[policy] = []
                for row, completion in zip(self._rows, completions, strict=True):
                    self._followed[policy].append(row.followed(completion.text))
                    task.advance()
        figures = []
        counts = [float(len(row.constraints)) for row in self._rows]
        for mode, ending in enumerate(("", ", loose")):
            kept = {
                policy: [float(sum(verdict[mode] for verdict in verdicts)) for verdicts in by_prompt]
                for policy, by_prompt in self._followed.items()
            }
            whole = {
                policy: [float(value == count) for value, count in zip(values, counts, strict=True)]
                for policy, values in kept.items()
            }
            figures.append(Figure(TITLE, f"whole prompts{ending}", whole, [1.0] * len(counts), share=True))
            figures.append(Figure(TITLE, f"each{ending}", kept, counts, share=True))
        return figures

    def notes(self) -> list[str]:
        """Say how many prompts and constraints there are, and what loosely means."""
        total = sum(len(row.constraints) for row in self._rows)
        left_out = f" {self._left_out} prompts were too long and left out." if self._left_out else ""
        return [
            f"{TITLE}: {total} verifiable constraints of {len(self._rows)} prompts (IFEval); loose: without the "
            f"first line, the last one or asterisks.{left_out}"
        ]

    def rows(self, answers: ByPolicy) -> list[dict[str, Any]]:
        """Give each prompt with its constraints, and by policy which of them the answer follows."""
        rows = []
        for place, row in enumerate(self._rows):
            cells = answer_cells(answers, place)
            for policy, cell in cells.items():
                cell["strict"], cell["loose"] = map(list, zip(*self._followed[policy][place], strict=True))
            constraints = [{"id": name, "arguments": dict(arguments)} for name, arguments in row.constraints]
            rows.append({"test": "constraints", "prompt": row.prompt, "constraints": constraints, "answers": cells})
        return rows
