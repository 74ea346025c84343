r"""Where the answer stands in a response: the last ``\boxed{}``, ``#### 18``, "the answer is ...", or all of a short response."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from pytest_llmtune.errors import SuiteError

__all__ = ["FORMS", "answer_in", "boxes", "check_forms", "is_bare"]


_BOX = re.compile(r"\\f?boxed(?![a-zA-Z])\s*")
_HASH = re.compile(r"^[ \t]*####[ \t]*(\S[^\n]*)", re.MULTILINE)
_PHRASE = re.compile(
    r"""(?:\b(?:final|correct)?\s*answers?\*{0,2}\s*(?:is|are|=|:)|  # Final answer: ..., the answer is ...
    \banswer(?=\s*(?:\$|\\\(|\\\[))|                               # Answer $ 9 $
    정답[은:\s]|(?<!\w)답[은:]|答案[是为為:]|答えは)                # Korean, Chinese, Japanese
    \s*:?\*{0,2}\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)(?<!\\)\$|\\\[(.+?)\\\]|\\\(([^\n]+?)\\\)", re.DOTALL)
_SENTENCE_END = re.compile(r"\n|(?<![\d.])\.(?=\s|$)|\.(?=\s|$)|[。!?;]")
_JOINT = re.compile(  # between two boxes of one list: "and", commas, a unit, the name of the next value
    r"[\s,;.$]*(?:[^\W\d_]{1,12}\s+(?=and\b|or\b))?"
    r"(?:(?:\\(?:q?quad|[,;!()\[\]])|\\text\s*\{[^{}]*\}|\band\b|\bor\b|그리고|또는)[\s,;.$]*)*"
    r"(?:[a-zA-Z](?:_\{?\w+\}?)?\s*=\s*)?"
)
_WORD = re.compile(r"(?<![\\a-zA-Z])[^\W\d_]{2,}")
_TEXT = re.compile(r"\\(?:text\w*|math(?:rm|bf|it|sf)|operatorname|mbox)\s*\{[^{}]*\}")
_LONGEST_BARE = 300  # characters
_LONGEST_UNIT = 12
_MOST_WORDS = 3
_SHORT = 80  # characters of prose
_LAST_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212]?\s?[$€£¥₩]?\d[\d.,/]*(?<![.,/])(?:\s?(?:%|percent\b|pct\b))?")
_SUM = re.compile(r"[A-Za-z](?:\s*[-+]\s*[A-Za-z])+")
"""``p - q``: without it a minus sign is a hyphen."""
_SIGN = re.compile(r"[\d\\$=^]")


def boxes(text: str) -> str | None:
    r"""What stands in the last ``\boxed{}`` or ``\fbox{}``; boxes joined by nothing but "and" or commas are one list.

    None where there is no box, or the last one is cut off or empty.
    """
    found: list[tuple[int, int, str]] = []
    for match in _BOX.finditer(text):
        end, inside = _braced(text, match.end())
        if found and match.start() < found[-1][1]:
            continue  # a box in a box
        found.append((match.start(), end, inside))
    if not found or not found[-1][2].strip():
        return None
    joined = [found[-1][2].strip()]
    for before, after in zip(reversed(found[:-1]), reversed(found[1:]), strict=True):
        if not before[2].strip() or not _JOINT.fullmatch(text[before[1] : after[0]]):
            break
        joined.insert(0, before[2].strip())
    different = list(dict.fromkeys(joined))
    return different[0] if len(different) == 1 else r" \text{ and } ".join(different)


def _braced(text: str, start: int) -> tuple[int, str]:
    """The end and the inside of the braces that open at ``start``; one token where there are none."""
    if not text.startswith("{", start):
        token = re.compile(r"\\?\w+").match(text, start)
        return (token.end(), token[0]) if token else (start, "")
    depth = 0
    place = start
    while place < len(text):
        char = text[place]
        if char == "\\":
            place += 1  # an escaped brace is no brace
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if not depth:
                return place + 1, text[start + 1 : place]
        place += 1
    return len(text), ""  # cut off


