"""Answers that decline, told by the words that models and annotators use for it."""

from __future__ import annotations

import re

_OPENING = 300
"""Characters of an answer in which a refusal stands."""
_CANNOT = r"I(?: can't| cannot| can not| won't| will not| am unable to| am not able to|'m unable to|'m not able to)"
_DO = (
    "(?:help|assist|do (?:that|this|it|so)|provide|answer|fulfil|comply|discuss|create|write|give|share|engage|support|"
    "generate|continue|recommend|offer|advise|talk|respond|participate|condone|promote)"
)
_REFUSAL = re.compile(
    "|".join(
        (
            rf"\b(?:sorry|apologi[sz]e|apologies|afraid|unfortunately)\b[^\n]{{0,30}}?\b{_CANNOT}(?: {_DO}|[.!]|$)",
            rf"^\W*{_CANNOT} {_DO}",
            r"\bas an AI(?: language)?(?: model| assistant| chatbot)?,? I\b|\bas an? (?:large )?language model\b",
            r"\btut mir leid\b[^\n]{0,40}?\b(?:kann|darf)\b|\bals KI\b",
            r"\blo siento\b[^\n]{0,40}?\bno puedo\b|\bdesculpe\b[^\n]{0,40}?\bnão posso\b",
            r"\bdésolée?\b[^\n]{0,40}?\bje ne (?:peux|suis)\b|\bmi dispiace\b[^\n]{0,40}?\bnon posso\b",
            r"(?:抱歉|对不起|對不起)[^\n]{0,20}?(?:无法|不能|無法)|作为(?:一个|一個)?(?:AI|人工智能)",
            r"申し訳[^\n]{0,40}?(?:できません|できかねます)",
        )
    ),
    re.IGNORECASE,
)
_SIGNS = (
    *("sorry", "apolog", "afraid", "unfortunately", "i can", "i won", "i will not", "i am", "i'm", "as an ai"),
    *("language model", "tut mir leid", "als ki", "lo siento", "desculpe", "désolé", "mi dispiace"),
    *("抱歉", "对不起", "對不起", "作为", "申し訳"),
)


def is_refusal(answer: str) -> bool:
    """Whether an answer begins by declining, in the words that models and annotators use for it."""
    opening = answer[:_OPENING].replace("’", "'")
    folded = opening.lower()
    # Without one of these words the slow pattern cannot fit.
    return any(word in folded for word in _SIGNS) and _REFUSAL.search(opening) is not None
