"""Phrases that introduce an answer: "the answer is", ``정답:``, "wait, it's", in a dozen languages."""

from __future__ import annotations

import re

from pytest_llmtune._util.lazy import lazy_regex

_TAIL = r"""\s*[:：]?["'*_]*\s*"""
_ENGLISH = (
    r"""(?<!\w)answers?\b["'*_]*\s*(?:(?:choice\s+|option\s+|letter\s+)?(?:\([^()\n]{0,30}\)\s*)?(?:(?:to|for|of)\s[^.:=\n]{1,60}?\s)?"""
    r"(?:is\b|are\b|=|[:：]|[-–—](?=\s)|(?:would|should|must|will)\s+be\b|equals\b)|(?=\$|\\\(|\\\[))"
)
_HEADING = r"(?:(?<=[#*_] )|(?<=[#*_])|(?<=final ))answer[*_]*[ \t]*(?=\n)"
_OPTION = r"(?<!\w)(?:correct|right|best)\s+(?:option|choice|letter|one|label|response|statement|solution|alternative)\s*(?:is\b|[:：])"
_CORRECTION = (
    r"(?<!\w)(?:wait|actually|sorry|correction|oops|scratch\s+that|no)\b[^.\n]{0,30}?"
    r"(?:\bit(?:['’]s|\s+is|\s+(?:should|must)\s+be)|\bthat(?:['’]s|\s+is)|\bmake\s+that|\bshould\s+be|\bI\s+meant?)\s"
)
_INSTEAD = (  # with nothing but the answer behind
    r"(?<!\w)(?:correction\s*[:：]|(?:on\s+(?:second\s+thoughts?|reflection)|no)\s*,\s+)"
    r"(?=[\W_]{0,3}(?:option\s+)?[\W_]{0,3}(?:[A-Za-z](?!\w|\s+[a-z])|\d))"
)
_ACTUALLY = (  # with nothing but the answer on the rest of the line: "Actually, 5 of them are red" states none
    r"(?<!\w)(?:wait|actually)\b[\s,:.!…—-]{1,5}(?:(?:no|wait|actually)\b[\s,:.!…—-]{1,5}){0,2}"
    r"(?=[\W_]{0,3}(?:option\s+)?[\W_]{0,3}(?:[A-Za-z]|\d[\d.,]{0,20})[*_.!)\]$\"' ]{0,6}(?:\n|\Z))"
)
_RULES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("answer",), rf"(?:{_ENGLISH}|{_HEADING})"),
    (("correction", "on second thought", "on reflection", "no,"), _INSTEAD),
    (("wait", "actually"), _ACTUALLY),
    (("correct ", "right ", "best "), _OPTION),
    (("wait", "actually", "sorry", "correction", "oops", "scratch that", "no"), _CORRECTION),
    (("antwort", "ergebnis", "lösung"), r"(?<!\w)(?:antwort|ergebnis|lösung)\s*(?:ist\b|lautet\b|wäre\b|[:：])"),
    (("richtig ist", "korrekt ist"), r"(?<!\w)(?:richtig|korrekt)\s+ist\b"),
    (("réponse", "reponse"), r"(?<!\w)r[ée]ponse\s*(?:correcte|exacte|finale|juste)?\s*(?:est\b|serait\b|[:：])"),
    (("respuesta",), r"(?<!\w)respuesta\s*(?:correcta|final)?\s*(?:es\b|sería\b|[:：])"),
    (("resposta",), r"(?<!\w)resposta\s*(?:correta|certa|final)?\s*(?:é\b|seria\b|[:：])"),
    (("risposta",), r"(?<!\w)risposta\s*(?:corretta|esatta|giusta|finale)?\s*(?:è\b|[:：])"),
    (("antwoord",), r"(?<!\w)antwoord\s*(?:is\b|[:：])"),
    (("svar",), r"(?<!\w)svaret?\s*(?:är\b|er\b|[:：])"),
    (("odpowied",), r"(?<!\w)odpowiedź\s*(?:to\b|brzmi\b|[:：])"),
    (("cevap",), r"(?<!\w)cevap\s*[:：]"),
    (("jawaban",), r"(?<!\w)jawaban(?:nya)?\s*(?:adalah\b|[:：])"),
    (("ответ",), r"(?<!\w)ответ\w?\s*[:：—-]"),
    (("đáp",), r"(?<!\w)đáp\s+án\s*(?:đúng\s+)?(?:là\b|[:：])"),
    (("उत्तर",), r"उत्तर\s*(?:(?:है\s*)?[:：]|(?=[(A-Z]))"),
    (("correcte", "correcta", "correta", "corretta"), r"corre(?:cte|cta|ta|tta)\s+(?:est|es|é|è)\b"),
    (("正确的", "正確的"), r"正[确確]的(?:选项|選項|答案)?是"),
    (("옳은 것은", "맞는 것은"), r"(?:옳은|맞는)\s것은\s"),
    (
        ("الجواب", "الإجابة", "الاجابة", "الخيار"),
        r"(?:الجواب|الإجابة|الاجابة|الخيار)\s*(?:الصحيحة|الصحيح|النهائية|النهائي)?\s*(?:هو|هي|[:：])",
    ),
    (("정답",), r"정답[은:：\s]"),
    (("답",), r"(?:(?<!\w)답[은:：]|답\s*[:：])"),
    (("答案", "正确答案", "正确选项", "正確答案"), r"(?:正[确確])?(?:选项|答案)(?:应该|應該)?[是为為:：]"),
    (("答え", "正解", "解答", "回答"), r"(?:答え|正解|解答|回答)(?:は|[:：])"),
)
_COMPILED = tuple(
    (hint, compiled)
    for hints, pattern in _RULES
    for compiled in [lazy_regex(rf"{pattern}{_TAIL}", re.IGNORECASE)]
    for hint in hints
)
_ASCII = tuple((hint, pattern) for hint, pattern in _COMPILED if hint.isascii())


def phrases(text: str) -> list[re.Match[str]]:
    """All such phrases, in order; the answer starts at the end of a match."""
    low = text.lower()
    if len(low) != len(text):  # lower-casing changes the length of a few letters
        low = text
    found: list[re.Match[str]] = []
    rules = _ASCII if text.isascii() else _COMPILED
    for hint, pattern in [rule for rule in rules if rule[0] in low]:
        position = low.find(hint)
        while position >= 0:
            match = pattern.match(text, position)
            if match is not None:
                found.append(match)
            position = low.find(hint, position + len(hint))
    return sorted(found, key=re.Match.end) if len(found) > 1 else found


def last_phrase(text: str) -> re.Match[str] | None:
    found = phrases(text)
    return found[-1] if found else None
