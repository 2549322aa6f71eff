"""The rules of the alarms. Pure Python.

A rule compares the last updates with the start of the run, or with a bound that healthy runs stay within. A difference
from the start counts only if it exceeds the noise from update to update.

Sources of the rules: length and KL, "The N+ Implementation Details of RLHF with PPO" (Huang et al. 2024, arXiv
2403.17031); KL, length and entropy rather than the reward, "Secrets of RLHF" (Zheng et al. 2023, 2307.04964).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from pipelines.ppo.alarms.trends import LONG_WINDOW, START, WINDOW, MetricSeries, RunningCorrelation

BEYOND_NOISE = 5.0
"""Standard errors; every update is one more test. 30,000 updates of pure noise, 16 rows each, set off six alarms."""
KL_WINDOW = 3
"""Updates. One rollout may hold an outlier; a policy that breaks exceeds any limit in the mean of three at once."""
KL_NEGATIVE = 0.05
"""Nats per response. The KL is never negative, but its estimate k1 can be: by chance, and by rounding around 0."""
LENGTH_GROWTH, LENGTH_SHRINKAGE = 2.0, 0.5
"""Healthy runs grew by 1.3 at most; TL;DR policies by 1.3 to 1.5, which counts as length hacking."""
LENGTH_WITH_SCORE = 1.4
"""Growth that is suspicious once the score rises with it."""
CORRELATION = 0.7
"""Correlation of score and length over the updates so far; above .7 for two series that rise at the same updates."""
FINISHED_DROP = 0.1
"""Smallest absolute drop; it must also be a third of the start: from 1 to .66, from .3 to .2."""
ENTROPY_LEFT = 1 / 3
"""Fraction of the starting entropy; healthy runs keep two thirds or more."""
CLIP_FRACTION = 0.3
"""Share of tokens whose ratio was clipped; below .1 in runs that learn well, .2 in the first updates of hasty ones."""
EXPLAINED_VARIANCE, VALUE_WARMUP = 0.05, 10
"""At 0 the value model predicts nothing. A new head leaves 0 within 8 updates; small rollouts scatter by .2."""
SCORES_CLIPPED = 0.1
"""Share of scores at the bound: above it, the reward no longer tells good from better."""
RATIO_DEVIATION = 0.2
"""Largest |ratio - 1| before the first step: 1e-5 in fp32, .1 in bf16; a median, since it is an extreme already."""
GRAD_NORM_GROWTH = 10.0
"""Over the start, at every one of the last three updates; rising through training by a half is usual."""

LENGTH, SCORES, KL = "val/response_length", "objective/scores", "objective/kl"
FINISHED, ENTROPY = "val/finished", "policy/entropy_avg"
CLIPPED, SCORES_AT_BOUND = "policy/clipfrac_avg", "objective/scores_clipped"
VALUE, RATIO = "val/explained_variance", "val/first_ratio_deviation"
GRAD_NORMS = {"policy": "policy/grad_norm", "value model": "val/grad_norm"}
TRAINED_TOKENS_METRICS = (ENTROPY, CLIPPED, VALUE, RATIO)
"""Metrics measured on the tokens that are trained on."""
VALUE_METRICS = (VALUE, GRAD_NORMS["value model"])
"""Metrics that a training without a value model does not have."""
METRICS = (LENGTH, SCORES, KL, FINISHED, ENTROPY, CLIPPED, SCORES_AT_BOUND, VALUE, RATIO, *GRAD_NORMS.values())


@dataclass
class History:
    """Metrics so far, and the settings that the rules compare them with.

    Attributes:
        rows: responses of one rollout.
        kl_limit: largest KL, in nats per response.
        max_grad_norm: norm at which gradients are clipped.
        value_model: whether there is one; else `VALUE_METRICS` are not looked for, and their rules stay silent.
        series: one series for each of `METRICS`.
        score_and_length: correlation of mean score and mean response length.
    """

    rows: int
    kl_limit: float
    max_grad_norm: float
    value_model: bool = True
    series: dict[str, MetricSeries] = field(default_factory=lambda: {name: MetricSeries() for name in METRICS})
    score_and_length: RunningCorrelation = field(default_factory=RunningCorrelation)

    def __getitem__(self, metric: str) -> MetricSeries:
        return self.series[metric]

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one more update.

        Raises:
            KeyError: a metric is missing.
        """
        trained = metrics.get("val/optimizer_steps", 1.0) > 0  # else all responses were masked: nothing was measured
        for name, series in self.series.items():
            if (name in TRAINED_TOKENS_METRICS and not trained) or (name in VALUE_METRICS and not self.value_model):
                continue
            # during the warm-up of the value model the policy has no gradient: not a start to compare with
            if name not in GRAD_NORMS.values() or metrics[name] > 0:
                series.add(metrics[name])
        self.score_and_length.add(metrics[SCORES], metrics[LENGTH])


