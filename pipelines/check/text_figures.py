"""Contents of the texts: HTML, answers that refuse, and answers that stand for several prompts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.check.scan import answers_of, loose
from pipelines.data.canonical import prompt_of
from pipelines.data.declining import is_refusal
from pipelines.data.rows import CanonicalRow, Comparison, Judgement
from pipelines.data.split import prompt_key

SEVERAL = 3
"""Prompts from which on the same answer counts as a repeated one."""
_TAGS = (
    "a|article|b|blockquote|body|br|button|center|code|div|em|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|"
    "input|li|link|meta|nav|ol|p|pre|script|section|small|span|strong|style|sub|sup|table|tbody|td|th|thead|tr|u|ul|video"
)
_ENTITIES = r"amp|lt|gt|nbsp|quot|apos|[lr][sd]quo|[mn]dash|hellip|#\d{2,5}|#x[0-9a-f]{2,5}"
_HTML = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>|&(?:{_ENTITIES});", re.IGNORECASE)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


@dataclass(frozen=True)
class Contents:
    """Figures of the texts of the sampled rows.

    Attributes:
        rows: rows looked at.
        html: rows with HTML tags or entities outside code; `html_example` is the first of them, with what surrounds it.
        answers: preferred answers: chosen ones, those of demonstrations, and those judged good.
        refusals: of these, the ones that refuse.
        rejected: rejected answers; `rejected_refusals` counts those that refuse.
        repeated: preferred answers that stand for at least three different prompts.
        commonest: the one for most prompts, and `commonest_prompts` of them; empty where none is repeated.
    """

    rows: int
    html: int
    html_example: str
    answers: int
    refusals: int
    rejected: int
    rejected_refusals: int
    repeated: int
    commonest: str
    commonest_prompts: int


def contents_of(rows: Sequence[CanonicalRow]) -> Contents:
    """Look at the texts of some rows."""
    snippets = [snippet for row in rows if (snippet := _markup_in(row))]
    preferred = [(row, answer) for row in rows if (answer := _preferred(row))]
    rejected = [row.rejected for row in rows if type(row) is Comparison]
    prompts: defaultdict[str, set[int]] = defaultdict(set)
    counts: defaultdict[str, int] = defaultdict(int)
    texts: dict[str, str] = {}
    for row, answer in preferred:
        key = loose(answer)
        prompts[key].add(prompt_key(prompt_of(row)))
        counts[key] += 1
        texts.setdefault(key, answer)
    repeated = [key for key, own in prompts.items() if len(own) >= SEVERAL]
    commonest = max(repeated, key=lambda key: len(prompts[key]), default=None)
    return Contents(
        rows=len(rows),
        html=len(snippets),
        html_example=snippets[0] if snippets else "",
        answers=len(preferred),
        refusals=_refusals(answer for _, answer in preferred),
        rejected=len(rejected),
        rejected_refusals=_refusals(rejected),
        repeated=sum(counts[key] for key in repeated),
        commonest=texts[commonest] if commonest else "",
        commonest_prompts=len(prompts[commonest]) if commonest else 0,
    )


def markup(text: str) -> str | None:
    """The first HTML tag or entity of a text with what surrounds it; None: there is none outside code."""
    if "<" not in text and "&" not in text:
        return None
    plain = _CODE.sub("", text)
    match = _HTML.search(plain)
    return None if match is None else " ".join(plain[max(0, match.start() - 20) : match.end() + 20].split())


def _refusals(answers: Iterable[str]) -> int:
    return sum(map(is_refusal, answers))


def _markup_in(row: CanonicalRow) -> str | None:
    texts = (*(turn.content for turn in prompt_of(row)), *answers_of(row))
    return next((snippet for text in texts if (snippet := markup(text))), None)


def _preferred(row: CanonicalRow) -> str:
    """The answer that a row holds up as a good one; empty where it has none."""
    if type(row) is Judgement and not (isinstance(row.label, bool) and row.label):
        return ""
    answers = answers_of(row)
    return "" if not answers else answers[0] if type(row) is Comparison else answers[-1]
