"""The ``choice`` grader: finds the label that a response states."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, reference_values
from pytest_llmtune.grading.math.extract import answer_in, boxed_in, boxes, hash_line, untagged
from pytest_llmtune.grading.math.retracted import standing, without_denied_boxes
from pytest_llmtune.grading.phrases import phrases
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_DENIED_BEFORE = (
    r"not|never|no|neither|nor|without|cannot|hardly|than|instead of|anything but|other than|\w+n['\u2019]t|"
    r"rul(?:es?|ed|ing) out|eliminat\w+|exclud\w+|discard\w*|reject\w*|except|unlike|"
    r"nicht|kein\w*|weder|noch|pas|ni|nunca|jamais|não|nem|non|né|inte|ikke|niet|geen|не|нет"
)
_DENIED_BEFORE_UNSPACED = r"不是|並非|并非|非|不|没有|没|無|未|排除"
_DENIED_AFTER = lazy_regex(
    r"[)\]\"'*]*(?:(?:적)?(?:이|가|은|는|인|이지|하지|지)?\s?(?:것(?:은|이)\s?)?(?:아니|아닌|아닙|아님|않|틀)|"
    r"(?:では|じゃ|で)は?(?:ない|なく|ありません)|\s?(?:也|都)?(?:不(?:对|對|正确|正確|是)|错|錯|有误)|"
    r"\s(?:is|was|would be|seems|looks)\s(?:not|wrong|incorrect|false|tempting|a (?:common )?distractor|ruled out|eliminated|out)(?!\w)|"
    r"\s(?:isn|wasn|doesn|can)['\u2019]?t)"
)
_QUESTION_MARK = lazy_regex(r"[\s)\]\"'*]*[?？]")
_BETWEEN = r"(?:\s+(?!but\b|sondern\b|sino\b|mais\b)[^\s,;:.!?()\[\]。、，；]+){0,3}"
_LAST_WORDS = 200  # characters at the end, with "actually, no"
_WINDOW = 60  # characters before a mention that are searched for a denial
_SENTENCES = lazy_regex(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_SENTENCE_END = lazy_regex(r"\n|(?<=\w\w)[.!?](?=\s|$)|[.!?](?=\s+[A-Z\"'(*]|\s*$)|[。！？]")
_LABELLED = lazy_regex(r"^[\W_]*\w[^\n:：]{0,30}[:：]([^\n]+)$", re.MULTILINE)
_UNSPACED = lazy_regex(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
_HANGUL = "\u1100-\u11ff\uac00-\ud7af"
_SHORTEST_SENTENCE = 12  # characters; anything shorter is not a second statement
_SHORTEST_ADDITION = 2  # characters: a mark and a letter
_LONGEST_STATEMENT = 60  # characters; anything longer is not one answer
_LATEX = lazy_regex(r"\\(?:text\w*|math(?:rm|bf|it|sf)|operatorname|mbox|boxed|fbox)\s*\{([^{}]*)\}|\\[ ,;:!()\[\]]|\$")
_CLAUSE = lazy_regex(
    r",?\s+(?:because|since|as|which|(?:al|even\s+)?though|despite|while|whereas|weil|denn|parce\s+que|car|porque|ya\s+que|perché)\s|\s*[;\u2014]\s*|\s+[-\u2013]\s+",
    re.IGNORECASE,
)
_NONE = lazy_regex(
    r"\W*(?:(?:that\s+)?none|neither|no\s+(?:option|answer|choice|label|correct|single)|nothing|not\s+(?:listed|given|sure|possible|enough|any|provided|determin\w+|clear)|"
    r"cannot|can['’]?t|could\s+not|unable|unknown|undetermin\w+|indetermin\w+|unclear|uncertain|unsure|impossible|n/?a\b|"
    r"(?:all|both|any|several)\s+of|both\b|all\s+(?:options|choices|answers)|以上(?:都|皆)|都不|无法|無法|없|알\s*수\s*없|keine|nicht|aucun|ningun|nenhum)",
    re.IGNORECASE,
)
_NO_OPTION = lazy_regex(
    r"\b(?:none\s+of\s+(?:the\s+(?:above|options|choices|answers|labels)|these|those|them)\b|no\s+(?:option|choice|answer|label)\s+(?:is|fits|applies)|"
    r"(?:cannot|can['’]t|unable\s+to)\s+(?:be\s+)?(?:determine|answer|decide|choose|tell))",
    re.IGNORECASE,
)
_LEAD_IN = lazy_regex(
    r"\W*(?:as\s+follows|below|clear|obvious|simple|straightforward|found|given\s+by|determined|this|that|here|following)\b",
    re.IGNORECASE,
)
_BEFORE_LETTER = (
    r"(?:(?:therefore|thus|hence|clearly|(?:most\s+)?likely|probably|definitely|certainly|obviously|indeed|simply|surely|donc|daher|also|então|logo|quindi|entonces|the|either|option|options|choice|answer|letter|label|number|la|le|el|il|die|der|das|a(?=\s+(?:letra|letter|alternativa|opção))|(?-i:a(?=\s+[A-Z]\b))|letra|lettre|lettera|buchstabe|"
    r"opción|opção|opzione|alternativa|réponse|vaihtoehto|вариант|选项|選項|选择|選擇|선택지|보기|الخيار|الحرف)(?:\s+|(?<=[项項]))[\W_]*?)*"
)
_AND_OR = (
    r"(?:(?:\b(?:or|and|oder|und|ou|et|y|o|e|u|plus|l?or|land|vee|wedge|as\s+well\s+as|along\s+with)\b|또는|이나|혹은|과|와|및|或者?|和|与|與|、|または|および|と|か|أو|و|"
    r"[/,&+;|\u2013-])\s*)+"
)
_MAYBE = r"(?:\s*(?:and|or|also|maybe|possibly|perhaps|either|option|choice|even)\b)*"
_ADDED = (
    r"or|alternatively|possibly|maybe|perhaps|"
    r"(?:but\s+)?(?:(?:it|this|that|the\s+answer)\s+)?(?:could|might|may)\s+(?:also|equally|as\s+well)\s+be"
)
_CHOSEN = (
    r"\b(?:(?:I|we)(?:['’](?:d|ll)|\s+would|\s+will)?\s+(?:choose|pick|select|go\s+with|say|answer|opt\s+for|settle\s+on)|"
    r"(?:choose|pick|select|going\s+with)|c['’]est|je\s+choisis|elijo|escolho|ich\s+wähle|scelgo|"
    r"(?:must|should|would|has\s+to|have\s+to)\s+be|leav(?:es|ing)(?:\s+us\s+with)?|(?:are|am)\s+left\s+with)\s+"
    r"|(?:故|应该?|應該?|所以|因此)?(?:选|選)(?:择|擇)?\s*[:：]?\s*"
)
_RIGHT = (
    r"(?:\s+(?:is|would\s+be|must\s+be|(?:seems|looks|appears)(?:\s+to\s+be)?)\s+(?:the\s+|therefore\s+|thus\s+)*(?:correct|right|best|answer|true)(?!\w)|\s+fits\s+best|"
    r"\s+(?:ist|est|es|é|è)\s+(?:donc\s+|also\s+)?(?:la\s+|a\s+)?(?:richtig|korrekt|correct[eao]?|juste|corret[ao]|corrett[ao])(?!\w)|"
    r"\s*(?:是)?(?:正确|正確|对的|對的|が正解|が正しい|(?:이|가)\s*정답|(?:이|가)\s*맞))"
)
_SO = (
    r"\b(?:therefore|thus|hence|so|finally|final|in\s+conclusion|in\s+short|overall|definitely|certainly|probably|surely)[,:]?\s+(?:it(?:['’]s|\s+is)\s+|the\s+)?|"
    r"\b(?:it|that)(?:['’]s|\s+is)\s+|\b(?:letter|option|choice|solution|response)\s+(?:is|would\s+be)\s+"
)
_COPULA = r"(?:です|だ|입니다|이다|예요|이에요|번|项|項)"
_ENDS = rf"(?=[\W_]*(?:$|\n|[.!。;])|\s*{_COPULA})"
_LETTER_BEFORE = lazy_regex(rf"(?<!\w)([A-Za-z])[\W_]*?(?i:{_AND_OR})[\W_]*$")
_ITEM = lazy_regex(r"^[ \t*>-]*[(\[]?([A-Za-z])[)\].:]\**(?:\s|$)", re.MULTILINE)
_BUT = lazy_regex(
    r"\b(?:but|however|yet|aber|sondern|mais|pero|mas|ma)\b|하지만|지만|그러나|但|でも|しかし", re.IGNORECASE
)
_DESPITE = lazy_regex(r",?\s+(?:despite|(?:al|even\s+)?though|because|since)\s", re.IGNORECASE)
_BECAUSE = lazy_regex(r"\b(?:because|since|as|if|that|why|when|whether)\s+$", re.IGNORECASE)
_WORD_NEXT = lazy_regex(r"\s+\w")
_NOUN_NEXT = lazy_regex(r"\s+(?!(?:is|was|because|since|as|or|and|for|due|in|by|with)\b)[a-z]")
_UNSTATED = object()
_NOT_CHOSEN = lazy_regex(
    r"(?<!\w)(?:I|we)\s+(?:(?:really|strongly|highly|must|do|have\s+to)\s+){0,2}(?:doubt|(?:refuse|decline)\s+to\s+"
    r"(?:choose|pick|select|answer|say|state|give|label|call))\b[^.;,:\n]*"
    r"|[\"']?\bnot[\"']?\s{0,3}:\s{0,3}(?:\"[^\"\n]*\"|'[^'\n]*'|\[[^\]\n]*\]|[^\s,}]+)"
    r"|[\"'](?:excluded?|rejected|eliminated|ruled[_ ]out)[\"']\s{0,3}:\s{0,3}(?:\"[^\"\n]*\"|'[^'\n]*'|\[[^\]\n]*\])",
    re.IGNORECASE,
)
"""``I doubt it is A``, ``I refuse to choose A``, ``{"not": "A"}``."""
_REFUSALS = ("doubt", "refuse", "decline", "not", "exclude", "reject", "eliminate", "ruled")
_AFTERTHOUGHTS = ("wait", "actually", "scratch", "second thought")
_PAUSE = r"\b[\s,:.!\u2026\u2014-]{1,5}"
_WAIT = rf"(?:wait|actually|scratch\s+that|on\s+second\s+thoughts?){_PAUSE}(?:(?:no|wait|actually){_PAUSE}){{0,2}}"


def folded(text: str) -> str:
    """Normalise a label: NFKC, case folding, without whitespace and punctuation at the ends."""
    return " ".join(_fold(text).split()).strip(" .,:;!?\"'`*_()[]{}<>\u2018\u2019\u201c\u201d。、")


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


class _Candidate(NamedTuple):
    """A fragment in which a response may state its label."""

    start: int
    fragment: str
    strong: bool
    """Whether it is announced as the answer, so that no mention elsewhere overrides it."""
    end: int


class LabelWords:
    """The words for each label, and compiled patterns of them."""

    def __init__(self, words: Mapping[str, Sequence[str]], negations: Iterable[str] = ()) -> None:
        self.owner = {folded(word): label for label, listed in words.items() for word in listed}
        ordered = sorted(self.owner, key=len, reverse=True)  # "very good" before "good"
        self._are_letters = all(map(_is_short, self.owner))
        letters = "".join(re.escape(word + word.upper()) for word in ordered if _is_short(word))
        one = rf"[{letters}](?![A-Za-z0-9_]|[.,]\d|['’]\w)" if letters else r"(?!)"
        long = "|".join(re.escape(word) for word in ordered if not _is_short(word)) or r"(?!)"
        own = "".join(rf"{re.escape(_fold(word))}|" for word in negations)
        self._mention = re.compile("|".join(_alone(word) for word in ordered), re.MULTILINE)
        # a one-character label at the start of a statement: "C because ..."
        self._leading = re.compile(rf"[\W_]*?(?i:{_BEFORE_LETTER})[\W_]*?(?<![A-Za-z0-9])({one})")
        # another one next to it: "or (B)"
        self._offered = re.compile(
            rf"[\W_]*?(?:\([^()]*\)|\s[^\W\d_]{{2,}}(?=\s+or\b))?[\W_]*?(?i:{_AND_OR}{_MAYBE})[\W_]*?(?<![A-Za-z0-9])({one})"
        )
        # one in the next sentence: "Or B."
        self._added = re.compile(
            rf"(?:[\W_]*(?i:{_ADDED})[,:]?\s+|\W*[,;/&|]\W*)(?i:{_BEFORE_LETTER}{_MAYBE})[\W_]*?(?P<other>{one}|(?i:{long})(?!\w))(?=[\W_]*?(?:$|\n|[.!,;?]))"
        )
        # another one right behind it: "(A)(B)"
        self._adjacent = re.compile(rf"[\s)\]*]{{1,4}}[(\[*]*({one})[)\]*]*\W*$")
        # statements without the word "answer"
        self._weak = re.compile(
            rf"(?i:{_CHOSEN})(?P<chosen>(?i:{_BEFORE_LETTER})[\W_]*?{one}{_ENDS}|(?i:{_BEFORE_LETTER})[(\[]{one}[)\]])"
            rf"|(?i:{_SO})(?P<so>(?i:{_BEFORE_LETTER})[\W_]*?{one}{_ENDS})"
            rf"|(?<![A-Za-z0-9])(?P<right>{one}[)\]\"'*]*(?i:{_RIGHT}))"
            rf"|\A[\W_]*(?P<first>{one}(?:[\W_]*(?:\n|\Z)|[)\]*\"']*[.:,)]|[)\]*]+|\s+[A-Z0-9]|\s+[-\u2013\u2014]\s|\s+(?:because|since)\b|{_COPULA}))"
            rf"|\A[\W_]*(?P<word>(?i:{long})(?!\w)[\"'*)]*(?=[,.!:;\n\u2014]|\s-))"
            rf"|^[^\w\n]*(?P<line>(?:{one}|(?i:{long})(?!\w)))[^\w\n]*(?=\n*\Z)"
            rf"|^[^\w\n]*(?P<item>{one}[).:]\s+\S[^\n]*)(?=\s*\Z)",
            re.MULTILINE,
        )
        # the last words: "yes, but actually no"
        self._instead = re.compile(
            rf"(?:\A|[.!?,;:\n\u2014-]\s*|\bbut\s+)(?i:{_WAIT})[\W_]{{0,3}}(?:{one}|(?P<word>(?i:{long})))[\W_]{{0,6}}\Z"
        )
        self._denied = re.compile(
            rf"(?:(?<!\w)(?:{own}{_DENIED_BEFORE}){_BETWEEN}\s+|(?:{_DENIED_BEFORE_UNSPACED})\s*)\W{{0,2}}$"
        )

    def exactly(self, text: str) -> str | None:
        """The label that ``text`` equals, or is a synonym of."""
        return self.owner.get(text) or self.owner.get(text.casefold()) or self.owner.get(folded(text))

    def stated(self, text: str) -> str | None:
        """The label in the last statement of the response; without one, the only label that it does not deny.

        Returns:
            None if there is none, several are offered ("A or B"), or something else is stated.
        """
        text = untagged(text)
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        lower = text.lower()  # most answers have none of these words, which are found faster than a pattern
        if any(map(lower.__contains__, _AFTERTHOUGHTS)):
            last_words = self._instead.search(text[-_LAST_WORDS:])
            if last_words and last_words["word"]:
                return self.exactly(last_words["word"])
        # "The answer is no, that is wrong" takes nothing back, but where the labels are letters
        text = standing(text) if self._are_letters else without_denied_boxes(text)
        if any(map(lower.__contains__, _REFUSALS)):
            text = _NOT_CHOSEN.sub(" ", text)
        if (boxed := boxed_in(text)) and not boxed[-1][1].strip():
            return None  # cut off
        announced = _announced(text, boxed)
        last = max(announced) if announced else None  # what stands before it does not count
        if last is None and len(text) < _LONGEST_STATEMENT and (label := self.exactly(_without_latex(text))):
            return label
        candidates = [] if last is None else [last]
        if last is None or len(last.fragment) >= _SHORTEST_SENTENCE or text[last.end :].strip(" .*"):
            candidates = sorted([*candidates, *self._unannounced(text, last.start if last else 0)], reverse=True)
        for candidate in candidates:
            verdict = self._verdict(candidate.fragment, strong=candidate.strong)
            if verdict is not _UNSTATED:
                return verdict if isinstance(verdict, str) and self._is_final(verdict, candidate, text) else None
            if candidate.strong and folded(candidate.fragment):
                rest = text[candidate.end :]
                return (self._only(rest) or self._last(rest)) if rest.strip() else None
        return self._mentioned(text)

    def _is_final(self, label: str, candidate: _Candidate, text: str) -> bool:
        """Whether the text continues without offering another label or denying all."""
        if not candidate.strong and _NO_OPTION.search(text, candidate.start):
            return False
        if len(text) - candidate.end < _SHORTEST_ADDITION:
            return True
        more = self._added.match(text, candidate.end)
        return more is None or self.owner[_fold(more["other"])] == label

    def _mentioned(self, text: str) -> str | None:
        """The label of a text that states none."""
        labelled = [label for value in _LABELLED.findall(text) if (label := self.exactly(value))]
        if labelled:
            return labelled[-1]
        if _NO_OPTION.search(text):
            return None
        text = _ITEM.sub("", text) if len(_list_letters(text)) > 1 else text  # list markers are not mentions
        return self._only(text) or self._last(text)

    def _unannounced(self, text: str, since: int) -> Iterator[_Candidate]:
        """Statements that are not announced as the answer."""
        lists = len(_list_letters(text)) > 1
        for match in self._weak.finditer(text, since):
            if lists and match.lastgroup in ("first", "item"):
                continue
            group = match.lastgroup or "first"
            start = match.start(group)
            before = text[max(0, start - _WINDOW) : start]
            if _QUESTION_MARK.match(text, match.end(group)):
                continue
            if self._denied.search(_fold(before)) or _BECAUSE.search(text, max(0, match.start() - 12), match.start()):
                continue
            if group == "right" and (other := _LETTER_BEFORE.search(before)) is not None:
                yield _Candidate(match.start(), f"{other[1]} or {match['right'][0]}", strong=False, end=match.end())
                continue
            alone = group in ("word", "line")
            sentence = match[group] if alone else _SENTENCE_END.split(text[start:], maxsplit=1)[0]
            yield _Candidate(match.start(), sentence, strong=False, end=start + len(sentence))
        for match in _LABELLED.finditer(text, since) if ":" in text or "：" in text else ():
            if self.exactly(match[1]):
                yield _Candidate(match.start(), match[1], strong=False, end=match.end())

    def _verdict(self, fragment: str, *, strong: bool) -> object:
        """The label that a fragment states; None if it offers several or says that none fits; else _UNSTATED."""
        text = _without_latex(fragment)
        if (label := self.exactly(text) or self._opening(text)) is not None:
            return label
        if (letter := self._leading_letter(text)) is not None:
            label, rest = letter
            return None if label is None or self._is_offered(label, rest) else label
        clause = _CLAUSE.split(text, maxsplit=1)[0]
        found = set(self._mentions(clause)) or set(self._mentions(text))
        if len(found) == 1:
            return found.pop()
        if found or (strong and _NONE.match(text)):
            return None
        return _UNSTATED if not strong or _LEAD_IN.match(text) or not self._denied.search(_fold(text) + " ") else None

    def _opening(self, text: str) -> str | None:
        """The only label word at the start of a statement: "Yes, there is no doubt"."""
        first = self._weak.match(text)
        if first is None or first.lastgroup != "word" or self._added.match(text, first.end()):
            return None
        return self.exactly(first["word"])

    def _leading_letter(self, text: str) -> tuple[str | None, str] | None:
        """The leading label and the rest; the label is None if denied. None without a leading letter."""
        match = self._leading.match(text)
        if match is None:
            return None
        letter, rest = match[1], text[match.end() :]
        bracketed = text[match.start(1) - 1 : match.start(1)] in ("(", "[", "*", '"', "'")
        if not bracketed and (_WORD_NEXT if letter.islower() else _NOUN_NEXT).match(rest) and letter in "aIA":
            return None  # an article, a pronoun
        return (None if _DENIED_AFTER.match(rest) else self.owner[_fold(letter)]), rest

    def _is_offered(self, label: str, rest: str) -> bool:
        """Whether another letter is offered besides the leading one."""
        if (adjacent := self._adjacent.match(rest)) is not None and self.owner[_fold(adjacent[1])] != label:
            return True
        end = 0
        while (match := self._offered.match(rest, end)) is not None:
            end = match.end()
            other = self.owner[_fold(match[1])] != label
            if other and not re.match(r"[\W_]*\s+(?!or\b|and\b|are\b)[a-zA-Z]{2}|['’]", rest[end:]):
                return True
        return False

    def _only(self, text: str) -> str | None:
        """The one label that the text mentions without denying it."""
        found = set(self._mentions(text))
        return found.pop() if len(found) == 1 else None

    def _last(self, text: str) -> str | None:
        """The label of the last sentence that mentions one."""
        for sentence in reversed(_SENTENCES.split(text)):
            if any(self._mentions(sentence)):
                clauses = (sentence, _BUT.split(sentence)[-1], _DESPITE.split(sentence, maxsplit=1)[0])
                return next(filter(None, map(self._only, clauses)), None)
        return None

    def _mentions(self, text: str) -> Iterator[str]:
        text = _fold(text)
        for match in self._mention.finditer(text):
            group = match.lastindex or 0
            start, end = match.span(group)
            denied = self._denied.search(text[max(0, start - _WINDOW) : start]) or _DENIED_AFTER.match(text, end)
            if not denied and not _QUESTION_MARK.match(text, end):
                yield self.owner[match[group]]


def _without_latex(text: str) -> str:
    return _LATEX.sub(lambda match: match[1] or " ", text) if "\\" in text or "$" in text else text


def _announced(text: str, boxed: Sequence[tuple[int, str, int]]) -> list[_Candidate]:
    """Content of boxes, of ``####`` lines, or after phrases such as "the answer is"."""
    found = [_Candidate(start, inside, strong=True, end=end) for start, inside, end in boxed]
    if found:
        found[-1] = found[-1]._replace(fragment=boxes(text, boxed) or "")  # with those that it is joined to
    if (line := hash_line(text)) is not None:
        found.append(_Candidate(line[0], line[1], strong=True, end=len(text)))
    for match in phrases(text):
        rest = text[match.end() :].lstrip()
        stop = _SENTENCE_END.search(rest)
        fragment = rest if stop is None else rest[: stop.start()]
        end = len(text) - len(rest) + len(fragment)
        if text[end : end + 1] == "?":
            fragment = "none"  # a question
        if "box" not in fragment:
            found.append(_Candidate(match.start(), fragment, strong=True, end=end))
    return found