def _kl_high(history: History) -> str | None:
    level = history[KL].level(KL_WINDOW)
    if level <= history.kl_limit:
        return None
    return f"the KL to the reference is {level:.1f} nats per response; ppo.kl_limit is {history.kl_limit:g}"


def _kl_negative(history: History) -> str | None:
    kl = history[KL]
    if kl.count < LONG_WINDOW:
        return None
    level = kl.level(LONG_WINDOW)
    if level > -max(KL_NEGATIVE, BEYOND_NOISE * kl.error(LONG_WINDOW)):
        return None
    return f"the KL to the reference is negative: {level:.3f} nats per response over {LONG_WINDOW} updates"


def _length_running_away(history: History) -> str | None:
    length = history[LENGTH]
    if length.level() < LENGTH_GROWTH * length.start or length.rise() < BEYOND_NOISE:
        return None
    return f"responses are {_times(length)} as long as at the start ({_now_and_start(length, '.0f')} tokens)"


def _length_collapsing(history: History) -> str | None:
    length = history[LENGTH]
    if length.level() > LENGTH_SHRINKAGE * length.start or length.rise() > -BEYOND_NOISE:
        return None
    return f"responses are {_times(length)} as long as at the start ({_now_and_start(length, '.1f')} tokens)"


def _finished_falling(history: History) -> str | None:
    finished = history[FINISHED]
    drop = finished.start - finished.level()
    pooled = (finished.start * START + finished.level() * WINDOW) / (START + WINDOW)
    error = math.sqrt(pooled * (1 - pooled) * (1 / START + 1 / WINDOW) / history.rows)
    if finished.count < START + WINDOW or drop < max(FINISHED_DROP, finished.start / 3, BEYOND_NOISE * error):
        return None
    return f"fewer responses end on a stop token: {_now_and_start(finished, '.0%')}; the others hit the length limit"


def _entropy_collapse(history: History) -> str | None:
    entropy = history[ENTROPY]
    if not entropy.count or entropy.level() > ENTROPY_LEFT * entropy.start or entropy.rise() > -BEYOND_NOISE:
        return None
    return (
        f"the policy's entropy is {_times(entropy)} that of the start ({_now_and_start(entropy, '.2f')} nats per token)"
    )


def _clip_fraction(history: History) -> str | None:
    clipped = history[CLIPPED]
    if clipped.count < WINDOW or clipped.level() <= CLIP_FRACTION:
        return None
    return (
        f"{clipped.level():.0%} of the tokens were clipped over {WINDOW} updates: each update moves the policy too far"
    )


def _explained_variance(history: History) -> str | None:
    value = history[VALUE]
    if value.count < VALUE_WARMUP + LONG_WINDOW:
        return None
    level = value.level(LONG_WINDOW)
    if level + 2 * value.error(LONG_WINDOW) >= EXPLAINED_VARIANCE:
        return None
    return (
        f"the value model does not predict the returns: explained variance {level:.2f} over {LONG_WINDOW} updates "
        f"(0: no better than a constant, 1: perfect)"
    )


def _score_with_length(history: History) -> str | None:
    score, length, correlation = history[SCORES], history[LENGTH], history.score_and_length.correlation
    rises = min(score.rise(), length.rise()) >= BEYOND_NOISE and length.level() >= LENGTH_WITH_SCORE * length.start
    if not rises or correlation < CORRELATION:
        return None
    return (
        f"the score rises with the length of the responses: score {_now_and_start(score, '.2f')}, length "
        f"{_now_and_start(length, '.0f')} tokens, correlation {correlation:.2f} over the updates"
    )


