"""The call at the top of the report: whether PPO helped, by the evaluation of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.evaluate.conclusion import LEVEL, name_of
from pipelines.overview.run_facts import RunFacts
from pipelines.report.estimates import Estimate

Tone = Literal["good", "bad", "open"]
_TONES: Mapping[str, Tone] = {"better": "good", "worse": "bad", "over-optimized": "bad"}
"""Tones of the verdicts of results.json; any other is open."""


@dataclass(frozen=True)
class Call:
    """Conclusion of a run.

    Attributes:
        call: a few words.
        sentence: the figures behind them.
        tone: how the page shows it.
        opinions: what each scorer says, where the results tell.
    """

    call: str
    sentence: str
    tone: Tone = "open"
    opinions: tuple[str, ...] = ()


def call_of(run: RunFacts) -> Call:
    """Give the verdict of results.json or, where it has none, what its win rates say; or why there is nothing yet."""
    results = run.results
    if not results:
        return _without_results(run)
    try:
        told = results.get("verdict")
        return _from_verdict(told) if isinstance(told, Mapping) else _from_win_rates(results)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Call("no verdict", "The results of the evaluation have a form that this version does not read.")


def _without_results(run: RunFacts) -> Call:
    stage = run.stage("eval")
    if stage is None:
        return Call("no verdict", "The configuration switches the evaluation off, so nothing says whether PPO helped.")
    if stage.manifest is not None:
        return Call("no verdict", "The results of the evaluation are missing or cannot be read.")
    unfinished = [other.name for other in run.stages if other.state not in ("complete", "stale")]
    first = next(other for other in run.stages if other.name == unfinished[0]) if unfinished else stage
    return Call("no verdict yet", f"The evaluation has not run. The road stops at {first.name}: {first.reason}.")


def _from_verdict(told: Mapping[str, Any]) -> Call:
    """Take over the verdict of results.json, whose sentence may begin with the call."""
    call = str(told["call"])
    sentence = str(told["sentence"]).removeprefix(f"{call}: ")
    opinions = told.get("opinions")
    rows = [row for row in (opinions if isinstance(opinions, list) else ()) if isinstance(row, Mapping)]
    texts = (f"{row.get('scorer')} ({row.get('role')}): {row.get('call')}{_share(row)}" for row in rows)
    whole = sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
    return Call(call, whole, _TONES.get(call, "open"), tuple(texts))


def _share(row: Mapping[str, Any]) -> str:
    rate = row.get("win_rate")
    return f", {Estimate.of(rate).text(percent=True)}" if isinstance(rate, Mapping) else ""


def _rates(results: Mapping[str, Any]) -> dict[str, Estimate]:
    """Win rates of the trained policy against the baseline, by scorer."""
    trained = results["trained"]
    measured = results["measures"].get(trained, {}).get("win_rate", {}) if trained else {}
    return {str(scorer): Estimate.of(rate) for scorer, rate in measured.items()}


def _tone(rates: Iterable[Estimate]) -> Tone:
    """Good where every interval lies above one half, bad where every one lies below."""
    bounds = [(rate.low, rate.high) for rate in rates]
    if all(low is not None and low > LEVEL for low, _ in bounds):
        return "good"
    return "bad" if all(high is not None and high < LEVEL for _, high in bounds) else "open"


def _from_win_rates(results: Mapping[str, Any]) -> Call:
    """Say what the win rates by all scorers say together: results of before there was a verdict have none."""
    baseline, rates = name_of(results["baseline"]), _rates(results)
    if not rates:
        return Call("no comparison", f"The evaluation measured {baseline} alone: there is no PPO policy to compare.")
    trained = name_of(results["trained"])
    shares = [f"{rate.text(percent=True)} by {scorer}" for scorer, rate in rates.items()]
    count, tone = next(iter(rates.values())).n, _tone(rates.values())
    call = {
        "good": f"{trained} is better than {baseline}",
        "bad": f"{trained} is worse than {baseline}",
        "open": f"no clear difference between {trained} and {baseline}",
    }[tone]
    return Call(
        call,
        f"{trained}'s answer scores higher than {baseline}'s on {' and on '.join(shares)}, "
        f"of {count} held-out prompts; 50 % would be no difference, and the interval is in brackets.",
        tone,
    )
