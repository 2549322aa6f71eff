"""Several answers and a verdict, in the layouts of nine public data sets: rows, labels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison
from pipelines.errors import DataError
from pipelines.labels.exchange.gather import ReadingOptions
from pipelines.labels.exchange.label_files import read_labels
from rlhf_cli.app import run as rlhf

Q, GOOD, BAD = "What is 2 + 2?", "It is 4.", "It is 5."
USER, SAID, WRONG = (
    {"role": role, "content": text} for role, text in (("user", Q), ("assistant", GOOD), ("assistant", BAD))
)
PANDA = {
    "idx": 3,
    "motivation_app": "x",
    "cmp_key": "a_b",
    "instruction": "Add.",
    "input": "2 + 2",
    "response1": BAD,
    "response2": GOOD,
}
ARENA = {"question_id": "5", "model_a": "gpt-4", "model_b": "alpaca-13b", "turn": 1, "language": "English"}
ARENA |= {"conversation_a": [USER, SAID], "conversation_b": [USER, WRONG]}
PKU = {"prompt": Q, "response_0": BAD, "response_1": GOOD, "is_response_0_safe": True, "is_response_1_safe": True}
HELP3 = {"domain": "general", "language": "english", "context": [USER], "response1": GOOD, "response2": BAD}
SHP = {"post_id": "p", "domain": "d", "history": Q, "human_ref_A": GOOD, "human_ref_B": BAD, "score_A": 5, "score_B": 2}
PUBLIC: list[tuple[str, dict[str, Any]]] = [
    ("pandalm", {**PANDA, "annotator1": 2, "annotator2": 2, "annotator3": 1}),
    ("llmbar", {"input": Q, "output_1": BAD, "output_2": GOOD, "label": 2}),
    (
        "alpaca_eval",
        {
            "instruction": Q,
            "output_1": GOOD,
            "output_2": BAD,
            "preference": 1.0,
            "annotator": "gpt4",
            "generator_1": "a",
        },
    ),
    (
        "alpaca_eval weighted",
        {"instruction": Q, "output_1": BAD, "output_2": GOOD, "preference": 1.83, "annotator": "gpt4"},
    ),
    ("helpsteer2", {"split": "train", "prompt": Q, "response_1": GOOD, "response_2": BAD, "preference_strength": -2}),
    (
        "helpsteer3",
        {
            **HELP3,
            "overall_preference": -2,
            "individual_preference": [{"score": -2, "reasoning": "r"}, {"score": -1}, {"score": 1}],
        },
    ),
    ("shp", {**SHP, "labels": 1, "score_ratio": 2.5}),
    (
        "webgpt",
        {
            "question": {"full_text": Q, "dataset": "eli5"},
            "quotes_0": {},
            "answer_0": BAD,
            "answer_1": GOOD,
            "score_0": -0.5,
            "score_1": 0.5,
        },
    ),
    ("arena", {**ARENA, "winner": "model_a", "judge": "arena_user_1"}),
    ("pku", {**PKU, "better_response_id": 1, "safer_response_id": 0}),
]
MORE: list[tuple[str, dict[str, Any]]] = [
    ("letters", {"prompt": Q, "response_a": BAD, "response_b": GOOD, "verdict": "B"}),
    ("name of the model", {**ARENA, "winner": "gpt-4"}),
    (
        "one hot",
        {"prompt": Q, "response_a": GOOD, "response_b": BAD, "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
    ),
    ("sides", {"prompt": Q, "answer left": BAD, "answer right": GOOD, "choice": "right"}),
    ("system", {"system": "Be right.", "prompt": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": "answer_1"}),
    ("scores", {"prompt": Q, "completion_a": GOOD, "completion_b": BAD, "score_a": 3, "score_b": 1}),
    (
        "scores beside",
        {"prompt": Q, "response_1": GOOD, "response_1_rating": 5, "response_2": BAD, "response_2_rating": 2},
    ),
]
TIES: list[dict[str, Any]] = [
    {**PANDA, "annotator1": 2, "annotator2": 1, "annotator3": 0},
    {"instruction": Q, "output_1": GOOD, "output_2": BAD, "preference": 1.5},
    {"prompt": Q, "response_1": GOOD, "response_2": BAD, "preference_strength": 0},
    {**ARENA, "winner": "tie (bothbad)"},
    {"prompt": Q, "response_a": GOOD, "response_b": BAD, "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1},
    {"question": Q, "answer_0": GOOD, "answer_1": BAD, "score_0": 0.0, "score_1": 0.0},
]


def save(place: Path, *rows: dict[str, Any]) -> str:
    path = place / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("name", "row"), [*PUBLIC, *MORE], ids=[name for name, _ in (*PUBLIC, *MORE)])
@pytest.mark.parametrize("kind", [None, Comparison])
def test_the_better_answer_is_chosen(
    tmp_path: Path, name: str, row: dict[str, Any], kind: type[Comparison] | None
) -> None:
    reader = SourceReader(Source(path=save(tmp_path, row)), kind)
    (outcome,) = reader
    assert outcome.fault is None
    assert reader.format is not None
    assert reader.format.name == "two_answers"
    (pair,) = outcome.rows
    assert isinstance(pair, Comparison)
    assert (pair.chosen, pair.rejected) == (GOOD, BAD)
    assert pair.prompt[-1].content == ("Add.\n2 + 2" if name == "pandalm" else Q)
    assert pair.prompt[-1].role == "user"
    margins = {"helpsteer2": 4, "helpsteer3": 4 / 3, "webgpt": 1, "scores": 2, "scores beside": 3}
    assert pair.margin == (pytest.approx(margins[name]) if name in margins else None)


@pytest.mark.parametrize("row", TIES)
def test_a_tie_gives_no_pair_and_is_no_fault(
    tmp_path: Path, row: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome,) = SourceReader(Source(path=save(tmp_path, row)), Comparison)
    assert (outcome.rows, outcome.fault) == ((), None)
    assert rlhf(["data", "check", save(tmp_path, row, dict(PUBLIC)["llmbar"]), "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["files"][0]["rows_read"] == 2


def test_the_best_of_several_beats_all_others(tmp_path: Path) -> None:
    row = {"prompt": Q, "answer_1": "a", "answer_2": "b", "answer_3": "c", "best": 2}
    (outcome,) = SourceReader(Source(path=save(tmp_path, row)), Comparison)
    assert [(pair.chosen, pair.rejected) for pair in outcome.rows] == [("b", "a"), ("b", "c")]


@pytest.mark.parametrize("answers", [{"response_a": GOOD, "response_b": BAD}, {"answers": [GOOD, BAD]}])
@pytest.mark.parametrize("value", [0, 1, "1"])
def test_a_number_that_may_mean_either_answer_is_refused_with_the_way_to_tell_it(
    tmp_path: Path, answers: dict[str, Any], value: Any
) -> None:
    path = save(tmp_path, {"prompt": Q, **answers, "verdict": value})
    (outcome,) = SourceReader(Source(path=path), Comparison)
    assert f"`--verdicts {value}=1`" in str(outcome.fault)
    told = {"1": 1, "0": 2} if int(value) == 1 else {"0": 1, "1": 2}
    (outcome,) = SourceReader(Source(path=path, verdicts=told), Comparison)
    assert outcome.row is not None
    assert outcome.row.chosen == GOOD


def test_the_values_of_a_file_tell_where_its_numbers_begin(tmp_path: Path) -> None:
    rows = [{"prompt": f"{Q} {number}", "answers": [GOOD, BAD], "verdict": number % 3} for number in range(1, 4)]
    outcomes = list(SourceReader(Source(path=save(tmp_path, *rows)), Comparison))
    assert [[pair.chosen for pair in outcome.rows] for outcome in outcomes] == [[GOOD], [BAD], []]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": 3}, "'3' is none of the 2 answers"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": "C"}, "names none of the answers"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": " ", "verdict": 1}, "an answer is blank"),
        ({"other": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": 1}, "there is no prompt"),
        ({**ARENA, "conversation_b": [{"role": "user", "content": "x"}, WRONG], "winner": "model_a"}, "differ before"),
    ],
)
def test_a_row_that_says_nothing_clear_is_a_bad_row(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    good = {"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": 1}
    _, outcome = SourceReader(Source(path=save(tmp_path, good, row)), Comparison)
    assert reason in str(outcome.fault)
    assert outcome.record.place.endswith("a.jsonl:2")


def test_columns_and_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        f"ask,left one,right one,says\n{Q},{GOOD},{BAD},1\n{Q} again,{BAD},{GOOD},2\n{Q} or,{BAD},{GOOD},0\n"
    )
    columns = {"prompt": "ask", "answer_1": "left one", "answer_2": "right one", "verdict": "says"}
    outcomes = list(SourceReader(Source(path=str(path), columns=columns), Comparison))
    assert [[pair.chosen for pair in outcome.rows] for outcome in outcomes] == [[GOOD], [GOOD], []]


@pytest.mark.parametrize(("name", "row"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_they_are_labels_as_well(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    labels = read_labels(Path(save(tmp_path, row)))
    (task,) = labels.tasks.values()
    assert {answer.text for answer in task.answers} == {GOOD, BAD}
    good = [answer.text for answer in task.answers].index(GOOD)
    first = labels.labels[0].values["overall"]
    assert first[good] == 1
    assert len(labels.labels) == {"pandalm": 3, "helpsteer3": 3}.get(name, 1)
    named = {"pandalm": "annotator1", "alpaca_eval": "gpt4", "alpaca_eval weighted": "gpt4", "arena": "arena_user_1"}
    assert labels.labels[0].annotator == named.get(name, "unknown-1")


def test_the_pairs_of_the_labels_are_those_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three annotators, some at odds: the majority decides in both ways."""
    votes = [(1, 1, 2), (2, 2, 2), (0, 2, 1), (1, 0, 0), (2, 1, 2), (0, 0, 0)]
    rows = [
        {**PANDA, "input": f"{number} + 2"} | {f"annotator{place}": vote for place, vote in enumerate(told, 1)}
        for number, told in enumerate(votes)
    ]
    path = save(tmp_path, *rows)
    expected = {
        (row.prompt[0].content, row.chosen)
        for outcome in SourceReader(Source(path=path), Comparison)
        for row in outcome.rows
    }
    assert len(expected) == 4
    assert rlhf(["pairs", path, "--out", str(tmp_path / "pairs.jsonl")]) == 0
    made = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert {(row["prompt"][0]["content"], row["chosen"]) for row in made} == expected
    capsys.readouterr()
    assert rlhf(["agreement", path, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "annotator1" in json.dumps(report)


def test_labels_take_the_meaning_of_a_number_from_an_option(tmp_path: Path) -> None:
    path = Path(save(tmp_path, {"prompt": Q, "response_a": GOOD, "response_b": BAD, "verdict": 1}))
    with pytest.raises(DataError, match="--value 1=1"):
        read_labels(path)
    labels = read_labels(path, ReadingOptions(choices={"1": 1, "0": 2}))
    assert labels.labels[0].values == {"overall": (1, 2)}