def _scores_clipped(history: History) -> str | None:
    clipped = history[SCORES_AT_BOUND]
    if clipped.count < WINDOW or clipped.level() <= SCORES_CLIPPED:
        return None
    return f"{clipped.level():.0%} of the scores were cut at ppo.reward_clip over {WINDOW} updates"


def _ratio_at_start(history: History) -> str | None:
    if history[RATIO].count < 3:
        return None
    deviation = median(history[RATIO].last[-3:])
    if deviation <= RATIO_DEVIATION:
        return None
    return (
        f"before the first step of an update the unchanged policy gives probabilities that differ by a factor of up to "
        f"{1 + deviation:.3g} from those of the rollout; rounding explains at most {RATIO_DEVIATION:g}"
    )


def _grad_norm(history: History) -> str | None:
    for model, name in GRAD_NORMS.items():
        norm = history[name]
        if norm.count < START + 3:
            continue
        smallest = min(norm.last[-3:])
        if smallest >= GRAD_NORM_GROWTH * norm.start and smallest > history.max_grad_norm:
            return f"the gradient norm of the {model} has grown from {norm.start:.3g} to {norm.last[-1]:.3g}"
    return None


def _times(series: MetricSeries) -> str:
    return f"{series.level() / series.start:.2g} times"


def _now_and_start(series: MetricSeries, form: str) -> str:
    return f"{series.level():{form}} against {series.start:{form}}"


@dataclass(frozen=True)
class Rule:
    """One alarm: `check` returns the message while its condition holds, else None."""

    name: str
    check: Callable[[History], str | None]
    hint: str


RULES = (
    Rule(
        "kl_high",
        _kl_high,
        "raise ppo.kl_coef or set ppo.kl_target to adapt it, lower ppo.learning_rate or ppo.num_ppo_epochs; read "
        "samples.jsonl: text this far from the reference is seldom as good as its score",
    ),
    Rule(
        "kl_negative",
        _kl_negative,
        "the responses are not drawn from the policy that is trained: check the rollout engine (stale weights, "
        "ppo.top_k, ppo.top_p, another temperature)",
    ),
    Rule(
        "length_running_away",
        _length_running_away,
        "read samples.jsonl; raise ppo.missing_eos_penalty or ppo.kl_coef, or take length out of the reward",
    ),
    Rule(
        "length_collapsing",
        _length_collapsing,
        "read samples.jsonl; raise ppo.kl_coef, lower ppo.learning_rate, and check that the reward does not favor "
        "short responses",
    ),
    Rule(
        "finished_falling",
        _finished_falling,
        "raise ppo.missing_eos_penalty or ppo.response_length, and check that the reward model has seen both complete "
        "and truncated responses",
    ),
    Rule(
        "entropy_collapse",
        _entropy_collapse,
        "lower ppo.learning_rate, raise ppo.kl_coef or ppo.temperature: a policy that always gives the same response "
        "cannot learn",
    ),
    Rule(
        "clip_fraction",
        _clip_fraction,
        "lower ppo.learning_rate, ppo.num_ppo_epochs or ppo.num_mini_batches, or set ppo.kl_early_stop",
    ),
    Rule(
        "explained_variance",
        _explained_variance,
        "raise ppo.value_learning_rate, set ppo.value_warmup_updates, or set ppo.cliprange_value to null where rewards "
        "are far from unit scale; a reward of pure noise cannot be predicted",
    ),
    Rule(
        "score_with_length",
        _score_with_length,
        "the reward may favor length: compare answers of equal length in samples.jsonl, check how length and "
        "preference correlate in the comparisons, raise ppo.kl_coef",
    ),
    Rule(
        "scores_clipped",
        _scores_clipped,
        "raise ppo.reward_clip, or set ppo.reward_normalization to running",
    ),
    Rule(
        "ratio_at_start",
        _ratio_at_start,
        "the rollout's log-probabilities and those of the training forward differ: dropout is on, or "
        "temperature, precision or adapter differ",
    ),
    Rule(
        "grad_norm",
        _grad_norm,
        "lower ppo.learning_rate or ppo.value_learning_rate, or check whether the scores have changed in scale",
    ),
)
