"""What counts as the end of a response."""

from __future__ import annotations

from pipelines.models.forward import TokenBatch

EOS, STOP = 1, 7


def test_a_stop_token_finishes_a_response() -> None:
    batch = TokenBatch.of([[5], [5], [5]], [[4, EOS], [4, STOP], [4, 6]], (EOS, STOP))
    assert batch.finished.tolist() == [True, True, False]
