"""The ``choice`` grader: which label does the response state?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_value
from pytest_llmtune.grading.math.extract import answer_in
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ChoiceGrader", "LabelWords", "folded", "stated_text"]


_DENIED_BEFORE = (
    r"not|never|no|neither|nor|without|cannot|hardly|rather than|instead of|anything but|\w+n['\u2019]t|"
    r"nicht|kein\w*|weder|noch|pas|ni|nunca|jamais|não|nem|non|né|inte|ikke|niet|geen|не|нет"
)
_DENIED_BEFORE_UNSPACED = r"不是|並非|并非|非|不|没有|没|無|未"
_DENIED_AFTER = re.compile(
    r"(?:적)?(?:이|가|은|는|인|이지|하지|지)?\s?(?:것(?:은|이)\s?)?(?:아니|아닌|아닙|아님|않)|"
    r"(?:では|じゃ|で)は?(?:ない|なく|ありません)|\s?不(?:对|對)|"
    r"\s(?:is|was|would be)\s(?:not|wrong|incorrect|false)(?!\w)|\s(?:isn|wasn)['\u2019]t"
)
_BETWEEN = r"(?:\s+(?!but\b|sondern\b|sino\b|mais\b)[^\s,;:.!?()\[\]。、，；]+){0,3}"
_WINDOW = 60  # characters before a mention in which a denial is looked for
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_LABELLED = re.compile(r"^[\W_]*\w[^\n:：]{0,30}[:：]([^\n]+)$", re.MULTILINE)
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
_HANGUL = "\u1100-\u11ff\uac00-\ud7af"
_MARKED = ("boxed", "hash", "phrase")
_LONGEST_STATEMENT = 60  # characters; anything longer is not one answer


def folded(text: str) -> str:
    """For comparing labels: NFKC, case folded, white space and punctuation at the ends taken away."""
    return " ".join(_fold(text).split()).strip(" .,:;!?\"'`*_()[]{}<>\u2018\u2019\u201c\u201d。、")


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def stated_text(text: str) -> str | None:
    """What a response states where the labels are not known: its marked answer, or all of it where it is short."""
    found = (answer_in(text, _MARKED) or text).strip()
    if not folded(found) or "\n" in found or len(found) > _LONGEST_STATEMENT:
        return None
    return found.strip(" .*`\"'")


@dataclass(frozen=True, slots=True)
class LabelWords:
    """The words that stand for each label, compiled."""

    owner: Mapping[str, str]
    """From folded word to label."""
    mention: re.Pattern[str]
    leading: re.Pattern[str]
    """A one-character label at the start of a marked answer: "C because ..."."""
    denied: re.Pattern[str]

    @classmethod
    def of(cls, words: Mapping[str, Sequence[str]], negations: Iterable[str] = ()) -> LabelWords:
        owner = {folded(word): label for label, listed in words.items() for word in listed}
        ordered = sorted(owner, key=len, reverse=True)  # "very good" before "good"
        short = "".join(re.escape(word + word.upper()) for word in ordered if _is_short(word))
        own = "".join(rf"{re.escape(_fold(word))}|" for word in negations)
        return cls(
            owner,
            re.compile("|".join(_alone(word) for word in ordered), re.MULTILINE),
            re.compile(rf"\W*([{short}])(?=\W*$|\s*[.):,\]\-])" if short else r"(?!)"),
            re.compile(rf"(?:(?<!\w)(?:{own}{_DENIED_BEFORE}){_BETWEEN}\s+|(?:{_DENIED_BEFORE_UNSPACED})\s*)$"),
        )

    def exactly(self, text: str) -> str | None:
        """The label that ``text`` is, or is a synonym of."""
        return self.owner.get(folded(text))

    def stated(self, text: str) -> str | None:
        """The label in the marked answer; else the only label that is not denied; else that of the last sentence with one."""
        marked = answer_in(text, _MARKED)
        if marked is not None:
            leading = self.leading.match(marked)
            label = self.exactly(marked) or (self.owner[_fold(leading[1])] if leading else self._only(marked))
            if label is not None:
                return label
        labelled = [label for value in _LABELLED.findall(text) if (label := self.exactly(value))]
        if labelled:
            return labelled[-1]
        return self._only(text) or self._last(text)

    def _only(self, text: str) -> str | None:
        """The one label that the text mentions without denying it."""
        found = set(self._mentions(text))
        return found.pop() if len(found) == 1 else None

    def _last(self, text: str) -> str | None:
        for sentence in reversed(_SENTENCES.split(text)):
            if any(self._mentions(sentence)):
                return self._only(sentence)
        return None

    def _mentions(self, text: str) -> Iterator[str]:
        text = _fold(text)
        for match in self.mention.finditer(text):
            before = text[max(0, match.start() - _WINDOW) : match.start()]
            if not self.denied.search(before) and not _DENIED_AFTER.match(text, match.end()):
                yield self.owner[next(group for group in match.groups() if group)]


def _is_short(word: str) -> bool:
    return len(word) == 1 and word.isascii()


def _alone(word: str) -> str:
    """A pattern, with one group, of the word where it stands for itself and not inside another."""
    term = f"({re.escape(word)})"
    if _is_short(word):  # "a" is also an article: it must be set apart
        return rf"[(\[]\s*{term}\s*[)\]]|(?:option|choice|answer|label)\s+{term}(?!\w)|\A\W*{term}(?=[.):,]|\W*\Z)|^[\W_]*{term}[\W_]*$"
    if re.search(f"[{_HANGUL}]", word):  # particles follow the word
        return f"(?<![{_HANGUL}]){term}"
    return term if _UNSPACED.search(word) else rf"(?<!\w){term}(?!\w)"


@dataclass(frozen=True, kw_only=True)
class ChoiceGrader(BuiltIn):
    """Right where the response states the reference's label: not where it only mentions or denies it.

    Without labels a single letter is one of A to Z, and any other reference is compared with what the response states.
    """

    labels: Mapping[str, Sequence[str]] | Sequence[str] | None = None
    """The labels, or a mapping from label to its synonyms."""
    negations: Sequence[str] = ()
    """Words before a label that deny it, besides the built-in ones of a dozen languages."""

    kind: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        if isinstance(self.negations, str) or not all(isinstance(word, str) for word in self.negations):
            raise SuiteError(f"negations={self.negations!r}; expected a list of words")
        if self.labels is not None:
            _labels(self.labels)

    @cached_property
    def _terms(self) -> LabelWords:
        if self.labels is None:
            return LabelWords.of(_LETTERS, self.negations)
        named = {label: (label, *synonyms) for label, synonyms in _labels(self.labels).items()}
        return LabelWords.of(named, self.negations)

    def reference(self, row: Row) -> str:
        text = str(reference_value(row, self.reference_column)).strip()
        label = self._terms.exactly(text)
        if label is not None:
            return label
        if self.labels is not None:
            raise SuiteError(f"the reference {text!r:.60} is none of the labels: {', '.join(_labels(self.labels))}")
        return text

    def answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self.reference(row)
        free = self.labels is None and self._terms.exactly(reference) is None
        return tuple(_free(text, reference) if free else self._label(text, reference) for text in responses)

    def _label(self, text: str, reference: str) -> Answer:
        label = self._terms.stated(text)
        return Answer(label, label or "", label == reference)


def _free(text: str, reference: str) -> Answer:
    stated = stated_text(text)
    key = folded(stated) if stated else None
    return Answer(key, stated or "", key is not None and key == folded(reference))


_LETTERS: Mapping[str, Sequence[str]] = MappingProxyType(
    {chr(code): (chr(code),) for code in range(ord("A"), ord("Z") + 1)}
)


def _labels(raw: Any) -> dict[str, tuple[str, ...]]:
    """Label to synonyms, checked: no empty label, no word that stands for two labels."""
    if isinstance(raw, str) or not isinstance(raw, (Mapping, Sequence)) or len(raw) < 2:
        raise SuiteError(
            f"labels={raw!r:.80}; expected a list of two or more labels, or a mapping of label to synonyms"
        )
    pairs = raw.items() if isinstance(raw, Mapping) else ((label, ()) for label in raw)
    labels: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for label, synonyms in pairs:
        listed = (synonyms,) if isinstance(synonyms, str) else tuple(map(str, synonyms or ()))
        labels[str(label)] = listed
        for word in (str(label), *listed):
            if not folded(word):
                raise SuiteError(f"labels: {label!r} has an empty label or synonym")
            if owner.setdefault(folded(word), str(label)) != str(label):
                raise SuiteError(f"labels: {word!r} stands for both {owner[folded(word)]!r} and {label!r}")
    return labels
