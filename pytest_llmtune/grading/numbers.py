r"""Find numbers in prose or formulas, and parse them exactly, for `numeric` and `math`.

Covers LaTeX (``\frac{840}{13}``, ``3\times10^5``, ``12{,}000``), mixed numbers, digits of any script, Western, Indian, Arabic
and space grouping, signs such as U+2212, units, and sums. An ambiguous number has no value, rather than that of its last digits.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.grading.values import Value, constant

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Ascii(dict[int, str | None]):
    """Table for ``str.translate``: digits of every script, signs and separators to ASCII."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        digit = unicodedata.decimal(char, None) if code > 127 else None
        self[code] = found = char if digit is None else str(digit)
        return found


_ASCII = _Ascii(
    {ord(char): "-" for char in "\u2212\u2013\u2010\u2011\u2012\ufe63\uff0d"}
    | {ord(char): " " for char in "\u00a0\u202f\u2009\u2007\u2008\u200a\u3000"}
    | {ord(char): None for char in "\u200b\u200e\u200f\u2066\u2067\u2068\u2069\ufeff"}
    | dict(zip(map(ord, "٫．٬，’％٪＄￥⁄／＋＝（）："), "..,,'%%$¥//+=():", strict=True))
)
_POWER = lazy_regex(r"(?<=[\w)\]}])([⁺⁻]?)([⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_VULGAR = lazy_regex(r" ?[¼-¾⅐-⅞↉]")


def ascii_numerals(text: str) -> str:
    """Convert digits, signs and separators to ASCII: ``１，２３４`` is 1,234, ``½`` 1/2, ``10⁵`` 10^5, U+2212 a hyphen."""
    if text.isascii():
        return text
    if _POWER.search(text):

        def caret(match: re.Match[str]) -> str:
            digits = "".join(str(unicodedata.digit(digit)) for digit in match[2])
            return f"^{{{'-' if match[1] == '⁻' else ''}{digits}}}"

        text = _POWER.sub(caret, text)
    if _VULGAR.search(text):
        text = _VULGAR.sub(lambda match: " " + unicodedata.normalize("NFKC", match[0].strip()).replace("⁄", "/"), text)
    return text.translate(_ASCII)


_LATEX = tuple(
    (lazy_regex(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)\s*(?:\{,\}|,?\\[,!;]|,\\ )\s*(?=\d{3}(?!\d))", ","),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:left|right|displaystyle|[,;:! ]|q?quad)(?![a-zA-Z])|\\[()\[\]]|\\!", " "),
        (r"\\\$", "$"),
        (r"\\%", "%"),
        (r"\\(?:times)(?![a-zA-Z])", "×"),
        (r"\\(?:cdot)(?![a-zA-Z])", "·"),
        (r"\\(?:div)(?![a-zA-Z])", "÷"),
        (r"\\(?:approx|simeq|sim)(?![a-zA-Z])", "≈"),
        (r"\\(?:f?boxed|text\w*|mathrm|mathbf|mathit|mbox|bm|boldsymbol)\s*\{([^{}]*)\}", r" \1 "),
        (r"(?<![\\\w}^_\]])\{(\s*[-+\d.,]+\s*)\}", r"\1"),
    )
)
_WHOLE = (
    r"(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)"  # 1,234,567
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"  # 12,34,567
    r"|\d{1,3}(?:\.\d{3})+(?=,\d)|\d{1,3}(?:\.\d{3}){2,}(?![\d.]*\d)"  # 1.234,5 and 1.234.567
    r"|\d{1,3}(?:[ '_]\d{3})+(?!\d)"  # 12 000
    r"|\d+)"
)
_MONEY = r"(?:(?:US|CA|AU|NZ|HK|NT|SG|[ACRS])?[$€£¥₩₹₽₺₫₱฿]|(?:USD|EUR|GBP|INR|CNY|RMB|JPY|KRW|Rs\.?))\s?"
_GROUP = r"\{[^{}]*\}"
_EXPONENT = rf"(?:\s?(?:\^|\*\*)\s?(?:{_GROUP}|-?\d+))"
_FACTOR = (
    rf"(?:\\frac\s*(?:{_GROUP}|\d)\s*(?:{_GROUP}|\d)|\\sqrt\s*(?:\[\d+\]\s*)?(?:{_GROUP}|\d)|\\pi(?![a-zA-Z])|π|√\d+)"
)
_PLAIN = rf"(?:{_WHOLE}(?:[.,]\d+)*|\.\d+)(?:\.?\\overline{_GROUP})?(?:[eE][-+]?\d{{1,3}}(?!\w))?"
_TERM = rf"(?:{_MONEY})?(?:{_PLAIN}(?:(?<!\S)|(?<=\d))(?:[ ]\d+\s?/\s?\d+)?|{_FACTOR}){_EXPONENT}?(?:\s?{_FACTOR}{_EXPONENT}?)*%?"
_OPERATOR = r"(?:\s?[×·÷*/]\s?|\s?x\s?(?=10\s?\^)|\s?\+\s?|\s-\s)"
_NUMBER = lazy_regex(rf"(?P<sign>(?<![\w.,)\]}}%])[-+]\s?)?(?P<body>{_TERM}(?:{_OPERATOR}-?{_TERM})*)")
_UNIT_POWER = lazy_regex(
    r"\s?(?:[^\W\d_]|°)++(?:\s?(?:[/·*]|per)\s?[^\W\d_]++)*+\s?(?:\^\s?\{?\s?-?\d\s?\}?)"
    r"(?:\s?[/·*]\s?[^\W\d_]+(?:\^\{?-?\d\}?)?)*|\s?[^\W\d_]+\s?/\s?[^\W\d_]+\s?\^\s?\{?-?\d\}?"
)
_MINUS = lazy_regex(r"(?<!\d )(?<!\w)(?:minus|negative|moins|menos)[ ]\Z", re.IGNORECASE)
_SCALE = lazy_regex(
    r"\s?(?:(thousand|million|billion|trillion|lakhs?|crores?|mille|tausend|millionen|mil|milh(?:ões|ão)|mill(?:ón|ones))(?!\w)"
    r"|([kK]|(?<=\d)(?:M|[BbMm]n|B)|(?<=\d )[bm]n)(?!\w)|([万萬만]|[億亿억]|[千천](?![米克瓦卡])|[兆조](?![赫瓦字]))(?![\w一-鿿]*\d))"
)
SCALED = lazy_regex(
    r"\d\s?(?:thousand|million|billion|trillion|lakh|crore|[kK](?!\w)|[万萬만億亿억천조]|[千兆](?![米克瓦卡赫字]))",
    re.IGNORECASE,
)
_SCALES = {"thousand": 3, "mille": 3, "tausend": 3, "mil": 3, "k": 3, "million": 6, "millionen": 6, "b": 9, "bn": 9}
_SCALES |= {"billion": 9, "trillion": 12, "lakh": 5, "lakhs": 5, "crore": 7, "crores": 7}
_SCALES |= {"千": 3, "천": 3, "万": 4, "萬": 4, "만": 4}
_SCALES |= {"億": 8, "亿": 8, "억": 8, "兆": 12, "조": 12}
_DENIED = lazy_regex(
    r"(?:\bnot|\b\w+n['’]t|\brather than|\binstead of|\bnever|(?<!\w)nicht|(?<!\w)pas|(?<!\w)non|(?<!\w)no)\s+\W{0,3}$",
    re.IGNORECASE,
)
_BOUND = lazy_regex(
    r"(?:[≤≥≠]|<=?|(?:[\w)]\s{1,3}|(?<![<\w/])\w)>=?|\\(?:geq?|leq?|neq?|[gl]t)(?![a-zA-Z])|"
    r"\b(?:greater|more|less|fewer|larger|smaller|higher|lower|other)\s+than|\banything\s+but|"
    r"(?:\bnot|\bcannot|n['’]t)\s+(?:be|equal(?:\s+to)?|exactly))\s{0,3}\W{0,3}$",
    re.IGNORECASE,
)
"""What stands before a number that the answer is not: > 5, more than 5, cannot be 5."""
_ASIDE = lazy_regex(r"(?:[(,;\[\u2014]|\bbut|\brather than|\binstead of)[^(,;\[\u2014]{0,12}$", re.IGNORECASE)
_STEP = lazy_regex(
    r"(?:\b(?:steps?|part|question|problem|figure|table|equation|eq\.?|case|chapter|note)\s*#?|№\s*)$", re.IGNORECASE
)
_OR = lazy_regex(r"\s*(?:[^\W\d_]+\s+)?(?:or|oder|ou|또는|或(?:者)?|または)\s*\W?\s*", re.IGNORECASE)
_COMPOUND = lazy_regex(
    r"\s*(?:ft|feet|foot|hours?|hrs?|h|minutes?|mins?|dollars?|lbs?|pounds?|degrees?|years?|months?|weeks?|days?|['′])\s*,?\s*(?:and\s+)?",
    re.IGNORECASE,
)
"""Between the two numbers of one quantity: 5 ft 6 in, 2 hours and 30 minutes."""
_BETWEEN = lazy_regex(r"\bbetween\s*$", re.IGNORECASE)
_PART_OF_NAME = lazy_regex(r"(?:[A-Za-z_\\]|[A-Za-z]-|\^\s?\{?-?|_\{?)\Z")
"""x2, GPT-4, x^2, a_1"""
_CONTINUED_BEFORE = lazy_regex(r"(?:[\d}]\s?[.,:/]|\{)\Z")
_CONTINUED = lazy_regex(r"[:/.,]\d|[eE][-+]?\d|-\d|\s?(?:-|to|~)\s?\d|[\\^_]|[xyzn](?!\w)")
_EITHER_SIGN = lazy_regex(r"(?:±|\\pm)\s?\Z")
_RANGE_BEFORE = lazy_regex(r"\d\s?(?:-|to|~)\s?\Z")
_MONEY_SIGN = lazy_regex(_MONEY)
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Number:
    """A numeral in a text."""

    start: int
    end: int
    value: Value | None
    """None if the numeral is ambiguous."""
    aside: bool = False
    """Whether it is an enumerator, a citation or denied, and so ignored if there is another numeral."""


