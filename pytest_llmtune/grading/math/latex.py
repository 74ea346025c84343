"""One spelling for LaTeX answers: the MATH benchmark's string normalisation (Hendrycks et al. 2021), and some more.

``clean`` keeps words apart and structure readable; ``squeeze`` makes the string that is compared.
"""

from __future__ import annotations

import re

__all__ = ["clean", "squeeze", "without_unit"]


_TEXT_NAMES = r"text|textbf|textit|textrm|textsf|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname|rm|bf"
_WRAPPED = re.compile(rf"\\(?:{_TEXT_NAMES})\s*\{{([^{{}}]*)\}}")
_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!\\)\\\\(?=[a-zA-Z]{2})", r"\\"),  # doubled by a careless escape
        (r",\s*\\!\s*|\s*\{\s*,\s*\}\s*|,\\,(?=\d{3}(?!\d))", ","),  # thousands: 1,\!000 and 1{,}000
        (r"\\[td]frac(?![a-zA-Z])|\\cfrac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])|\\!", ""),
        (r"\\q?quad|(?<!\\)\\[,;:> ]|~|[\s\u00a0\u2009\u202f]+", " "),
        (r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-zA-Z])", ""),
        (r"\\\$|[$€£¥₩]", ""),
        (r"\\%|％", "%"),
        (r"\\(?:lt)(?![a-zA-Z])", "<"),
        (r"\\(?:gt)(?![a-zA-Z])", ">"),
        (r"\\leq?(?:slant)?(?![a-zA-Z])|≤|<=", r"\\le "),
        (r"\\geq?(?:slant)?(?![a-zA-Z])|≥|>=", r"\\ge "),
        (r"\\neq?(?![a-zA-Z])|≠|!=", r"\\ne "),
        (r"\\infin(?:ty)?(?![a-zA-Z])|∞", r"\\infty "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"[\u2212\u2013]", "-"),
        (r" {2,}", " "),
    )
)
_NUMERAL = r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+|\\frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\\frac\s*\d\s*\d|\d+\s*/\s*\d+|[\d.]*\s*\\(?:sqrt\s*\{[^{}]*\}|pi))"
_PERCENT = re.compile(r"\s*(?:%|\b(?:percent(?:age)?(?: points?)?|pct)\b\.?)\s*$", re.IGNORECASE)
_UNIT = re.compile(
    rf"^({_NUMERAL}(?:\s*\\pi)?)\s*(?:[^\W\d_]{{2,}}|(?<=\s)[^\W\d_](?=\s|$|/)|[mk]?[mgsLlh](?=\s*[²³]|$))[^\d=<>\\(){{}}+*]*(?:\s*\^\s*\{{?[23]\}}?|[²³])?\s*$"
)
_SINGLE_BRACES = re.compile(r"([_^])\{(\w)\}")
_ASCII = str.maketrans(
    {"×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "√": r"\sqrt ", "，": ",", "（": "(", "）": ")"}
)


def clean(text: str) -> str:
    """Layout commands, currency signs and degrees taken away; words in ``\\text{}`` stand bare; one space at most."""
    text = text.translate(_ASCII)
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    text = _WRAPPED.sub(_unwrapped, text)
    text = re.sub(r" {2,}", " ", text).strip().rstrip(".;,:").strip()
    while len(text) > 1 and text[0] == "{" and _closing(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _unwrapped(match: re.Match[str]) -> str:
    """The words, set apart from what stands beside them."""
    return f" {match[1]} "


def _closing(text: str) -> int:
    """Where the bracket that opens at 0 closes; -1 where it does not."""
    depth = 0
    for place, char in enumerate(text):
        if place and text[place - 1] == "\\" and char in "{}":
            continue
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if not depth:
                return place
    return -1


def without_unit(text: str) -> tuple[str, bool]:
    """A number without the unit behind it, and whether it is a percentage: ``12 cm^2`` is 12, ``28 percent`` 28."""
    percent = _PERCENT.search(text)
    if percent:
        return text[: percent.start()].strip(), True
    unit = _UNIT.match(text)
    return (unit[1].strip() if unit else text), False


def squeeze(text: str) -> str:
    r"""The string of a cleaned answer that is compared: no spaces, ``\frac12`` and ``1/2`` as ``\frac{1}{2}``."""
    if re.fullmatch(r"[^\W\d_]{2,}(?:[ '-][^\W\d_]+)*", text):
        return text.casefold()  # words
    text = re.sub(r"\\(?:cdot|times)(?![a-zA-Z])", "*", text)
    text = text.replace(" ", "")
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\w)\{", r"\\frac{\1}{", text)
    text = re.sub(r"^(-?\w+)/(\w+)$", r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return _SINGLE_BRACES.sub(r"\1\2", text)