def _list_letters(text: str) -> set[str]:
    """Letters that start a line, as in a list of parts or options."""
    return {letter.casefold() for letter in _ITEM.findall(text)}


def _is_short(word: str) -> bool:
    return len(word) == 1 and word.isascii()


def _alone(word: str) -> str:
    """A pattern, with one group, of the word as a separate word."""
    term = f"({re.escape(word)})"
    if _is_short(word):  # "a" is also an article: it must be set apart
        return (
            rf"[(\[]\s*{term}\s*[)\]]|(?:option|choice|answer|label|letter|opción|opção|letra|lettre|alternativa|buchstabe|вариант|选项|選項|答案)\s*(?<!\w(?=\w)){term}(?!\w)"
            rf"|\A\W*{term}(?=[.):,](?!\d)|\W*\Z)|^(?:[^\w\n]|_)*{term}(?:[^\w\n]|_)*$"
            rf"|(?:leaving|leaves|only|but|sondern|sino|out|eliminates?|excludes?|not)\s+{term}(?!\w)"
            rf"|(?<!\w){term}(?=\sis\s(?:correct|right|the answer))"
        )
    if re.search(f"[{_HANGUL}]", word):  # particles follow the word
        return f"(?<![{_HANGUL}]){term}"
    if word.isascii():  # words of another script may follow without a space
        return rf"(?<![a-z0-9_\u00c0-\u024f])(?<!non-){term}(?![a-z0-9_\u00c0-\u024f])"
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
        labels = dict.fromkeys(string.ascii_uppercase, ()) if self.labels is None else _labels(self.labels)
        return LabelWords({label: (label, *synonyms) for label, synonyms in labels.items()}, self.negations)

    def reference(self, row: Row) -> str:
        return " | ".join(self._expected(row))

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        expected = self._expected(row)
        free = self.labels is None and any(self._terms.exactly(text) is None for text in expected)
        if free:
            return tuple(_free(text, expected) for text in responses)
        stated = [self._terms.stated(text) for text in responses]
        return tuple(Answer(expected[0] if one in expected else one, one or "", one in expected) for one in stated)

    def _expected(self, row: Row) -> tuple[str, ...]:
        """The reference's label, or each of a list of them."""
        return tuple(map(self._known, reference_values(row, self.reference_column)))

    def _known(self, value: object) -> str:
        text = str(value).strip()
        label = self._terms.exactly(text)
        if label is not None:
            return label
        if self.labels is not None:
            raise SuiteError(f"the reference {text!r:.60} is none of the labels: {', '.join(_labels(self.labels))}")
        if not folded(text):
            raise SuiteError("the reference is an empty text")
        return text


def _free(text: str, expected: Sequence[str]) -> Answer:
    """The marked answer of a response, or all of a short one, if labels are unknown."""
    text = untagged(text)
    stated = (answer_in(text, ("boxed", "hash", "phrase")) or text).strip()
    if not folded(stated) or "\n" in stated or len(stated) > _LONGEST_STATEMENT:
        return Answer(None, "", correct=False)
    stated = stated.strip(" .*`\"'")
    correct = folded(stated) in map(folded, expected)
    return Answer(folded(expected[0] if correct else stated), stated, correct)


_MOST_LABELS = 10_000


def _labels(raw: Any) -> dict[str, tuple[str, ...]]:
    """Label to synonyms, checked: no empty label, no synonym of two labels."""
    if isinstance(raw, str) or not isinstance(raw, (Mapping, Sequence)) or len(raw) < 2:
        raise SuiteError(
            f"labels={raw!r:.80}; expected a list of two or more labels, or a mapping of label to synonyms"
        )
    if len(raw) > _MOST_LABELS:  # one expression searches for all of them
        raise SuiteError(f"labels: {len(raw):,}, more than the limit of {_MOST_LABELS:,}")
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
