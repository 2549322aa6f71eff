"""Several answers and a verdict, in the layouts of nine public data sets: rows, labels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.data_section import Source
from pipelines.data.read import SourceReader
from pipelines.data.rows import Comparison, Demonstration, Prompt
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
    # names of models that end in a letter of an answer
    (
        "model of the other letter",
        {"prompt": Q, "response_a": BAD, "response_b": GOOD, "model_a": "gpt", "model_b": "vicuna", "winner": "vicuna"},
    ),
    ("another name of the verdict", {"question": Q, "answer_A": BAD, "answer_B": GOOD, "preferred": "B"}),
    ("in words", {"prompt": Q, "response_a": BAD, "response_b": GOOD, "feedback": "b"}),
    ("in a sentence", {"prompt": Q, "response_a": BAD, "response_b": GOOD, "verdict": "Response B is slightly better"}),
    ("of a judge", {"prompt": Q, "assistant_a_answer": GOOD, "assistant_b_answer": BAD, "verdict": "[[A]]"}),
    ("text of the answer", {"prompt": Q, "answers": [BAD, GOOD], "best": GOOD}),
    ("list of votes", {"prompt": Q, "answers": [BAD, GOOD], "votes": ["b", "a", "b"]}),
    (
        "votes by name",
        {
            "prompt": Q,
            "left_answer": GOOD,
            "right_answer": BAD,
            "annotators": {"ann": "left", "bo": "right", "cy": "left"},
        },
    ),
    ("nested", {"prompt": Q, "response_a": BAD, "response_b": GOOD, "verdict": {"choice": "B", "reason": "r"}}),
    (
        "answers with authors",
        {"prompt": Q, "answers": [{"text": BAD, "model": "m"}, {"text": GOOD, "model": "n"}], "winner": "n"},
    ),
    ("scores in a list", {"question": Q, "answers": [{"text": BAD, "pm_score": 1}, {"text": GOOD, "pm_score": 3}]}),
    ("a list of scores", {"prompt": Q, "answers": [BAD, GOOD], "ratings": [1, 3]}),
    ("chosen alone", {"prompt": Q, "response_0": BAD, "response_1": GOOD, "chosen": 1}),
    ("ranks", {"prompt": Q, "response_a": BAD, "response_b": GOOD, "rank_a": 3, "rank_b": 1}),
    (
        "summaries",
        {"info": {"post": Q, "title": "t"}, "summaries": [{"text": GOOD}, {"text": BAD}], "choice": 0, "worker": "w1"},
    ),
    ("turns", {"messages": [USER], "answer_1": [SAID], "answer_2": [WRONG], "label": 1}),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": Q}], "answer_1": GOOD, "answer_2": BAD, "winner": "answer_1"},
    ),
    (
        "more words beside the name",
        {"prompt": Q, "raw_output_1": "x", "raw_output_2": "y"} | {"output_1": BAD, "output_2": GOOD, "verdict": 2},
    ),
]
TIES: list[dict[str, Any]] = [
    {**PANDA, "annotator1": 2, "annotator2": 1, "annotator3": 0},
    {"instruction": Q, "output_1": GOOD, "output_2": BAD, "preference": 1.5},
    {"prompt": Q, "response_1": GOOD, "response_2": BAD, "preference_strength": 0},
    {**ARENA, "winner": "tie (bothbad)"},
    {**ARENA, "winner": "Tie (Both bad)"},
    {"prompt": Q, "response_a": GOOD, "response_b": BAD, "votes": {"ann": "A", "bo": "B"}},
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
    margins = {"pandalm": 1 / 3, "helpsteer2": 2, "helpsteer3": 2, "webgpt": 1, "scores": 2, "scores beside": 3}
    margins |= {
        "list of votes": 1 / 3,
        "votes by name": 1 / 3,
        "scores in a list": 2,
        "a list of scores": 2,
        "ranks": 2,
    }
    assert pair.margin == (pytest.approx(margins[name], abs=1e-6) if name in margins else None)
    judged_by = {"pandalm": "3 annotators", "list of votes": "3 annotators", "votes by name": "3 annotators"}
    judged_by |= {"alpaca_eval": "gpt4", "alpaca_eval weighted": "gpt4", "arena": "arena_user_1", "summaries": "w1"}
    assert pair.annotator == judged_by.get(name)


@pytest.mark.parametrize("row", TIES)
def test_a_tie_gives_no_pair_and_is_no_fault(
    tmp_path: Path, row: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome,) = SourceReader(Source(path=save(tmp_path, row)), Comparison)
    assert (outcome.rows, outcome.fault) == ((), None)
    assert rlhf(["data", "check", save(tmp_path, row), "--json"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["files"][0]["ties"] == 1


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
    for answers, numbers, chosen in (
        ({"answers": [GOOD, BAD]}, (1, 2), [[GOOD], [BAD]]),
        ({"answer_1": GOOD, "answer_2": BAD}, (1, 2, 0), [[GOOD], [BAD], []]),
        ({"answer_1": GOOD, "answer_2": BAD}, (1, 1, 1), [[GOOD]] * 3),
        ({"answer_0": GOOD, "answer_1": BAD}, (1, 0), [[BAD], [GOOD]]),
        # 0 may be a tie or the first answer, and the last number the last answer or a tie
        ({"answers": [GOOD, BAD]}, (1, 2, 0), None),
        ({"answer_1": GOOD, "answer_2": BAD}, (1, 0, 1), None),
        ({"answer_0": GOOD, "answer_1": BAD}, (1, 2, 1), None),
        ({"answer_1": GOOD, "answer_2": BAD}, (-1, 1, 0), None),
        ({"answer_1": GOOD, "answer_2": BAD}, (True, False), None),
    ):
        rows = [{"prompt": f"{Q} {place}", **answers, "label": number} for place, number in enumerate(numbers)]
        path = save(tmp_path, *rows)
        outcomes = list(SourceReader(Source(path=path), Comparison))
        if chosen is not None:
            assert [[pair.chosen for pair in outcome.rows] for outcome in outcomes] == chosen
            continue
        assert all("label: does not say which answer it means" in str(outcome.fault) for outcome in outcomes)
        told = {**{str(number): 0 for number in numbers}, str(numbers[0]): 2, str(numbers[1]): 1}
        outcomes = list(SourceReader(Source(path=path, verdicts=told), Comparison))
        assert [pair.chosen for outcome in outcomes[:2] for pair in outcome.rows] == [BAD, GOOD]
        assert not [outcome.fault for outcome in outcomes if outcome.fault]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": 3}, "verdict: is none of the 2 answers (found 3"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": "C"}, "names none of the answers"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": " ", "verdict": 1}, "an answer is blank"),
        ({"other": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": 1}, "there is no prompt"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": None}, "there is no verdict on the answers"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "label": 1, "winner": "b"}, "--columns verdict=label"),
        ({"prompt": [SAID], "answer_1": GOOD, "answer_2": BAD, "verdict": "tie"}, "there is no user turn"),
        ({"prompt": Q, "answers": [GOOD, BAD, "c"], "strength": 1}, "a strength, which compares two answers"),
        ({"prompt": Q, "answers": [GOOD, BAD, "c"], "scores": [1, 2]}, "a number for each of the 3 answers, not 2"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "rating": 3}, "--columns verdict=rating"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "labels": [1, 2]}, "--columns verdicts=labels"),
        ({"query": Q, "context": "c", "answer_1": GOOD, "answer_2": BAD, "label": 1}, "--columns prompt=query"),
        ({"prompt": Q, "output_1": GOOD, "output_2": BAD, "text_1": "a", "text_2": "b", "label": 1}, "answer_1=FIRST"),
        ({"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "verdict": 1, "input": "x"}, "input: is no column"),
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


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"answer_a": GOOD, "answer_b": BAD, "winner": "a"}, "`--columns prompt=PROMPT`"),
        (
            {"prompt": Q, "cand_x": GOOD, "cand_y": BAD, "winner": "x"},
            "--columns answer_1=cand_x --columns answer_2=cand_y",
        ),
        ({"prompt": Q, "answer_a": GOOD, "answer_b": BAD, "says": "a"}, "`--columns verdict=VERDICT`"),
    ],
)
def test_a_verdict_beside_answers_is_never_imitated(tmp_path: Path, row: dict[str, Any], hint: str) -> None:
    path = save(tmp_path, row)
    with pytest.raises(DataError) as caught:
        list(SourceReader(Source(path=path), Comparison))
    assert hint in str(caught.value.hint)
    with pytest.raises(DataError):
        list(SourceReader(Source(path=path), Demonstration))


@pytest.mark.parametrize("says", ["x", "cand_x"])
def test_answers_by_unusual_names_are_no_prompts_alone(tmp_path: Path, says: str) -> None:
    path = save(tmp_path, {"prompt": Q, "cand_x": GOOD, "cand_y": BAD, "winner": says})
    with pytest.raises(DataError, match="the answers beside the prompt are not read"):
        list(SourceReader(Source(path=path)))
    if says == "cand_x":  # the name that the answer has in the file
        (outcome,) = SourceReader(Source(path=path, columns={"answer_1": "cand_x", "answer_2": "cand_y"}), Comparison)
        assert outcome.row is not None
        assert outcome.row.chosen == GOOD


def test_rows_of_other_formats_stay_theirs(tmp_path: Path) -> None:
    """Two more answers with scores beside what a format reads; and prompts need no verdict."""
    two = {"response_1": "x", "response_2": "y", "score_1": 1, "score_2": 2}
    for row, name in (
        ({"prompt": Q, "completion": GOOD, **two}, "prompt_completion"),
        ({"messages": [USER, SAID], **two}, "messages"),
        ({"instruction": Q, "output": GOOD, **two}, "alpaca"),
        ({"prompt": Q, "completion": GOOD, **two, "label": True}, "kto"),
        ({"prompt": Q, "chosen": GOOD, "rejected": BAD, **two}, "preference"),
        ({"prompt": Q, "answers": [GOOD, BAD]}, "prompt"),
    ):
        reader: SourceReader[Any] = SourceReader(Source(path=save(tmp_path, row)))
        (outcome,) = reader
        assert outcome.fault is None
        assert reader.format is not None
        assert reader.format.name == name
    tied = {"response_a": GOOD, "response_b": BAD}
    for row in ({"prompt": Q, "winner": "tie"}, {"prompt": Q, "label": 1}, {"question": Q, "label": 1}):
        (outcome,) = SourceReader(Source(path=save(tmp_path, {**row, **tied})), Prompt)
        assert outcome.row is not None
        assert outcome.row.prompt[0].content == Q


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
        (row.prompt[0].content, row.chosen, row.margin, row.annotator)
        for outcome in SourceReader(Source(path=path), Comparison)
        for row in outcome.rows
    }
    assert len(expected) == 4
    assert rlhf(["pairs", path, "--out", str(tmp_path / "pairs.jsonl")]) == 0
    made = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert {(row["prompt"][0]["content"], *map(row.get, ("chosen", "margin", "annotator"))) for row in made} == expected
    capsys.readouterr()
    assert rlhf(["agreement", path, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "annotator1" in json.dumps(report)


def test_labels_take_the_meaning_of_a_number_from_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(save(tmp_path, {"prompt": Q, "response_a": GOOD, "response_b": BAD, "verdict": 1}))
    with pytest.raises(DataError, match=r"rlhf labels convert a\.jsonl --to tasks --value 1=1"):
        read_labels(path)
    labels = read_labels(path, ReadingOptions(choices={"1": 1, "0": 2}))
    assert labels.labels[0].values == {"overall": (1, 2)}
    assert (
        rlhf(["labels", "convert", str(path), "--to", "tasks", "--value", "1=2", "--out", f"{tmp_path}/t.jsonl"]) == 0
    )
    assert read_labels(tmp_path / "t.jsonl").labels[0].values == {"overall": (2, 1)}


def test_labels_of_columns_by_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"system": "Be right.", "ask": Q, "l": GOOD, "r": BAD, "says": "1", "judge": "ann"}
    path = save(tmp_path, row, {**row, "judge": "bo", "says": "2"})
    names = ["prompt=ask", "answer_1=l", "answer_2=r", "verdict=says"]
    options = [part for name in names for part in ("--columns", name)]
    assert rlhf(["labels", "show", path, *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["tasks"], sorted(told["annotators"])) == (1, ["ann", "bo"])
    (task,) = read_labels(Path(path), ReadingOptions(columns=dict(name.split("=") for name in names))).tasks.values()
    assert [turn.role for turn in task.prompt] == ["system", "user"]


def test_rows_without_a_verdict_or_an_answer_are_counted_among_labels(tmp_path: Path) -> None:
    row = {"prompt": Q, "answer_1": GOOD, "answer_2": BAD, "model_1": "m", "model_2": "n", "label": 1}
    labels = read_labels(Path(save(tmp_path, row, {**row, "label": None}, {**row, "answer_2": ""})))
    assert [answer.model for task in labels.tasks.values() for answer in task.answers] == ["m", "n"]
    assert sum("records left out" in note for note in labels.notes) == 2
    assert labels.labels[0].order == ()


def test_labels_of_a_parquet_file(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist([{**PANDA, "annotator1": 2, "annotator2": 0}])
    parquet.write_table(table, tmp_path / "a.parquet")
    labels = read_labels(tmp_path / "a.parquet")
    assert [(label.annotator, label.values["overall"]) for label in labels.labels] == [
        ("annotator1", (2, 1)),
        ("annotator2", (1, 1)),
    ]


def test_every_layout_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, row in PUBLIC:
        path = save(tmp_path, row)
        assert rlhf(["data", "check", path, "--as", "reward", "--json"]) == 0
        (file,) = json.loads(capsys.readouterr().out)["files"]
        assert (file["format"], file["bad"], file["ties"], file["kinds"]) == ("two_answers", 0, 0, {"comparison": 1})
        assert rlhf(["agreement", path, "--bootstrap", "0", "--json"]) == 0
        (question,) = json.loads(capsys.readouterr().out)["questions"]
        assert question["question"] == "overall"
        assert rlhf(["pairs", path, "--out", str(tmp_path / f"{name}.jsonl"), "--quiet"]) == 0
        (pair,) = map(json.loads, (tmp_path / f"{name}.jsonl").read_text().splitlines())
        assert (pair["chosen"], pair["rejected"]) == (GOOD, BAD)
