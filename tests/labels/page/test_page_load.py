"""Annotators at work while the server is killed: the benchmark in small."""

from __future__ import annotations

from benchmarks.label_load import measure


def test_what_was_acknowledged_is_kept_when_the_server_is_killed():
    found = measure(annotators=5, kills=3, tasks=400, overlap=2, quiet_seconds=0.5)
    assert found["lost"] == found["different"] == found["never_acknowledged"] == found["tasks_over_overlap"] == 0
    assert found["acknowledged"] == found["found"]
    assert int(str(found["found"])) >= 10
    assert int(str(found["retries"])) > 0
