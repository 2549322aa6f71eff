"""What annotators are asked."""

from __future__ import annotations

import pytest

from pipelines.config.feedback_section import LabelSection
from pipelines.errors import UsageError
from pipelines.labels.label_types import Question
from pipelines.labels.questions import WORDS, default_question, parse_questions, questions_of


def test_questions_of_the_configuration_get_the_words_of_their_kind():
    section = LabelSection.model_validate(
        {"questions": [{"name": "overall"}, {"name": "polite", "kind": "scale", "points": 7, "low": "rude"}]}
    )
    first, second = questions_of(section)
    assert first == Question("overall", "ranking", WORDS["ranking"])
    assert (second.text, second.points, second.low, second.high) == (WORDS["scale"], 7, "rude", "very good")


def test_every_kind_has_words():
    for kind in WORDS:
        assert default_question("x", kind).text
    toxic = LabelSection.model_validate({"questions": [{"name": "toxic", "kind": "binary", "text": "Is it toxic?"}]})
    assert questions_of(toxic) == (Question("toxic", "binary", "Is it toxic?", low="no", high="yes"),)


def test_questions_of_the_command_line():
    found = parse_questions(["overall:ranking", "polite:scale7: How polite: very?", "bad:binary"])
    assert [(one.name, one.kind, one.text) for one in found] == [
        ("overall", "ranking", WORDS["ranking"]),
        ("polite", "scale", "How polite: very?"),
        ("bad", "binary", WORDS["binary"]),
    ]
    assert found[1].points == 7


@pytest.mark.parametrize(
    "entries",
    [
        *(["overall"], ["Over all:ranking"], ["a:best"], [":ranking"], ["a:binary7"], ["a:scale99"], ["a:scale1"]),
        *(["a:ranking", "a:scale"], ["a:demonstration", "b:binary"]),
    ],
    ids=str,
)
def test_what_is_no_question(entries: list[str]):
    with pytest.raises(UsageError) as error:
        parse_questions(entries)
    assert "name:kind" in str(error.value.hint)
