r"""Find the answer in a response: the last ``\boxed{}``, ``#### 18``, "the answer is ...", or all of a short response."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.math.parse import word_answer
from pytest_llmtune.grading.numbers import clause_of, find, last_of, number_in
from pytest_llmtune.grading.phrases import last_phrase, phrases
from pytest_llmtune.grading.values import COMMA_DECIMAL

if TYPE_CHECKING:
    from pytest_llmtune.grading.values import Value


_BOX = lazy_regex(r"\\(?:boxed|fbox(?:ed)?)(?![a-zA-Z])\s*")
_HASH = lazy_regex(r"(?<!#)####(?!#)[ \t]*(\S[^\n]*)")
_HEADING_ANSWER = lazy_regex(
    r"(?:the\s+|your\s+|my\s+)?(?:final\s+|correct\s+|short\s+)?(?:answer|solution|result|antwort|ergebnis|réponse|respuesta|resposta|정답|답|答案|答え)\s*[:：]?",
    re.IGNORECASE,
)
_HEADING = lazy_regex(r"\d+[.)]\s+[^\W\d_]|(?:step|part|case|schritt|étape|paso|단계|步骤)\b|第", re.IGNORECASE)
"""The beginning of a Markdown heading, as opposed to GSM8K's answer mark, which has four."""
_TAGGED = lazy_regex(r"<\s*(answer|final_answer|solution)\s*>(.*?)(?:<\s*/\s*\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_MATH = lazy_regex(r"\$\$(.+?)\$\$|\$([^$\n]+?)(?<!\\)\$|\\\[(.+?)\\\]|\\\(([^\n]+?)\\\)", re.DOTALL)
_SENTENCE_END = lazy_regex(r"\n|(?<![\d.])\.(?=\s|$)|\.(?=\s|$)|[。!?;]")
_JOINT = lazy_regex(  # between two boxes of one list: "and", commas, a unit, the name of the next value
    r"[\s,;.$]*(?:[^\W\d_]{1,12}\s+(?=and\b|or\b))?"
    r"(?:(?:\\(?:q?quad|[,;!()\[\]])|\\text\s*\{[^{}]*\}|\band\b|\bor\b|그리고|또는)[\s,;.$]*)*"
    r"(?:[a-zA-Z](?:_\{?\w+\}?)?\s*=\s*)?"
)
_WORD = lazy_regex(r"(?<![\\a-zA-Z])[^\W\d_]{2,}")
_TEXT = lazy_regex(r"\\(?:text\w*|math(?:rm|bf|it|sf)|operatorname|mbox)\s*\{[^{}]*\}")
_LONGEST_BARE = 300  # characters
_LONGEST_UNIT = 12
_MOST_WORDS = 3
_SHORT = 80  # characters of prose
_PRICE = lazy_regex(
    r"(?<![\\$])\$(?=\s?\d[\d,.]*(?![^\s.,;:!?)]*\$))(?=[^$\n]*(?:[^\W\d_]{2,}[^$\n]*\$|$))", re.MULTILINE
)
"""A dollar sign for money, not closed as a formula before words follow."""
_ROUGH = lazy_regex(r"\b(?:about|approximately|approx|roughly|around|nearly)\b|≈|\\approx|\\simeq", re.IGNORECASE)
_REMARK = lazy_regex(r"[(\[,]\s?(?:I\s)?[^\W\d_]{2}|\[\d+\]$|\b(?:because|since|weil|porque|car)\b")
"""Text after an answer in its sentence: a reason, an aside, a footnote."""
_LETTER = lazy_regex(r"(?<![\w'’])(?!(?:a|i|I|A|o|y|e)\b)[^\W\d_](?![\w'’])")
"""A single letter is a variable, unless it is a word in some language."""
_LETTERS = lazy_regex(r"[A-Za-z](?:(?:\s*[-+]\s*|\s)[A-Za-z])+|[A-F]{2,}\s*_\s*\{?\d+\}?")
"""``p - q``, ``x y``, ``FF_16``: formulas that look like words."""
_SIGN = lazy_regex(r"[\d\\$=^]")
_MARK = lazy_regex(r"[{}]|\\.", re.DOTALL)
"""A brace, or an escaped character."""


def boxes(text: str, found: Sequence[tuple[int, str, int]]) -> str | None:
    r"""Content of the last ``\boxed{}`` or ``\fbox{}``; boxes joined by nothing but "and" or commas are one list.

    None if there is no box (``found``, by ``boxed_in``), or the last one is truncated or empty.
    """
    if not found or not found[-1][1].strip():
        return None
    joined = [found[-1][1].strip()]
    for before, after in zip(reversed(found[:-1]), reversed(found[1:]), strict=True):
        if not before[1].strip() or not _JOINT.fullmatch(text[before[2] : after[0]]):
            break
        joined.insert(0, before[1].strip())
    return r" \text{ and } ".join(dict.fromkeys(joined))


def boxed_in(text: str) -> list[tuple[int, str, int]]:
    """(start, content, end) of every outermost box; a truncated box has empty content."""
    found: list[tuple[int, str, int]] = []
    if "box" in text:
        for match in _BOX.finditer(text):
            if not found or match.start() >= found[-1][2]:
                end, inside = _braced(text, match.end())
                found.append((match.start(), inside, end))
    return found


def _braced(text: str, start: int) -> tuple[int, str]:
    """End and content of the braces that open at ``start``; without braces, one token."""
    if not text.startswith("{", start):
        token = re.compile(r"\\?\w+").match(text, start)
        return (token.end(), token[0]) if token else (start, "")
    depth = 0
    for mark in _MARK.finditer(text, start):
        if mark[0] == "{":
            depth += 1
        elif mark[0] == "}":
            depth -= 1
            if not depth:
                return mark.end(), text[start + 1 : mark.start()]
    return len(text), ""  # cut off


def hash_line(text: str) -> tuple[int, str] | None:
    """Position and content of the last ``#### 18``; Markdown headings do not count."""
    if "####" not in text:
        return None
    for match in reversed(list(_HASH.finditer(text))):
        line = match[1].strip().strip("*#").strip()
        after = text[match.end() :].strip()
        if after and phrases(after):
            return None  # stated later
        if _HEADING_ANSWER.fullmatch(line):
            math = _MATH.match(after)
            line = _unwrap(math) if math else after.split("\n", 1)[0].strip().strip("*").strip()
            if line and len(line) <= _SHORT:
                return match.start(), line
        elif phrases(line) or _HEADING.match(line) or not line:
            continue
        elif not after:
            return match.start(), line
        elif is_bare(line) and _SIGN.search(line):
            ends_in_word = re.search(r"[^\W\d_]{2,}\s*$", _TEXT.sub("", line))
            if not ends_in_word or (re.fullmatch(r"[^\w]*\d.*", line) and "\n" not in after):
                return match.start(), line
    return None


def has_box(text: str) -> bool:
    return "box" in text and _BOX.search(text) is not None


def phrase_in(text: str) -> str | None:
    """The sentence after the last "the answer is"; None without such a phrase."""
    match = last_phrase(text)
    if match is None:
        return None
    rest = text[match.end() :].lstrip()
    if (block := re.match(r"\\\[|\$\$|\\\(", rest)) is not None:
        rest = rest[block.end() :].lstrip()
    return _SENTENCE_END.split(rest, maxsplit=1)[0].strip()


def _phrase(text: str) -> str | None:
    """The answer after the last "the answer is": a formula with its unit, the sentence, or the number it states."""
    found = last_phrase(text)
    if found is None:
        return None
    rest = text[found.end() :].lstrip()
    math = _MATH.match(rest)
    if math and not _is_money(math):
        tail = _SENTENCE_END.split(rest[math.end() :], maxsplit=1)[0]
        is_unit = len(tail) <= _LONGEST_UNIT and not re.search(r"\d|[,(]", tail)
        return (_unwrap(math) + (tail if is_unit else "")).strip(" *") or None
    sentence = _SENTENCE_END.split(rest, maxsplit=1)[0].strip(" *\"'`")
    if is_bare(sentence) and not _REMARK.search(sentence):
        return sentence
    end = re.split(r"\b(?:is|are|equals|be)\b", sentence)[-1].strip(" :")
    if is_bare(end) and (end != sentence or not _REMARK.search(end)):
        return end
    formulas = [math for math in _MATH.finditer(sentence) if not _is_money(math)]
    if formulas:
        return _unwrap(formulas[-1])
    return _number_text(sentence) or sentence or None


def _number_text(sentence: str) -> str | None:
    """The number that a prose sentence states; None if there is none, or it contains algebra."""
    head = clause_of(sentence)
    if "\\" in head or "$" in _PRICE.sub("", head) or _LETTER.search(head.rpartition("=")[2]):
        return None
    value = number_in(sentence)
    return None if value is None else _spelled(value)


def _spelled(value: Value) -> str:
    if not isinstance(value, Fraction):
        return str(value)
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _is_money(math: re.Match[str]) -> bool:
    """Whether a supposed formula between two dollar signs is text between two prices."""
    inside = math[2]
    return inside is not None and re.match(r"\s?\d[\d,.]*\s+[^\W\d_]{2,}", inside) is not None and "\\" not in inside


def _unwrap(math: re.Match[str]) -> str:
    return next(group for group in math.groups() if group is not None).strip()


def _short(text: str) -> str | None:
    """The whole response, if it is just an answer; for one short line, its only formula, or its final number."""
    stripped = text.strip().strip("*").strip().removesuffix(".")
    if is_bare(stripped) or word_answer(stripped):
        return stripped
    formulas = [math for math in _MATH.finditer(stripped) if not _is_money(math)]
    prose = _MATH.sub("", stripped) if formulas else stripped
    if len(prose) > _SHORT or "\n" in prose:
        return None
    if formulas and (len(formulas) == 1 or formulas[-1].end() == len(stripped)):
        return _unwrap(formulas[-1])
    thin, numbers = find(stripped)
    own = [number for number in numbers if not number.aside] or numbers
    formal = formulas or _PRICE.sub("", stripped).count("$") > 1 or "\\" in stripped
    if formal or not own or (len(thin) - own[-1].end > _LONGEST_UNIT and len(own) > 1):
        return None
    raw, value = thin[own[-1].start : own[-1].end], last_of(stripped)
    if value is None:
        return raw if COMMA_DECIMAL.fullmatch(raw) else None  # a list or a decimal: depends on the reference
    return _spelled(value)


def _last(text: str) -> str | None:
    """The last formula or number, whichever is later."""
    text = _PRICE.sub("", text) if "$" in text else text
    formulas = list(_MATH.finditer(text))
    if not formulas and len(re.findall(r"\\\(|\\\[|\$", text)) > 1:
        return None  # unclosed formulas: it is unclear which text is one
    start = formulas[-1].end() if formulas else 0
    _, numbers = find(text[start:])
    if [number for number in numbers if not number.aside] or (numbers and not formulas):
        value = last_of(text[start:])
        return None if value is None else _spelled(value)
    return _unwrap(formulas[-1]) if formulas else None


def is_bare(text: str) -> bool:
    """Whether a text can be a mathematical answer by itself: one word, or one formula with an optional unit."""
    if not text or "\n" in text or len(text) > _LONGEST_BARE:
        return False
    words = _WORD.findall(_TEXT.sub(" ", text))
    if _LETTERS.fullmatch(text):
        return True
    if not _SIGN.search(text):
        return len(words) <= 1 and not re.search(r"\s", text)
    return len(words) <= _MOST_WORDS and not _WORD.match(text)


FORMS: Mapping[str, Callable[[str], str | None]] = {
    "boxed": lambda text: boxes(text, boxed_in(text)),
    "hash": lambda text: (hash_line(text) or (0, None))[1],
    "phrase": _phrase,
    "short": _short,
    "last": _last,
}
"""Forms of answers, most reliable first."""


@lru_cache(maxsize=64)
def answer_in(text: str, forms: tuple[str, ...]) -> str | None:
    """The answer in the first of ``forms`` that the text has; None if it has none.

    A truncated or empty box means no answer, whatever else the text has. A number stated after the box, as in
    "Answer: 42", replaces it.
    """
    text = untagged(text)
    for form in forms:
        if form == "boxed":
            if boxed := boxed_in(text):
                found = boxes(text, boxed)
                return (found and "phrase" in forms and _later(text[boxed[-1][2] :])) or found
        elif (found := FORMS[form](text)) is not None:
            return found
    return None


def _later(tail: str) -> str | None:
    """The plain number stated after a box."""
    if (match := last_phrase(tail)) is None:
        return None
    sentence = _SENTENCE_END.split(tail[match.end() :].lstrip(), maxsplit=1)[0]
    if _ROUGH.search(sentence) or "\\" in sentence.replace("\\$", ""):
        return None
    sentence = sentence.strip(" *$")
    return None if _LETTER.search(clause_of(sentence)) else _number_text(sentence)


def untagged(text: str) -> str:
    """Content of the last ``<answer>...</answer>``; the text itself without such a tag."""
    if "<" not in text:
        return text
    found = _TAGGED.findall(text)
    return found[-1][1].strip() if found and found[-1][1].strip() else text


def check_forms(forms: object) -> tuple[str, ...]:
    """``forms`` in the order of FORMS; SuiteError if they are not a list of one or more of these."""
    listed = [forms] if isinstance(forms, str) else forms
    if not isinstance(listed, Sequence) or not listed or not all(form in FORMS for form in listed):
        raise SuiteError(f"extract={forms!r}; expected a list of one or more of: {', '.join(FORMS)}")
    return tuple(form for form in FORMS if form in listed)
