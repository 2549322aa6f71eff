"""The report card of a reward model: how it does on pairs that it was not trained on, where it fails, and on what."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from pipelines.report.calibration import HOTTEST, best_temperature, calibration_figures, reliability
from pipelines.report.calibration import probability as sigmoid
from pipelines.report.estimates import Estimate
from pipelines.report.pair_accuracy import CHANCE
from pipelines.report.safe_text import fenced, literal, visible
from pipelines.report.statistics import clustered_wilson

MOST_MISTAKES = 10
GROUPS_OF_MARGIN = 4
FEWEST_IN_GROUP = 10
"""Pairs that a source or an annotator needs for a line of its own."""
LONGEST_TEXT = 600
"""Characters of a text that are printed; the data hold it whole."""


@dataclass(frozen=True)
class ScoredPair:
    """Two answers to a prompt with their scores, the one first that people preferred.

    Attributes:
        prompt: key of the prompt; pairs of equal keys are a cluster.
        texts: the prompt, the chosen answer and the rejected one, for people.
        scores: of the chosen answer and of the rejected one.
        lengths: of both, in tokens or characters.
        margin: how much better the chosen one is, by who compared them.
        source: where the pair is from.
        annotator: who compared them.
    """

    prompt: Hashable
    texts: tuple[str, str, str]
    scores: tuple[float, float]
    lengths: tuple[int, int]
    margin: float | None = None
    source: str | None = None
    annotator: str | None = None

    @property
    def difference(self) -> float:
        """Score of the chosen answer minus that of the rejected one."""
        return self.scores[0] - self.scores[1]

    @property
    def right(self) -> float:
        """1 where the chosen answer scores higher, .5 at equal scores, else 0."""
        return 0.5 if self.difference == 0 else float(self.difference > 0)


@dataclass(frozen=True)
class Probe:
    """Answers changed in one respect, with the scores before and after.

    Attributes:
        name: the change, in words.
        expected: ``lower`` where the changed answer is worse, ``equal`` where it says the same.
        before: scores of the answers.
        after: scores of the changed answers.
    """

    name: str
    expected: str
    before: Sequence[float]
    after: Sequence[float]


def report_card(pairs: Sequence[ScoredPair], probes: Sequence[Probe] = ()) -> dict[str, Any]:
    """Compute the card.

    Args:
        pairs: at least one; a pair that occurs in both orders has no better answer and does not belong here.
        probes: at least one answer each.

    Returns:
        Plain data: ``accuracy`` with its interval by prompt; ``best_of_several``, the share of prompts with one chosen
        answer and several rejected ones whose chosen answer scores highest, with ``chance``, or None; ``length_rule``,
        the accuracy of choosing by length alone; ``groups``, the accuracy where the shorter (longer) answer won, by
        quarters of the margin, by source and by annotator; ``calibration`` with `calibration_figures`, the temperature
        that would mend it, and the reliability; ``scores``, quartiles of both sides; ``probes``; ``mistakes``, the
        worst first, with their texts.
    """
    confidence = [abs(pair.difference) for pair in pairs]
    right = [pair.right for pair in pairs]
    bins = reliability([sigmoid(value) for value in confidence], right)
    longer = fmean(_longer(pair) for pair in pairs)
    wrong = sorted((pair for pair in pairs if pair.difference < 0), key=lambda pair: pair.difference)
    return {
        "pairs": len(pairs),
        "prompts": len({pair.prompt for pair in pairs}),
        "accuracy": _accuracy(pairs),
        "best_of_several": _best_of_several(pairs),
        "length_rule": max(longer, 1 - longer),
        "groups": [{"group": group, "name": name, **_accuracy(part)} for group, name, part in _groups(pairs)],
        "calibration": {
            **calibration_figures(confidence, right),
            "temperature": best_temperature(confidence, right),
            "reliability": [{"n": b.n, "probability": b.probability, "right": b.good} for b in bins],
        },
        "scores": {
            "chosen": _quartiles([pair.scores[0] for pair in pairs]),
            "rejected": _quartiles([pair.scores[1] for pair in pairs]),
        },
        "probes": [_probed(probe) for probe in probes],
        "mistakes": [
            dict(zip(("prompt", "chosen", "rejected"), pair.texts, strict=True))
            | {"scores": list(pair.scores), "source": pair.source, "annotator": pair.annotator}
            for pair in wrong[:MOST_MISTAKES]
        ],
    }


def _accuracy(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    right = [pair.right for pair in pairs]
    low, high = clustered_wilson(right, [pair.prompt for pair in pairs])
    return Estimate(fmean(right), low, high, len(right)).as_dict()


def _best_of_several(pairs: Sequence[ScoredPair]) -> dict[str, Any] | None:
    """Measure how often the one chosen answer to a prompt scores above all rejected ones, as RewardBench 2 does."""
    prompts: dict[Hashable, list[ScoredPair]] = {}
    for pair in pairs:
        prompts.setdefault(pair.prompt, []).append(pair)
    several = [part for part in prompts.values() if len(part) > 1 and len({pair.texts[1] for pair in part}) == 1]
    if len(several) < FEWEST_IN_GROUP:
        return None
    right = [float(all(pair.right == 1 for pair in part)) for part in several]
    low, high = clustered_wilson(right, range(len(right)))
    chance = fmean(1 / (1 + len(part)) for part in several)
    return Estimate(fmean(right), low, high, len(right)).as_dict() | {"chance": chance}


def _longer(pair: ScoredPair) -> float:
    chosen, rejected = pair.lengths
    return 0.5 if chosen == rejected else float(chosen > rejected)


def _groups(pairs: Sequence[ScoredPair]) -> Iterator[tuple[str, str, list[ScoredPair]]]:
    """Parts of the pairs with the name of the grouping and of the part."""
    for name, value in (("the shorter answer was chosen", 0.0), ("the longer answer was chosen", 1.0)):
        if part := [pair for pair in pairs if _longer(pair) == value]:
            yield "length", name, part
    margins = sorted((pair for pair in pairs if pair.margin is not None), key=lambda pair: pair.margin or 0.0)
    if margins and margins[0].margin != margins[-1].margin:
        for number in range(GROUPS_OF_MARGIN):
            start, stop = (len(margins) * edge // GROUPS_OF_MARGIN for edge in (number, number + 1))
            if part := margins[start:stop]:
                yield "margin", f"{part[0].margin:.3g} to {part[-1].margin:.3g}", part
    of_pair: Mapping[str, Callable[[ScoredPair], str | None]] = {
        "source": lambda pair: pair.source,
        "annotator": lambda pair: pair.annotator,
    }
    for group, key in of_pair.items():
        parts: dict[str, list[ScoredPair]] = {}
        for pair in pairs:
            if (value_of_pair := key(pair)) is not None:
                parts.setdefault(value_of_pair, []).append(pair)
        large = {name: part for name, part in parts.items() if len(part) >= FEWEST_IN_GROUP}
        if len(parts) > 1:
            for name, part in sorted(large.items(), key=lambda entry: -len(entry[1])):
                yield group, name, part


def _quartiles(scores: Sequence[float]) -> dict[str, float]:
    ordered = sorted(scores)
    places = {"minimum": 0.0, "quartile_1": 0.25, "median": 0.5, "quartile_3": 0.75, "maximum": 1.0}
    return {name: ordered[round(place * (len(ordered) - 1))] for name, place in places.items()}


def _probed(probe: Probe) -> dict[str, Any]:
    changes = [after - before for before, after in zip(probe.before, probe.after, strict=True)]
    higher = [0.5 if change == 0 else float(change > 0) for change in changes]
    low, high = clustered_wilson(higher, range(len(higher)))
    estimate = Estimate(fmean(higher), low, high, len(higher)).as_dict()
    sound = low <= CHANCE if probe.expected == "lower" else low <= CHANCE <= high
    facts = {"name": probe.name, "expected": probe.expected, "sound": sound}
    return facts | {"prefers": estimate, "median_change": median(changes)}


def markdown_card(card: Mapping[str, Any], title: str) -> str:
    """The card as Markdown; texts of answers stand in code blocks that they cannot close."""
    calibration, accuracy = card["calibration"], card["accuracy"]
    hot = calibration["temperature"]
    mends = f"dividing its scores by {hot:.2f} would mend it"
    if hot > 0.99 * HOTTEST:
        mends = "no factor would mend it, because it is right no more often than chance"
    sure = "too sure of itself" if hot > 1.1 else "not sure enough" if hot < 0.9 else "about as sure as it may be"
    lines = [
        f"# {literal(title)}",
        "",
        f"**Accuracy {Estimate.of(accuracy).text()}** on {card['pairs']} pairs of {card['prompts']} prompts "
        "(95 % interval by prompt). "
        f"Choosing by length alone is right on {Estimate(card['length_rule']).text()}.",
        *_best_text(card.get("best_of_several")),
        "",
        "| pairs | n | accuracy |",
        "|---|---:|---:|",
        *(
            f"| {literal(entry['group'])}: {literal(entry['name'])} | {entry['n']} | {Estimate.of(entry).text()} |"
            for entry in card["groups"]
        ),
        "",
        "## Calibration",
        "",
        f"Calibration error {calibration['calibration_error']:.3f}, Brier score {calibration['brier']:.3f}, loss "
        f"{calibration['loss']:.3f} nats. The model is {sure}: {mends}.",
        "",
        "| stated probability of being right | pairs | right |",
        "|---:|---:|---:|",
        *(f"| {b['probability']:.3f} | {b['n']} | {b['right']:.3f} |" for b in calibration["reliability"]),
        "",
        "## Scores",
        "",
        "| answer | minimum | 1st quartile | median | 3rd quartile | maximum |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {side} | " + " | ".join(f"{v:.2f}" for v in card["scores"][side].values()) + " |" for side in _SIDES),
    ]
    if len(card.get("learning_curve", ())) > 1:
        lines += [
            *("", "## Rows trained on", ""),
            "Where the accuracy still rises with the rows, more of them are likely to help; where it does not, cleaner "
            "ones.",
            "",
            "| rows trained on | held-out accuracy |",
            "|---:|---:|",
            *(f"| {point['rows']} | {Estimate.of(point).text()} |" for point in card["learning_curve"]),
        ]
    if card["probes"]:
        lines += [
            *("", "## Probes", ""),
            "Chosen answers are changed in one respect. Where that makes an answer worse, a sound model seldom prefers "
            "the changed one; where it says the same, about as often as not.",
            "",
            "| change | the answer is then | preferred by the model | median change of the score | |",
            "|---|---|---:|---:|---|",
            *(
                f"| {literal(p['name'])} | {_EXPECTED[p['expected']]} | {Estimate.of(p['prefers']).text()} | "
                f"{p['median_change']:+.2f} | {'' if p['sound'] else _UNSOUND[p['expected']]} |"
                for p in card["probes"]
            ),
        ]
    if card["mistakes"]:
        lines += ["", "## Worst mistakes", ""]
    for number, mistake in enumerate(card["mistakes"], 1):
        chosen, rejected = mistake["scores"]
        texts = (
            f"prompt: {_cut(mistake['prompt'])}",
            f"chosen by people ({chosen:.2f}): {_cut(mistake['chosen'])}",
            f"preferred by the model ({rejected:.2f}): {_cut(mistake['rejected'])}",
        )
        lines += [f"{number}.", "", fenced("\n\n".join(texts)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _best_text(best: Mapping[str, Any] | None) -> list[str]:
    if best is None:
        return []
    told = f"it scores above all of them on {Estimate.of(best).text()}; chance is {Estimate(best['chance']).text()}"
    return ["", f"Of {best['n']} prompts with one chosen answer and several rejected ones, {told}."]


_SIDES = ("chosen", "rejected")
_EXPECTED = {"lower": "worse", "equal": "as good"}
_UNSOUND = {"lower": "**fooled**", "equal": "**not neutral**"}


def _cut(text: str) -> str:
    whole = visible(text.strip())
    return whole if len(whole) <= LONGEST_TEXT else f"{whole[:LONGEST_TEXT]} …"