def find(text: str) -> tuple[str, list[Number]]:
    """The text with ASCII numerals and simplified LaTeX, and its numbers."""
    text = ascii_numerals(text)
    if "\\" in text or "{" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    found = []
    position = 0
    while (match := _NUMBER.search(text, position)) is not None:
        position = match.end()
        if match.end() - match.start() > _LONGEST:
            found.append(Number(match.start(), match.end(), None))
            continue
        number, position = _read(text, match)
        if number is not None:
            found.append(number)
    return text, found


def _read(text: str, match: re.Match[str]) -> tuple[Number | None, int]:
    """The number of a match, and the position to continue at."""
    start, end = match.span()
    before, after = text[max(0, start - 40) : start], text[end : end + 1]
    last = before[-1:]
    if _PART_OF_NAME.search(before):
        return None, end
    sure = not (last and last in "{.,:/" and _CONTINUED_BEFORE.search(before))
    ranges = _RANGE_BEFORE.search(before) is not None
    if ranges or _CONTINUED.match(text, end) or _EITHER_SIGN.search(before):
        sure = False
    if after == "!" and text[end + 1 : end + 2] not in ("", " ", "\n", '"'):
        sure = False
    value = constant(_plain(match)) if sure else None
    if value is not None and _MINUS.search(before):
        value = -value
    power = _UNIT_POWER.match(text, end)
    if value is None and power and not ranges:
        value = constant(_plain(match))
    end = power.end() if power else end
    scale = _SCALE.match(text, end)
    if scale and value is not None:
        word = (scale[1] or scale[2] or scale[3]).lower()
        value *= 10 ** _SCALES.get(word, 6)
        end = scale.end()
    return Number(start, end, value, aside=_is_remark(text, start, end, before)), end


