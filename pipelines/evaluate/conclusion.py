"""The verdict: whether PPO helped, by a judge that PPO did not optimize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pipelines.config.scorer_section import KINDS, ScorerSection
from pipelines.report.estimates import Estimate

Role = Literal["optimized", "independent", "rule"]
"""A scorer's relation to PPO: what PPO optimized or a part of it; another opinion; a rule such as length, and so none.
"""
Call = Literal["better", "no detectable difference", "worse", "over-optimized", "not judged"]
LEVEL = 0.5
"""Share of wins of a policy that is as good as the baseline."""
MOST_UNLIKE = 0.2
"""Share of the trained policy's answers unlike the baseline's above which a judge that learned cannot say better. Of
good runs of the quickstart it was .00 to .01, of over-optimized ones .52 to 1
(benchmarks/results/2026-11-30-verdicts.md).
"""
PEOPLE = "people"
"""Name of people as judges."""
NAMES = {"base": "base", "sft": "SFT", "ppo": "PPO", "dpo": "DPO", "rloo": "RLOO", "grpo": "GRPO", "bon": "best of n"}


def name_of(policy: str) -> str:
    """Name of a policy for people."""
    name, _, number = policy.partition("-")
    return f"{NAMES.get(name, name)} {number}".strip()


def role_of(scorer: ScorerSection, reward: ScorerSection) -> Role:
    """The relation of a scorer of the evaluation to the reward that PPO optimized."""
    optimized = {part.source for part in reward.flat() if not part.parts}
    leaves = [part for part in scorer.flat() if not part.parts]
    opinions = [part for part in leaves if part.nature != "rule"]
    if optimized.intersection(part.source for part in opinions or leaves):
        return "optimized"
    return "independent" if opinions else "rule"


def verdict_of(results: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any] | None:
    """Say in a sentence whether the trained policy is better than the baseline, with the figure behind it.

    The gold scorer of a self-made task decides where there is one, then a language model that compared the answers,
    then the run's independent judge, then the first other independent scorer. What PPO optimized can say that it is
    worse, never that it is better; nor can a judge that learned from answers, where too many of the trained policy's
    are unlike the baseline's.

    Args:
        results: the content of results.json, whose scorers have a ``role``.
        names: names of the policies for people.

    Returns:
        ``call`` and ``sentence``; ``scorer``, by which it was made, and whether that is ``independent``; ``opinions``,
        the call of every scorer that is no rule. None where nothing was trained by PPO, or the baseline is the same.
    """
    trained, baseline = results["trained"], results["baseline"]
    if trained not in results["measures"] or trained == baseline:
        return None
    rates: Mapping[str, Mapping[str, float]] = results["measures"][trained]["win_rate"]
    scorers = [scorer for scorer in results["scorers"] if scorer["role"] != "rule"]
    unlike: float = results["measures"][trained].get("unlike", {}).get("value", 0.0)
    rose = any(rates[scorer["name"]]["low"] > LEVEL for scorer in scorers if scorer["role"] == "optimized")
    turns: Mapping[str, Any] = (results.get("frontier") or {}).get("turns", {})
    opinions = [
        _opinion(scorer, rates[scorer["name"]], turns.get(scorer["name"]), rose=rose, known=unlike <= MOST_UNLIKE)
        for scorer in scorers
    ]
    if (reader := results.get("language_model")) is not None:
        entry = {"name": reader["name"], "kind": "language_model", "role": "independent"}
        opinions.append(_opinion(entry, reader["win_rate"], None, rose=rose, known=True))
    order = {"gold": 0, "language_model": 1, "judge": 2}
    independent = [opinion for opinion in opinions if opinion["role"] == "independent"]
    deciding = min(independent or opinions[:1], key=lambda opinion: order.get(opinion["kind"], 3), default=None)
    if deciding is None:
        sentence = "not judged: no scorer but rules"
        return {"call": "not judged", "sentence": sentence, "scorer": None, "independent": False, "opinions": []}
    told = {"trained": names[trained], "baseline": names[baseline], "unlike": f"{unlike:.0%}"}
    return {
        "call": deciding["call"],
        "sentence": _sentence(deciding, **told),
        "scorer": deciding["scorer"],
        "independent": deciding["role"] == "independent",
        "opinions": opinions,
    }


def best_update(results: Mapping[str, Any]) -> int | None:
    """Update before the turn of the score by which the verdict was made; None: it did not turn down, or no verdict."""
    verdict = results.get("verdict") or {}
    deciding = (opinion for opinion in verdict.get("opinions", ()) if opinion["scorer"] == verdict["scorer"])
    turn = next((opinion.get("turn") for opinion in deciding), None)
    return None if turn is None else int(turn["update"])


def with_people(results: Mapping[str, Any], people: Mapping[str, Any]) -> dict[str, Any]:
    """Add people who compared the answers to the content of results.json: as a judge beside the scorers.

    The verdict of the evaluation stays; their opinion stands first among the others.

    Args:
        results: results of two policies.
        people: what `people_of` measured.
    """
    trained = results["trained"]
    measures = {name: dict(measured) for name, measured in results["measures"].items()}
    measures[trained]["win_rate"] = {PEOPLE: people["win_rate"], **measures[trained].get("win_rate", {})}
    whole = {**results, "measures": measures, PEOPLE: people}
    if (verdict := results.get("verdict")) is not None:
        facts = {"name": PEOPLE, "kind": PEOPLE, "role": "independent"}
        opinion = _opinion(facts, people["win_rate"], None, rose=False, known=True)
        whole["verdict"] = {**verdict, "opinions": [opinion, *verdict.get("opinions", ())]}
    return whole


def _opinion(
    scorer: Mapping[str, Any], rate: Mapping[str, float], turn: Mapping[str, Any] | None, *, rose: bool, known: bool
) -> dict[str, Any]:
    """Make the call of one scorer.

    Args:
        scorer: its entry in results.json.
        rate: its win rate for the trained policy.
        turn: where its score turned down in the training, see `turn_of`.
        rose: whether the optimized reward improved.
        known: whether the answers are like those that a judge can have learned from.
    """
    independent = scorer["role"] == "independent"
    learned = scorer["kind"] in KINDS and KINDS[scorer["kind"]].nature == "learned"
    call: Call = "no detectable difference"
    if independent and turn is not None:
        call = "over-optimized"
    elif rate["low"] > LEVEL:
        call = "better" if independent and (known or not learned) else "not judged"
    elif rate["high"] < LEVEL:
        call = "over-optimized" if independent and rose else "worse"
    facts = {"scorer": scorer["name"], "kind": scorer["kind"], "role": scorer["role"]}
    return {**facts, "call": call, "win_rate": dict(rate), "turn": turn}


def _sentence(opinion: Mapping[str, Any], *, trained: str, baseline: str, unlike: str) -> str:
    """The verdict in words: the call, the figure, and what it means."""
    estimate = Estimate.of(opinion["win_rate"])
    preference = (
        f"{opinion['scorer']} prefers {trained}'s answers to {baseline}'s on {estimate.text(percent=True)} of "
        f"{estimate.n} prompts"
    )
    call, turn = opinion["call"], opinion["turn"]
    if opinion["role"] != "independent":
        doubt = "; whether the answers are better, only a judge that PPO did not optimize can say"
        return f"judged by what it was trained on: {preference}{doubt if call == 'not judged' else ''}"
    if call == "over-optimized" and turn is not None:
        change = Estimate.of(turn["difference"]).text()
        return (
            f"{call}: {preference}; its score has changed by {change} since update {turn['update']}, while the "
            "reward that PPO optimized rose"
        )
    endings = {
        "over-optimized": ", while the reward that PPO optimized rose",
        "not judged": f", but {unlike} of them are unlike {baseline}'s, and a judge that learned from such answers "
        "knows little of others",
    }
    return f"{call}: {preference}{endings.get(call, '')}"
