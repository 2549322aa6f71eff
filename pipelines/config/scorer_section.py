"""A reward source, as `ppo.reward` and `eval.scorers` name it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, model_validator

from pipelines.config.section import Section, cosmetic

Kind = Literal[
    "run", "judge", "function", "classifier", "http", "constraints", "length", "repetition", "sum", "ensemble", "gold"
]

Nature = Literal["learned", "rule", "told"]
"""Whether a kind of scorer learned from answers, is a mere rule, or is told what is good: by code, or by the task."""


class KindFacts(NamedTuple):
    """What the program knows of a kind of scorer.

    Attributes:
        nature: what its opinion is worth in the verdict: a learned one knows little of answers unlike those that it
            learned from, and a rule has none.
        needed: keys that it needs; they tell its sources apart.
        optional: keys that it may have besides; `name` and `batch_size` belong to all.
    """

    nature: Nature
    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


KINDS: dict[Kind, KindFacts] = {
    "run": KindFacts("learned", (), ("output", "read_thoughts")),
    "judge": KindFacts("learned", (), ("output", "read_thoughts")),
    "function": KindFacts("told", ("function",), ("read_thoughts",)),
    "classifier": KindFacts("learned", ("path",), ("revision", "label", "output", "lower_is_better", "read_thoughts")),
    "http": KindFacts("learned", ("url",), ("token_env", "timeout", "retries", "read_thoughts")),
    "constraints": KindFacts("rule", ("file",)),
    "length": KindFacts("rule", ("target",)),
    "repetition": KindFacts("rule", (), ("ngram",)),
    "sum": KindFacts("learned", ("parts",)),
    "ensemble": KindFacts("learned", ("parts",), ("deviations",)),
    "gold": KindFacts("told"),
}
_OF_KINDS = {key for kind in KINDS.values() for key in (*kind.needed, *kind.optional)}


class ScorerSection(Section):
    """Source of scores; docs/reward-sources.md describes every kind.

    The run's reward model, a Python function, a text classifier, a server, verifiable constraints, a simple rule
    (length, repetition), several of these together (sum, ensemble), or the gold scorer of a self-made task.
    """

    kind: Kind = Field(
        "run",
        description="Kind of scorer: run (the run's reward model), judge (its independent judge), function, "
        "classifier, http, constraints, length, repetition, sum, ensemble or gold.",
    )
    name: str | None = cosmetic(None, description="Name in tables; null: derived from the other keys.")
    function: str | None = Field(
        None, description="Python function module:function, called with (prompts, completions) and returning floats."
    )
    path: str | None = Field(None, description="Hub id or directory of a text classifier or reward model.")
    revision: str | None = Field(None, description="Commit of the hub repository; null: the newest one.")
    label: int | str | None = Field(
        None, description="Class whose logit is the score; needed only if the classifier has several classes."
    )
    output: Literal["logit", "probability", "logprob"] = Field(
        "logit",
        description="Function of the class that is the score: logit, probability or logprob (sigmoid of a single "
        "logit, softmax over several). The run's own reward model offers more than the logit only with "
        "reward.objective: pointwise.",
    )
    lower_is_better: bool = Field(
        False, description="Whether the classifier rates something bad, such as toxicity: its output is negated."
    )
    url: str | None = Field(
        None,
        description="http(s) address that answers POST requests with JSON scores; ${NAME} in it stands for a variable "
        "of the environment, so that no secret is recorded.",
    )
    token_env: str | None = Field(None, description="Environment variable whose value is sent as a bearer token.")
    timeout: float = cosmetic(60.0, gt=0, description="Seconds to wait for one answer of the server.")
    retries: int = cosmetic(
        4, ge=0, description="Number of retries after a 5xx answer, a timeout or a lost connection."
    )
    file: str | None = Field(
        None, description="File of the prompts with verifiable constraints, in the form of IFEval."
    )
    read_thoughts: bool = Field(
        False,
        description="Whether the scorer also reads what a model that thinks writes before its answer (<think> ... "
        "</think>).",
    )
    target: int | None = Field(None, ge=1, description="Number of tokens above which a response loses score.")
    ngram: int = Field(
        3, ge=1, description="Number of consecutive words that count as a repetition if they occurred before."
    )
    parts: list[ScorerPart] = Field([], description="Scorers that are combined.")
    deviations: float = Field(
        1.0, ge=0, description="Number of standard deviations between the parts that are subtracted from their mean."
    )
    batch_size: int = cosmetic(32, ge=1, description="Number of texts in one forward pass or request.")

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> ScorerSection:
        _, needed, optional = KINDS[self.kind]
        for field in _OF_KINDS:
            given = getattr(self, field) != ScorerSection.model_fields[field].default
            if field in needed and not given:
                raise ValueError(f"a scorer of kind {self.kind} needs `{field}`")
            if given and field not in (*needed, *optional):
                raise ValueError(f"a scorer of kind {self.kind} takes no `{field}`")
        if self.url is not None:
            check_url(self.url)
        if self.kind == "ensemble":
            if len(self.parts) < 2:
                raise ValueError("an ensemble needs at least two parts")
            if any(part.weight != 1 for part in self.parts):
                raise ValueError("parts of an ensemble have no `weight`: it takes their mean")
        return self

    def results_view(self) -> dict[str, Any]:
        """Values that affect results, without those of other kinds, so that a new kind changes no old run."""
        _, needed, optional = KINDS[self.kind]
        foreign = _OF_KINDS.difference(needed, optional)
        if self.kind in ("run", "judge") and self.output == "logit":  # as it was before there was a choice
            foreign.add("output")
        if not self.read_thoughts:  # likewise
            foreign.add("read_thoughts")
        return {key: value for key, value in super().results_view().items() if key not in foreign}

    @property
    def variables(self) -> list[str]:
        """Environment variables that the scorer needs."""
        return [*VARIABLE.findall(self.url or ""), *([self.token_env] if self.token_env is not None else [])]

    def flat(self) -> Iterator[ScorerSection]:
        """The scorer itself and all its parts, and theirs."""
        yield self
        for part in self.parts:
            yield from part.flat()

    @property
    def nature(self) -> Nature:
        """See `KindFacts`."""
        return KINDS[self.kind].nature

    @property
    def source(self) -> tuple[Any, ...]:
        """What tells it from other sources of scores; two rules of a kind are one source, whatever their numbers."""
        keys = () if self.nature == "rule" else KINDS[self.kind].needed
        return self.kind, *(getattr(self, key) for key in keys)

    def uses(self, kind: Kind) -> bool:
        """Whether it is of that kind, or a part of it is."""
        return any(scorer.kind == kind for scorer in self.flat())


class ScorerPart(ScorerSection):
    """A scorer in a sum or an ensemble."""

    weight: float = Field(1.0, description="Factor in a sum; negative if less is better.")
    normalize: bool = Field(
        True,
        description="Whether to scale the run's reward model to mean 0 and standard deviation 1 on SFT responses.",
    )

    @model_validator(mode="after")
    def _only_the_runs_model_is_normalized(self) -> ScorerPart:
        if not self.normalize and self.kind != "run":
            raise ValueError(f"a scorer of kind {self.kind} takes no `normalize`: only the run's reward model has it")
        return self


ScorerSection.model_rebuild()


def check_url(url: str) -> None:
    """Refuse an address that cannot be asked, without showing it: it may hold a secret."""
    try:
        address = urlsplit(url)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("`url` must be an address such as http://localhost:8000/score")
    if address.username is not None or address.password is not None:
        raise ValueError("`url` holds a user or a password, which would be recorded: use `token_env` instead")
    for name, value in parse_qsl(address.query):
        if _SECRET.search(name) and not VARIABLE.fullmatch(value):
            raise ValueError(
                f"`url` holds `{name}`, a secret that would be recorded: name a variable of the environment, such as "
                f"`{name}=${{SCORER_KEY}}`, or use `token_env`"
            )


VARIABLE = re.compile(r"\$\{(\w+)\}")
"""A variable of the environment in the query of an address."""
_SECRET = re.compile(r"key|token|secret|passw|pwd|auth|sig(nature)?$|credential", re.IGNORECASE)
"""Names of parameters whose values nobody else should know."""
