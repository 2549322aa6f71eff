"""The table of results: one row per measure, one column per policy, and some answers side by side.

It is made from results.json and rows of answers.jsonl alone, so that a report can make it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len

from pipelines.evaluate.conclusion import LEVEL, PEOPLE, best_update, name_of
from pipelines.report.estimates import Estimate, many, short
from pipelines.report.safe_text import fenced, literal, one_line, visible, wrap
from pipelines.report.unfinished import unfinished

WIDTH = 100
LABEL_WIDTH = 22
MOST_LINES = 12
NOTHING = "-"
BIAS = "bias: "
"""Beginning of the titles of differences between groups of persons."""

EstimateData = Mapping[str, float]
"""An estimate as stored in results.json; the bounds of one without an interval are None."""
_BOUNDED = ("value", "low", "high")


@dataclass(frozen=True)
class Row:
    """One measure.

    Attributes:
        label: its name.
        cells: estimate by column; a missing one would compare the baseline with itself.
        title: title of the group that starts here.
        detail: whether only a display with room for it has this row.
    """

    label: str
    cells: Mapping[str, EstimateData]
    title: str | None = None
    detail: bool = False


@dataclass(frozen=True)
class Grid:
    """The table as texts that are not yet safe to show.

    Attributes:
        columns: heads of the columns, without that of the labels.
        rows: of each row the title of the group that starts there (None: the group goes on), its label and its cells.
        notes: remarks below the table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, str, tuple[str, ...]], ...]
    notes: tuple[str, ...]


def grid(results: Mapping[str, Any]) -> Grid:
    """The table for a display of another kind, every cell with its interval."""
    columns = _columns(results)
    rows = (
        (row.title, row.label, tuple(_cell(row, column, interval=True) for column in columns)) for row in _rows(results)
    )
    return Grid(tuple(columns.values()), tuple(rows), tuple(_notes(results)))


