"""The `support` task: its streams, its probes and its annotators."""

from __future__ import annotations

from itertools import islice

import pytest

from pipelines.data.rows import Comparison, Demonstration, Message, Prompt
from pipelines.errors import UsageError
from pipelines.tasks import AnnotatorPool, load_task
from pipelines.tasks import support_wording as wording
from pipelines.tasks.support import PROBE_ATTRIBUTES
from pipelines.tasks.support_gold import topics_in

POOL = AnnotatorPool(annotators=5, noise=0.1, bias=0.3)
TASK = load_task("support")


def streams(n: int, seed: int) -> dict[str, list]:
    return {
        "demonstrations": list(TASK.demonstrations(n, seed)),
        "comparisons": list(TASK.comparisons(n, seed, POOL)),
        "prompts": list(TASK.prompts(n, seed)),
        "probes": list(TASK.probes(n, seed)),
    }


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = streams(50, 3), streams(50, 3), streams(50, 4)
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_a_longer_stream_begins_like_a_shorter_one() -> None:
    short, long = streams(20, 0), streams(60, 0)
    assert all(long[name][:20] == short[name] for name in short)


def test_the_first_rows_are_the_same_on_every_machine() -> None:
    """Written down once: a change of the generator must be a decision, and no machine may differ."""
    [first] = TASK.demonstrations(1, 0)
    assert [turn.content for turn in first.messages] == [
        "Good morning, I still wait for delivery of the radio. Order 826.",
        "We are very sorry. There is a delay with your radio. Please call us on Wednesday.",
    ]


def test_streams_of_one_seed_do_not_share_their_prompts() -> None:
    rows = streams(300, 0)
    asked = [
        {row.messages[0].content for row in rows["demonstrations"]},
        *({row.prompt[0].content for row in rows[name]} for name in ("comparisons", "prompts", "probes")),
    ]
    for number, left in enumerate(asked):
        for right in asked[number + 1 :]:
            assert len(left & right) <= 0.02 * len(left)


def test_rows_are_canonical_and_complete() -> None:
    rows = streams(200, 1)
    assert [len(stream) for stream in rows.values()] == [200] * 4
    for name, kind in (("demonstrations", Demonstration), ("comparisons", Comparison), ("prompts", Prompt)):
        for row in rows[name]:
            assert kind.model_validate_json(row.model_dump_json()) == row
    assert {row.source for row in rows["comparisons"]} == {"simulated"}
    assert {row.annotator for row in rows["comparisons"]} == {f"sim-{i:02d}" for i in range(1, 6)}
    assert all(row.chosen != row.rejected for row in rows["comparisons"])


def test_prompts_vary() -> None:
    messages = [row.messages[0].content for row in TASK.demonstrations(3000, 0)]
    assert len(set(messages)) >= 0.98 * len(messages)
    prompts = [row.prompt[0].content for row in TASK.prompts(3000, 0)]
    assert len(set(prompts)) == 3000
    assert len(set(messages) & set(prompts)) <= 0.04 * 3000


def test_texts_are_short() -> None:
    words = [len(" ".join(turn.content for turn in row.messages).split()) for row in TASK.demonstrations(1000, 0)]
    assert max(words) <= 50
    assert sum(words) / len(words) <= 30


def test_every_table_entry_shows_its_own_topic_and_no_other() -> None:
    for table in (wording.PROBLEMS, wording.ANSWERS):
        for topic, texts in table.items():
            for text in texts:
                filled = text.format(p="lamp", n=3, city="Boston", day="Monday")
                assert topics_in(filled) == {topic}, filled
    for text in (*wording.OPENINGS, *wording.STEPS, *wording.ASIDES, *wording.CLOSINGS):
        assert not topics_in(text), text


def test_demonstrations_are_of_mixed_quality() -> None:
    scores = [TASK.gold(row.messages[:1], row.messages[1].content) for row in TASK.demonstrations(1000, 0)]
    mean = {name: sum(score[name] for score in scores) / len(scores) for name in scores[0]}
    assert 0.7 <= sum(score["relevance"] == 1 for score in scores) / len(scores) <= 0.9
    assert 0.3 <= mean["courtesy"] <= 0.6
    assert 0.3 <= mean["next_step"] <= 0.6
    assert 0.4 <= mean["brevity"] <= 0.8
    assert mean["gold"] <= 0.8


def test_annotators_agree_with_gold_but_not_always() -> None:
    rows = list(TASK.comparisons(800, 0, POOL))
    right = [_gold(row, row.chosen) > _gold(row, row.rejected) for row in rows]
    assert 0.90 <= sum(right) / len(right) <= 0.98
    careful = TASK.comparisons(300, 0, AnnotatorPool(annotators=1, noise=0.0, bias=0.0))
    assert all(_gold(row, row.chosen) > _gold(row, row.rejected) for row in careful)


def test_annotators_differ_from_one_another() -> None:
    def labels(seed: int, pool: AnnotatorPool) -> list[str]:
        return [row.chosen for row in TASK.comparisons(400, seed, pool)]

    steady = labels(0, AnnotatorPool(annotators=3, noise=0.0, bias=0.0))
    biased = labels(0, AnnotatorPool(annotators=3, noise=0.0, bias=0.6))
    assert 1 <= sum(a != b for a, b in zip(steady, biased, strict=True)) <= 100


def test_a_pool_is_checked() -> None:
    with pytest.raises(ValueError, match="at least one"):
        AnnotatorPool(annotators=0, noise=0.1, bias=0.1)
    with pytest.raises(ValueError, match="negative"):
        AnnotatorPool(annotators=1, noise=-0.1, bias=0.1)


def test_a_probe_spoils_one_attribute_only() -> None:
    probes = list(TASK.probes(500, 0))
    assert {probe.attribute for probe in probes} == set(PROBE_ATTRIBUTES)
    for probe in probes:
        good, spoiled = (TASK.gold(probe.prompt, text) for text in (probe.good, probe.spoiled))
        scored = "relevance" if probe.attribute in ("product", "topic") else probe.attribute
        lowered = {name for name in TASK.attributes if spoiled[name] < good[name]}
        raised = {name for name in TASK.attributes if spoiled[name] > good[name]}
        assert (lowered, raised) == ({scored}, set()), probe
        assert good["relevance"] == 1


def test_product_and_topic_probes_keep_the_other_half() -> None:
    for probe in islice(TASK.probes(500, 0), 200):
        if probe.attribute in ("product", "topic"):
            assert TASK.gold(probe.prompt, probe.spoiled)["relevance"] == 0.5


def test_an_unknown_task_is_a_usage_error_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        load_task("suport")
    assert caught.value.hint == "did you mean `support`?"
    with pytest.raises(UsageError) as caught:
        load_task("xyz")
    assert "support" in (caught.value.hint or "")


def _gold(row: Comparison, reply: str) -> float:
    prompt: tuple[Message, ...] = row.prompt
    return TASK.gold(prompt, reply)["gold"]
