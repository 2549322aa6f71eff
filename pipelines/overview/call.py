"""The call at the top of the report: whether PPO helped, by the evaluation of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.evaluate.results_table import LEVEL, name_of
from pipelines.overview.run_facts import RunFacts
from pipelines.report.estimates import Estimate


@dataclass(frozen=True)
class Call:
    """What the run has shown.

    Attributes:
        call: a few words.
        sentence: the figures behind them.
        tone: how the page shows it.
    """

    call: str
    sentence: str
    tone: Literal["good", "bad", "open"] = "open"


def call_of(run: RunFacts) -> Call:
    """Give the verdict of results.json or, where it has none, what its win rates say; or why there is nothing yet."""
    results = run.results
    if not results:
        return _without_results(run)
    try:
        told = results.get("verdict")
        tone = _tone(results)
        if isinstance(told, Mapping):
            return Call(str(told["call"]), str(told["sentence"]), tone)
        return _from_win_rates(results, tone)
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


def _rates(results: Mapping[str, Any]) -> dict[str, Estimate]:
    """Win rates of the trained policy against the baseline, by scorer."""
    trained = results["trained"]
    measured = results["measures"].get(trained, {}).get("win_rate", {}) if trained else {}
    return {
        str(scorer): Estimate(float(rate["value"]), float(rate["low"]), float(rate["high"]), int(rate["n"]))
        for scorer, rate in measured.items()
    }


def _tone(results: Mapping[str, Any]) -> Literal["good", "bad", "open"]:
    """Good where every scorer's interval lies above one half, bad where every one lies below."""
    rates = _rates(results).values()
    if rates and all(rate.low is not None and rate.low > LEVEL for rate in rates):
        return "good"
    if rates and all(rate.high is not None and rate.high < LEVEL for rate in rates):
        return "bad"
    return "open"


def _from_win_rates(results: Mapping[str, Any], tone: Literal["good", "bad", "open"]) -> Call:
    baseline, rates = name_of(results["baseline"]), _rates(results)
    if not rates:
        return Call("no comparison", f"The evaluation measured {baseline} alone: there is no PPO policy to compare.")
    trained = name_of(results["trained"])
    shares = [f"{rate.text(percent=True)} by {scorer}" for scorer, rate in rates.items()]
    count = next(iter(rates.values())).n
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