def plain(results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str:
    """The table as plain text of at most `WIDTH` columns, safe to print."""
    lines = [line for text in _verdict(results) for line in (*wrap(visible(text), WIDTH), "")]
    lines += _plain_table(list(_in_short(_rows(results))), _columns(results))
    for note in _notes(results):
        lines += wrap(visible(note), WIDTH)
    for heading, cells in _curves(results):
        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        lines += ["", heading, ""]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    if samples:
        lines += ["", _heading(samples)]
    for number, sample in enumerate(samples, 1):
        lines += ["", *_sample(number, sample, results)]
    return "\n".join(lines) + "\n"


def markdown(results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown; answers stand in code blocks that they cannot close."""
    columns = _columns(results)
    lines = [line for text in _verdict(results) for line in (f"**{literal(text)}**", "")]
    lines += ["| | " + " | ".join(columns.values()) + " |", "|---|" + "---:|" * len(columns)]
    for row in _in_short(_rows(results)):
        if row.title:
            lines.append(f"| **{literal(row.title)}** |" + " |" * len(columns))
        cells = [_cell(row, column, interval=True) for column in columns]
        lines.append(f"| {literal(row.label)} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {literal(note)}" for note in _notes(results))]
    for heading, table in _curves(results):
        header, *rows = ([literal(cell) for cell in row] for row in table)
        lines += ["", heading, ""]
        lines += [f"| {' | '.join(row)} |" for row in (header, ["---:"] * len(header), *rows)]
    if samples:
        lines += ["", _heading(samples)]
    for number, sample in enumerate(samples, 1):
        lines += ["", fenced("\n".join(_sample(number, sample, results)))]
    return "\n".join(lines) + "\n"


def _rows(results: Mapping[str, Any]) -> Iterator[Row]:
    measures: Mapping[str, Any] = results["measures"]
    baseline = name_of(results["baseline"])

    def cells(*path: str) -> dict[str, EstimateData]:
        by_column = {policy: _lookup(values, path) for policy, values in measures.items()}
        by_column["difference"] = _lookup(measures.get(results["trained"], {}), ("difference", *path))
        return {column: of for column, of in by_column.items() if of is not None and of["value"] is not None}

    def group(title: str, names: Sequence[str], *path: str) -> Iterator[Row]:
        for number, name in enumerate(names):
            yield Row(name, cells(*path, name), None if number else title)

    scorers = [scorer["name"] for scorer in results["scorers"]]
    attributes = [name for values in measures.values() for name in values["attribute"]]
    yield from group("mean score", scorers, "mean")
    if len(measures) > 1:
        judges = [*([PEOPLE] if PEOPLE in results else []), *scorers]
        yield from group(f"wins against {baseline}", judges, "win_rate")
        controlled = {name for of in measures.values() for name in of.get("length_controlled_win_rate", {})}
        at_equal_length = [name for name in scorers if name in controlled]
        yield from group("wins at equal length", at_equal_length, "length_controlled_win_rate")
    parted = ", ".join(scorer["name"] for scorer in results["scorers"] if scorer["parts"])
    yield from group(f"{parted} by attribute", list(dict.fromkeys(attributes)), "attribute")
    if len(measures) > 1:
        yield Row(f"KL to {baseline}, nats", cells("kl"), "answers")
        if any("unlike" in values for values in measures.values()):  # results of older runs do not tell
            yield Row(f"unlike {baseline}'s", cells("unlike"))
    yield Row("length, tokens", cells("length"), None if len(measures) > 1 else "answers")
    yield Row("share finished", cells("finished"))
    if repeated := cells("repetition"):  # as above
        yield Row("words repeated", repeated, detail=not _apart(repeated.get("difference")))
        for n in measures[results["baseline"]]["distinct"]:
            yield Row(f"distinct-{n}", cells("distinct", n), detail=True)
        yield Row(f"perplexity to {baseline}", cells("perplexity"), detail=True)
    for title, figures in measures[results["baseline"]].get("tests", {}).items():
        for row in group(title, list(figures), "tests", title):
            # of bias there are many, each says little by itself, and a base answers anything
            trained = [cell for column, cell in row.cells.items() if column != "base" or len(measures) == 1]
            yield replace(row, detail=title.startswith(BIAS) and not any(map(_apart, trained)))


def _in_short(rows: Iterable[Row]) -> Iterator[Row]:
    """Leave out the details; where the first row of a group is one, the next has its title."""
    title = None
    for row in rows:
        title = row.title or title
        if not row.detail:
            yield replace(row, title=title)
            title = None


def _apart(difference: EstimateData | None) -> bool:
    """Whether there is a difference whose interval excludes 0."""
    return difference is not None and (difference["low"] > 0 or difference["high"] < 0)


def _columns(results: Mapping[str, Any]) -> dict[str, str]:
    columns = {policy: name_of(policy) for policy in results["measures"]}
    trained = results["trained"]
    if trained in columns and results["baseline"] != trained:
        columns["difference"] = f"{name_of(trained)} - {name_of(results['baseline'])}"
    return columns


def _plain_table(all_rows: Sequence[Row], columns: Mapping[str, str]) -> list[str]:
    """Lay out the table; intervals are left out column by column, from the left, until it fits."""
    bare: set[str] = set()
    for column in (None, *columns):
        if column is not None:
            bare.add(column)
        lines = _lay_out(all_rows, columns, bare)
        if max(map(cell_len, lines)) <= WIDTH:
            break
    if bare:
        left_out = ", ".join(columns[column] for column in columns if column in bare)
        lines.append(f"Too wide for the intervals of {left_out}: see table.md.")
    return lines


def _lay_out(rows: Sequence[Row], columns: Mapping[str, str], bare: set[str]) -> list[str]:
    body = [[_cell(row, column, interval=column not in bare) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns.values(), *body, strict=True)]

    labels = ["", *(f"  {one_line(row.label, LABEL_WIDTH - 2)}" for row in rows)]
    label_width = max(map(cell_len, labels))
    lines = []
    for label, row, cells in zip(labels, [None, *rows], [list(columns.values()), *body], strict=True):
        if row is not None and row.title:
            lines.append(one_line(row.title, WIDTH))
        padded = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{label}{' ' * (label_width - cell_len(label))}  {padded}".rstrip())
    return [*lines, ""]


def _cell(row: Row, column: str, *, interval: bool) -> str:
    """``.733 [.684, .782]``, as many digits in the whole row; a difference carries its sign."""
    if column not in row.cells:
        return NOTHING
    cell = row.cells[column]
    # all numbers of a row have the same number of decimals, so that they compare at a glance; the large values of an
    # untrained base do not count, or they would cost the others their digits
    scale = [other for name, other in row.cells.items() if name != "base"] or [cell]
    largest = max(abs(other[key]) for other in scale for key in _BOUNDED if other[key] is not None)
    sign = column == "difference"
    if cell["low"] is None:
        return _number(cell["value"], largest, sign=sign)
    value, low, high = (_number(cell[key], largest, sign=sign) for key in _BOUNDED)
    return f"{value} [{low}, {high}]" if interval else value


def _number(value: float, largest: float, *, sign: bool) -> str:
    if largest >= 1e5:
        return f"{value:+.2e}" if sign else f"{value:.2e}"
    decimals = 3 if largest <= 1 else 2 if largest < 10 else 1 if largest < 1000 else 0
    value = round(value, decimals) + 0.0  # adding 0 turns -0.0 into 0.0
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if largest <= 1:
        text = text.replace("0.", ".", 1)
    return text


def _verdict(results: Mapping[str, Any]) -> list[str]:
    verdict = results.get("verdict")  # results of older runs have none
    if verdict is None:
        return []
    offer = ["`rlhf ppo --use-best` trains again as far as that update."] if best_update(results) else []
    return [" ".join([f"Verdict: {verdict['sentence']}.", *offer])]


def _judge_notes(results: Mapping[str, Any]) -> list[str]:
    judge = results.get("judge")
    if judge is None:
        return []
    if "no_judge" in judge:
        return [f"No independent judge: {judge['no_judge']}."]
    accuracy, agreement = ((judge[key], judge[f"{key}_low"], judge[f"{key}_high"]) for key in ("accuracy", "agreement"))
    right, agreed = (f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in (accuracy, agreement))
    return [
        f"judge: a second reward model, trained on prompts that the optimized one never saw; right on {right} of "
        f"{judge['pairs']} held-out pairs, and orders {agreed} of them as the optimized one does."
    ]


def _language_model_notes(results: Mapping[str, Any]) -> list[str]:
    judge = results.get("language_model")
    if judge is None:
        return []
    counts, rate = judge["counts"], Estimate.of(judge["win_rate"])
    unread = judge["asked"] - rate.n
    trained, baseline = name_of(results["trained"]), name_of(results["baseline"])
    return [
        f"{judge['name']}, a language model, prefers {trained}'s answers to {baseline}'s on {rate.text(percent=True)} "
        f"of {rate.n} prompts. Asked in both orders, it changed its mind on {judge['flips']} and called "
        f"{judge['ties']} level; both count half. {unread} prompts had no readable reply. "
        f"{counts['requests']:.0f} requests, {counts['cached']:.0f} replies from before, {counts['tokens_read']:.0f} "
        f"tokens read and {counts['tokens_written']:.0f} written."
    ]


def _people_notes(results: Mapping[str, Any]) -> list[str]:
    people = results.get(PEOPLE)
    if people is None:
        return []
    rate = Estimate.of(people["win_rate"])
    trained, baseline = name_of(results["trained"]), name_of(results["baseline"])
    agreed = [
        f"with {name} on {(both := Estimate.of(entry)).text(percent=True)} of {both.n}"
        for name, entry in people["agreement"].items()
    ]
    agreement = f" Of the prompts on which both prefer an answer they agree {', '.join(agreed)}." if agreed else ""
    simulated = " Some of these labels are simulated." if people["simulated"] else ""
    return [
        f"people: {many(people['annotators'], 'annotator')} compared {rate.n} of the {people['asked']} prompts with "
        f"different answers, without being told who wrote them, and preferred {trained}'s to {baseline}'s on "
        f"{rate.text(percent=True)}.{agreement}{simulated}"
    ]


def _notes(results: Mapping[str, Any]) -> list[str]:
    settings, counts = results["settings"], results["prompts"]
    notes = [
        f"{counts['used']} held-out prompts, one answer of at most {settings['response_length']} tokens each, "
        f"temperature {settings['temperature']:g}. "
        f"In brackets: {settings['confidence']:.0%} bootstrap interval by prompt."
    ]
    if len(results["measures"]) > 1:
        notes.append(
            f"wins: share of prompts on which the score is higher than {name_of(results['baseline'])}'s; "
            "a tie counts half."
        )
    if any(policy.startswith("ppo-") for policy in results["measures"]):
        notes.append("PPO 2, PPO 3 ...: the policy after that round of sampling, labels, reward model and PPO.")
    notes += _judge_notes(results)
    notes += _language_model_notes(results)
    notes += _people_notes(results)
    notes += _blind_to_base(results)
    notes += [
        f"{scorer['name']}: the task's own hidden utility; simulated"
        for scorer in results["scorers"]
        if scorer["simulated"]
    ]
    limit = settings["response_length"]
    trained = {policy: measures for policy, measures in results["measures"].items() if policy != "base"}
    told = [unfinished(of["finished"]["value"], limit, f"{name_of(name)}'s answers") for name, of in trained.items()]
    notes += [f"{text}." for text in told if text is not None]
    if simulated := results["trained_on_simulated"]:
        notes.append(f"Trained on labels of simulated annotators ({', '.join(simulated)}): no human gave these labels.")
    notes += [f"{scorer['name']}: {scorer['note']}" for scorer in results["scorers"] if "note" in scorer]
    notes += results.get("notes", [])
    if counts["too_long"]:
        notes.append(f"{counts['too_long']} prompts of more than {settings['max_prompt_length']} tokens were left out.")
    notes += [
        f"{scorer['name']}: {scorer['truncated_texts']} texts were too long for it and were cut."
        for scorer in results["scorers"]
        if scorer["truncated_texts"]
    ]
    return notes


def _curves(results: Mapping[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """Heading and rows of text, the header first, of PPO on its way and of best-of-n, where these were judged."""
    if frontier := results.get("frontier"):
        marks = {frontier["published"]: " (published)"}
        of_points = [
            (f"{point['update']}{marks.get(point['update'], '')}", Estimate.of(point["kl"]).text())
            for point in frontier["points"]
        ]
        heading = f"On the way, on {frontier['prompts']} held-out prompts of the training:"
        yield heading, _curve_cells(("update", "KL, nats"), of_points, frontier["points"])
    if curve := results.get("best_of_n"):
        of_points = [(str(point["n"]), short(point["kl"]["value"])) for point in curve["points"]]
        yield (
            f"Best of n, on {curve['prompts']} prompts:",
            _curve_cells(("n", "KL at most"), of_points, curve["points"]),
        )


def _curve_cells(
    header: tuple[str, str], of_points: Sequence[tuple[str, str]], points: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    judges = list(points[0]["judged"])
    rows = [[*header, "optimized reward", *(one_line(name, LABEL_WIDTH) for name in judges)]]
    for of_point, point in zip(of_points, points, strict=True):
        estimates = [point["optimized"], *(point["judged"][name] for name in judges)]
        rows.append([*of_point, *(Estimate.of(estimate).text() for estimate in estimates)])
    return rows


def _blind_to_base(results: Mapping[str, Any]) -> list[str]:
    """Name the scorers that do not rank the base below the baseline although the gold scorer does."""
    rates: Mapping[str, EstimateData] = results["measures"].get("base", {}).get("win_rate", {})
    gold = next((entry["name"] for entry in results["scorers"] if entry["simulated"] and entry["name"] in rates), None)
    if gold is None or rates[gold]["high"] >= LEVEL:
        return []
    baseline = name_of(results["baseline"])
    return [
        f"{name} ranks base level with {baseline} or above (wins {_number(rate['value'], 1, sign=False)}), {gold} far "
        f"below ({_number(rates[gold]['value'], 1, sign=False)}): {name} was trained on no answers like base's, so do "
        f"not trust it on answers unlike {baseline}'s."
        for name, rate in rates.items()
        if name != gold and rate["high"] >= LEVEL
    ]


def _heading(samples: Sequence[Any]) -> str:
    count = f"{len(samples)} prompts" if len(samples) > 1 else "prompt"
    return f"The first {count} in the order of their hashes (nobody chose them):"


def _sample(number: int, row: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """Lines with a prompt and the answers of baseline and PPO."""
    scorers = results["scorers"]
    scorer = next((entry["name"] for entry in scorers if entry["simulated"]), scorers[0]["name"])
    lines: list[str] = []
    for turn in row["prompt"]:
        label = f"{number}. " if not lines else "   "
        lines += wrap(
            visible(turn["content"]), WIDTH, first=f"{label}{turn['role']}: ", indent="     ", most_lines=MOST_LINES
        )
    pair = [name for name in (results["baseline"], results["trained"]) if name in row["answers"]]
    for name in pair if len(pair) > 1 else row["answers"]:
        answer = row["answers"][name]
        cut = "" if answer["finished"] else ", cut at the limit"
        score = f"{one_line(scorer, LABEL_WIDTH)} {answer['scores'][scorer]:.2f}"
        label = f"   {name_of(name)} ({score}{cut}): "
        lines += wrap(visible(answer["text"].strip()), WIDTH, first=label, indent="     ", most_lines=MOST_LINES)
    return lines


def _lookup(tree: Mapping[str, Any], path: Sequence[str]) -> Any:
    node: Any = tree
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