def _hash(text: str) -> str | None:
    found = _HASH.findall(text)
    return found[-1].strip() if found else None


def _phrase(text: str) -> str | None:
    """What follows the last "the answer is": a formula with its unit, or the sentence, or what that sentence ends in."""
    found = list(_PHRASE.finditer(text))
    if not found:
        return None
    rest = text[found[-1].end() :].lstrip()
    math = _MATH.match(rest)
    if math:
        tail = _SENTENCE_END.split(rest[math.end() :], maxsplit=1)[0]
        return (_unwrap(math) + (tail if len(tail) <= _LONGEST_UNIT else "")).strip(" *") or None
    sentence = _SENTENCE_END.split(rest, maxsplit=1)[0].strip(" *\"'`")
    if is_bare(sentence):
        return sentence
    end = re.split(r"\b(?:is|are|equals|be)\b", sentence)[-1].strip(" :")
    return end if is_bare(end) else _last(sentence) or sentence or None


def _unwrap(math: re.Match[str]) -> str:
    return next(group for group in math.groups() if group is not None).strip()


def _short(text: str) -> str | None:
    """All of the response, where it is nothing but an answer; of one short line its only formula, or what it ends in."""
    stripped = text.strip().strip("*").strip().removesuffix(".")
    if is_bare(stripped):
        return stripped
    formulas = list(_MATH.finditer(stripped))
    prose = _MATH.sub("", stripped)
    if len(prose) > _SHORT or "\n" in prose:
        return None
    if formulas and (len(formulas) == 1 or formulas[-1].end() == len(stripped)):
        return _unwrap(formulas[-1])
    numbers = list(_LAST_NUMBER.finditer(stripped))
    at_end = not formulas and numbers and len(stripped) - numbers[-1].end() <= _LONGEST_UNIT
    return numbers[-1][0].strip() if at_end and stripped.count("$") < 2 else None


def _last(text: str) -> str | None:
    """The last formula or number, whichever stands later."""
    formulas = list(_MATH.finditer(text))
    if not formulas and len(re.findall(r"\\\(|\\\[|\$", text)) > 1:
        return None  # formulas that are not closed on their line: which text is one cannot be told
    start = formulas[-1].end() if formulas else 0
    numbers = _LAST_NUMBER.findall(text[start:])
    if numbers:
        return str(numbers[-1]).strip()
    return _unwrap(formulas[-1]) if formulas else None


def is_bare(text: str) -> bool:
    """Whether a text can be a mathematical answer by itself: one word, or a line of formula with a unit at most."""
    if not text or "\n" in text or len(text) > _LONGEST_BARE:
        return False
    words = _WORD.findall(_TEXT.sub(" ", text))
    if _SUM.fullmatch(text):
        return True
    if not _SIGN.search(text):
        return len(words) <= 1 and not re.search(r"\s", text)
    return len(words) <= _MOST_WORDS and not _WORD.match(text)


FORMS: Mapping[str, Callable[[str], str | None]] = {
    "boxed": boxes,
    "hash": _hash,
    "phrase": _phrase,
    "short": _short,
    "last": _last,
}
"""The forms in which an answer may stand, the surest first."""


def answer_in(text: str, forms: Sequence[str]) -> str | None:
    """The answer in the first of ``forms`` that the text has; None where it has none.

    A cut-off or empty box is no answer, whatever else the text holds.
    """
    for form in forms:
        found = FORMS[form](text)
        if found is not None:
            return found
        if form == "boxed" and _BOX.search(text):
            return None
    return None


def check_forms(forms: object) -> tuple[str, ...]:
    """``forms`` in the order of FORMS.

    Raises:
        SuiteError: not a list of one or more of their names.
    """
    listed = [forms] if isinstance(forms, str) else forms
    if not isinstance(listed, Sequence) or not listed or not all(form in FORMS for form in listed):
        raise SuiteError(f"extract={forms!r}; expected a list of one or more of: {', '.join(FORMS)}")
    return tuple(form for form in FORMS if form in listed)
