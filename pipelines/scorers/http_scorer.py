"""A server as a scorer: it gets prompts and completions as JSON and returns scores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from pipelines.config.scorer_section import ScorerSection
from pipelines.data.rows import as_dict
from pipelines.errors import DataError
from pipelines.scorers.http_poster import HttpPoster
from pipelines.scorers.protocol import Completion, Dialogue, Progress, ScoreError, checked_scores


class HttpScorer:
    """POSTs prompts and completions, and reads ``{"scores": [number]}``.

    The body is ``{"prompts": [[{role, content}]], "completions": [text], "finished": [bool]}``; see `HttpPoster`.
    """

    def __init__(
        self,
        name: str,
        section: ScorerSection,
        *,
        progress: Progress | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make the scorer; nothing is sent yet.

        Raises:
            UsageError: an environment variable that `section` names is not set.
        """
        self.name = name
        self._section = section
        self._progress = progress
        self._poster = HttpPoster(
            f"the reward server {name}",
            str(section.url),
            token_env=section.token_env,
            timeout=section.timeout,
            retries=section.retries,
            sleep=sleep,
        )
        self.counts = self._poster.counts

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """Scores of the server, batch by batch.

        Raises:
            HubError: the server cannot be reached or refuses, after all retries.
            DataError: its answer is not one finite number for each completion.
        """
        scores: list[float] = []
        for start in range(0, len(prompts), self._section.batch_size):
            part = slice(start, start + self._section.batch_size)
            turns = [[as_dict(turn) for turn in prompt] for prompt in prompts[part]]
            texts = [completion.read(thoughts=self._section.read_thoughts) for completion in completions[part]]
            finished = [completion.finished for completion in completions[part]]
            answer = self._poster.post({"prompts": turns, "completions": texts, "finished": finished})
            scores += self._read(answer, len(texts), start)
            if self._progress is not None:
                self._progress(len(texts))
        return scores

    def _read(self, body: bytes, rows: int, start: int) -> list[float]:
        """Parse the scores of `rows` completions from number `start` on."""
        called = self._poster.called
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{called} answers with something that is not JSON", where=self._poster.address) from error
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            raise DataError(
                f"{called} answers without a list of `scores`",
                where=self._poster.address,
                hint='it must answer {"scores": [...]} with one number for each completion',
            )
        try:
            for row, score in enumerate(scores):
                if isinstance(score, bool):
                    raise ScoreError(
                        f"{called} gave {str(score).lower()} for completion {start + row + 1}; it must be a number",
                        start + row,
                    )
            return checked_scores(called, scores, rows, start=start)
        except DataError as error:
            error.where = self._poster.address
            raise