def _plain(match: re.Match[str]) -> str:
    """The numeral for ``constant``, without currency signs and grouping."""
    if match["body"].isdecimal():
        return (match["sign"] or "").strip() + match["body"]
    body = _MONEY_SIGN.sub("", match["body"]).rstrip("%")
    body = re.sub(r"(?<=\d)(?:[ '_](?=\d{3}(?!\d)))", "", body) if re.search(r"\d[ '_]\d{3}(?!\d|\s?/)", body) else body
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+(?:,\d+)", body) or re.fullmatch(r"\d{1,3}(?:\.\d{3}){2,}", body):
        body = body.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?", body):
        body = body.replace(",", "")
    body = re.sub(r"\sx\s|(?<=\d)x(?=10)", "×", body)
    sign = (match["sign"] or "").strip()
    return f"{sign}({body})" if re.search(r"[-+]", body) and sign else sign + body


def _is_remark(text: str, start: int, end: int, before: str) -> bool:
    if text[start - 1 : start] == "[" and text[end : end + 1] == "]" and text[: start - 1].strip():
        return True  # a citation
    line = text[text.rfind("\n", 0, start) + 1 : start]
    if not line.strip(" \t#*>-") and re.match(r"[.)]\**\s+\S", text[end : end + 6]):
        return True  # an enumerator
    if _STEP.search(before):
        return True
    denied = _DENIED.search(before)
    if denied is None:
        return False
    instead = denied[0].lower().startswith(("rather", "instead"))
    return instead or _ASIDE.search(before[: denied.start()]) is not None


