r"""Leave out what a response denies or takes back: "\boxed{4} is wrong", "the answer is 4, but that is incorrect"."""

from __future__ import annotations

import re

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.grading.math.extract import boxed_in
from pytest_llmtune.grading.phrases import phrases

_HINTS = (
    "wrong", "incorrect", "mistak", "false", "error", "not", "n't", "n’t", "rather than", "instead of", "never",
    "first", "initially", "originally", "thought", "guessed", "assumed", "believed", "actually", "wait",
)  # fmt: skip
"""Most answers have none of these words, which are found faster than a pattern."""
_WRONG = r"(?:wrong|incorrect|false|mistaken|a\s+mistake|an\s+error)\b"
_RIGHT = r"(?:the\s+)?(?:(?:right|correct|final|true|actual)\s+)?(?:answer|solution|result|correct|right|true|it)\b"
IS_WRONG = (
    r"(?:(?:['’]s|\s{0,3}(?:is|was)|\s{1,3}(?:would\s{1,3}be|seems|looks))\s{1,3}(?:(?:clearly|simply|just|also|obviously|definitely|actually)\s{1,3})?"
    rf"(?:not\s{{1,3}}{_RIGHT}|{_WRONG})|\s{{0,3}}(?:(?:is|was|does)n['’]t|cannot\s{{1,3}}be|can['’]t\s{{1,3}}be)\s{{1,3}}{_RIGHT})"
    r"(?!\s{1,3}(?:to|that|if|for|when|unless|only|until|yet|of|most|many|some|people|you|we|one)\b|\s{0,3}[?？])"
)
DENIED_AFTER = lazy_regex(rf"[\s$*_)\]\"'\\]{{0,6}}{IS_WRONG}[.!]?", re.IGNORECASE)
_VALUE = lazy_regex(
    rf"(?:(?<![\w.,$\\])[-+\u2212]?[$€£¥]?\d[\d.,/]*+(?<![.,])%?|(?<!\$)\$[^$\n]{{1,80}}\$){DENIED_AFTER.pattern}",
    re.IGNORECASE,
)
_DENIED_BEFORE = lazy_regex(
    r"(?:\bnot|\w+n['’]t|\bnever|\brather\s+than|\binstead\s+of)(?:\s+be)?[\s$*_(\[\"']{1,5}\Z", re.IGNORECASE
)
_NO_CONDITION = "".join(
    rf"(?<!\b{word}\s)"
    for word in ("if", "whether", "unless", "case", "think", "that", "because", "why", "when", "where")
)
"""If this is wrong, tell me."""
_TAKEN_BACK = lazy_regex(
    rf"(?<!\w){_NO_CONDITION}(?:(?:that|this|it|which){IS_WRONG}[.!]?|(?:actually|wait)\b[,.]?\s{{1,3}}no\b[.!\s]{{0,3}}\Z)",
    re.IGNORECASE,
)
"""The pronoun stands for the clause before it, in its sentence or in the one before."""
_THOUGHT = lazy_regex(
    r"\((?:(?:I|we)\s+)?(?:at\s+)?(?:first|initially|originally)[,\s]\s*(?:(?:I|we)\s+)?thought\b[^()\n]{0,300}\)|(?<!\w)(?:"
    r"(?:(?:I|we)\s+(?:at\s+)?(?:first|initially|originally)|(?:(?:at\s+)?first|initially|originally),?\s+(?:I|we))\s+"
    r"(?:thought|said|guessed|assumed|believed|answered)\b"
    r"[^\n;?!]{0,300}?(?:\bbut\b|\bhowever\b|[,;](?=\s)|\.(?=\s|\Z)|$)"
    r"|(?:I|we)\s+(?:had\s+)?(?:thought|guessed|assumed|believed)\s+(?:that\s+)?(?:the\s+(?:\w+\s+)?(?:answer|result|solution)|it)\s+"
    r"(?:is|was|would\s+be|should\s+be)\b[^\n;?!]{0,300}?\b(?:but|however)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_LONGEST = 2000  # characters of a statement
_FEW_WORDS = 3  # before the pronoun in its sentence: "No, wait,"
_SENTENCE = lazy_regex(r"[.!?](?=\s)|[\n;。！？]")


def standing(text: str) -> str:
    """The text without the values, boxes and statements that it denies or takes back."""
    lower = text.lower()
    if not any(map(lower.__contains__, _HINTS)):
        return text
    text = _VALUE.sub(" ", without_denied_boxes(text))
    text = _THOUGHT.sub(" ", text)
    position = 0
    while (match := _TAKEN_BACK.search(text, position)) is not None:
        start = _start_of_statement(text, match.start())
        retracted = text[start : match.start()]
        if boxed_in(retracted) or phrases(retracted):
            start = 0  # it was the answer: what led to it is no answer either
        text, position = text[:start] + " " + text[match.end() :], start
    return text


def without_denied_boxes(text: str) -> str:
    r"""The text without ``\boxed{4}`` in "not \boxed{4}" and "\boxed{4} is wrong"."""
    for start, _, end in reversed(boxed_in(text)):
        before = _DENIED_BEFORE.search(text[max(0, start - 40) : start])
        after = DENIED_AFTER.match(text, end)
        if before is not None or after is not None:
            kept = text[: start - len(before[0]) if before else start]
            text = f"{kept} {text[after.end() if after else end :]}"
    return text


def _start_of_statement(text: str, position: int) -> int:
    """Start of the clause that a pronoun at ``position`` stands for."""
    ends = [match.end() for match in _SENTENCE.finditer(text, max(0, position - _LONGEST), position)]
    between = text[ends[-1] : position] if ends else ""
    if ends and len(between.split()) <= _FEW_WORDS and not any(char.isdigit() or char == "\\" for char in between):
        ends.pop()  # "The answer is 4. But that is wrong."
        while ends and not text[ends[-1] : position].strip():
            ends.pop()
    return ends[-1] if ends else max(0, position - _LONGEST)