def is_denied(text: str, number: Number) -> bool:
    """Whether the text says that the number is not the answer, or only a bound of it."""
    before = text[max(0, number.start - 40) : number.start]
    return _DENIED.search(before) is not None or _BOUND.search(before) is not None


def last_of(text: str, *, first: bool = False) -> Value | None:
    """The last (or first) number of a text; None if there is none, or it is ambiguous."""
    text, found = find(text)
    chosen = [number for number in found if not number.aside] or found
    if not chosen:
        return None
    number = chosen[0 if first else -1]
    if not first and len(chosen) > 1:
        between, before = text[chosen[-2].end : number.start], text[: chosen[-2].start]
        ranges = _BETWEEN.search(before) and between.strip() == "and"
        if _OR.fullmatch(between) or _COMPOUND.fullmatch(between) or ranges:
            return None
    return None if is_denied(text, number) else number.value


_CLAUSE = lazy_regex(
    r"\s+\(|\s*[;\[]|,\s|,?\s+(?:because|since|as|which|where|per|for|if|when|given|assuming|after|out of|i\.e\.|rather|so|"
    r"with|in|weil|da|porque|parce|car|perché)\s",
    re.IGNORECASE,
)
_HEDGE = lazy_regex(
    r"(?:\b(?:or|and|to|between|oder|und|ou|et|o|y|e)\b|\bby\b|(?<![^\W\d_])x\b|[,/&~×*]|또는|或|和|と|か)\s*\S?\s*$",
    re.IGNORECASE,
)


def clause_of(statement: str) -> str:
    """The first part of a statement with a number, before "because", "per", a bracket or the like."""
    for match in _CLAUSE.finditer(statement):
        if match[0].startswith(",") and re.match(r"[-+$€£¥(\s]{0,3}\d", statement[match.end() :]):
            continue  # a list of numbers
        if re.search(r"\d", ascii_numerals(statement[: match.start()])):
            return statement[: match.start()]
    return statement


def number_in(statement: str) -> Value | None:
    """The number that a statement gives: after its last "=", else its only number, else its first.

    Returns:
        None if there is none, it is ambiguous, or several are offered: "3 or 4".
    """
    statement = ascii_numerals(statement)
    head = clause_of(statement)
    if "=" in statement and "=" not in head and re.search(r"[\d)]\s*(?:[^\W\d_]+\s*)?$", head) is None:
        head = statement
    text, found = find(head.rpartition("=")[2] if "=" in head else head)
    if not found:
        text, found = find(head)
    chosen: Sequence[Number] = [number for number in found if not number.aside] or found
    if not chosen:
        return None
    one = chosen[0]
    for other in chosen[1:]:
        between = text[one.end : other.start]
        if other.value != one.value and _HEDGE.search(between) and len(between) < 25:
            return None
    return None if is_denied(text, one) else one.value
