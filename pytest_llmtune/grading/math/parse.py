"""Parse an answer: atoms, lists, sets, tuples and intervals, from LaTeX or plain text."""

from __future__ import annotations

import re

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.grading.numbers import SCALED, ascii_numerals, find
from pytest_llmtune.grading.values import Value, constant, value_key

_TEXT_NAMES = r"text|textbf|textit|textrm|textsf|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname|rm|bf"
_WRAPPED = lazy_regex(rf"\\(?:{_TEXT_NAMES})\s*\{{([^{{}}]*)\}}")
_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (lazy_regex(pattern), replacement)
    for pattern, replacement in (
        (r"\{([^{}]*?)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"^([^{}]*?)\\over(?![a-zA-Z])([^{}]*)$", r"\\frac{\1}{\2}"),
        (r"(?<!\\)\\\\(?=[a-zA-Z]{2})", r"\\"),  # doubled by a careless escape
        (r",\s*\\!\s*|\s*\{\s*,\s*\}\s*|,\\,(?=\d{3}(?!\d))", ","),  # thousands: 1,\!000 and 1{,}000
        (r"\\[td]frac(?![a-zA-Z])|\\cfrac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])|\\!", ""),
        (r"\\q?quad|(?<!\\)\\[,;:> ]|~|[\s\u00a0\u2009\u202f]+", " "),
        (r"(?:°|\^\s*\{?\s*\\circ\s*\}?)\s*(?=[CF](?![a-zA-Z]))", " "),
        (r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-zA-Z])", ""),
        (r"\\\$|[$€£¥₩₹¢]", ""),
        (r"\\%|％", "%"),
        (r"(?<![\\a-zA-Z])infinity(?![a-zA-Z])", r"\\infty "),
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
_PERCENT = lazy_regex(r"\s*(?:%|\b(?:percent(?:age)?(?: points?)?|pct)\b\.?)\s*$", re.IGNORECASE)
_SHORT_UNITS = (
    r"mm|cm|dm|km|nm|um|[μµ]m|ft|in|yd|mi|mg|kg|lbs?|oz|m[lL]|c[lL]|d[lL]|hrs?|min|sec|ms|ns|[kMG]W|[km]V|mA|[kM]J|[kMG]?eV|[kMG]?Hz|[kM]?Pa|"
    r"atm|bar|mol|rad|sr|deg|mph|k[mp]h|rpm|cc|pt|qt|gal|USD|EUR|GBP|KRW|JPY|CNY|RMB|INR|Nm|[kKMGT]B|AU|ly|k?cal|hp|psi|bu|dz|"
    r"cents?|sq|pcs?|°[CF]"
)
_LONE_UNITS = r"[mgshLWVJNKCFA]"
_NO_UNITS = (
    r"ln|log|lg|exp|sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|arc\w+|sqrt|mod|base|pi|theta|alpha|beta|infinity|inf|"
    r"and|or|not|nor|but|than|never|none|to|times|over|plus|minus|divided|where|if|for|when|choose|(?!days?\b)[abcdxyz]+"
)
_WORD_UNIT = (
    rf"(?:(?:{_SHORT_UNITS})(?![^\W\d_])|(?!(?:{_NO_UNITS})(?![^\W\d_]))[^\W\d_]{{3,}}\.?|\\(?:Omega|mu|AA|ohm)(?![a-zA-Z])\s*[a-zA-Z]{{0,2}}|"
    r"(?:sq|cu|fl)\.)"
)
_FOREIGN_UNIT = r"(?!또는|그리고|이거나|或|和|及|と|か|进|進)[^\W\d_\x00-\x7f\u0370-\u03bb\u03bd-\u03ff]+"
_LINK = (
    r"(?:\s*(?:/|·|\\cdot(?![a-zA-Z])|\*|-)\s*|\s+(?:(?:of|per|in|an?|each|every|the|by|on)\s+)*|(?<=[^\W\d_])per\s+)"
)
_UNIT_EXPONENT = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))"
_NEXT_UNIT = rf"(?:{_WORD_UNIT}|[mgshtLWVJNKCFA](?![^\W\d_])|{_FOREIGN_UNIT}|each|apiece|total|altogether)"
_UNIT = lazy_regex(
    rf"^(.*?[\d}})!]|.*?(?:\\pi|π|(?<=\d)e))(?:\s*(?:{_FOREIGN_UNIT}|(?:{_SHORT_UNITS})(?![^\W\d_])|(?<=\d)(?!(?:{_NO_UNITS})(?![^\W\d_]))[^\W\d_]{{4,}}|\\Omega)"
    rf"|\s+(?:per\s+|an?\s+)?(?:{_WORD_UNIT}|{_LONE_UNITS}(?![^\W\d_])))"
    rf"(?:{_UNIT_EXPONENT}|{_LINK}{_NEXT_UNIT})*+\s*\.?$"  # possessive: "per" is a link and a unit
)
_ENDS_IN_UNIT = lazy_regex(r"[^\W\d_]\s*(?:\^\s*(?:\{\s*-?\d\s*\}|-?\d)|\.)?\s*$")
_PREFIX = lazy_regex(
    r"^(?:(?:\\(?:approx|simeq|sim|thickapprox)(?![a-zA-Z])|[≈≒]|(?:approximately|approx\.?|about|around|roughly|nearly|only|just)\s|약|约|約)\s*)+"
)
_CURRENCY_STARTS = frozenset("UEGICRJKANHS")
_CURRENCY = lazy_regex(
    r"^(?:(?:USD|EUR|GBP|INR|CNY|RMB|JPY|KRW|Rs\.?)\s*|(?:US|CA|AU|NZ|HK|NT|SG)(?=[-\d]))(?=[-+\d.])"
)
_SINGLE_BRACES = lazy_regex(r"([_^])\{(\w)\}")
_PLAIN_NUMBER = lazy_regex(r"-?\d+(?:[.,/]\d+)*", re.ASCII)
_ASCII = str.maketrans(
    {"×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "√": r"\sqrt ", "，": ",", "（": "(", "）": ")"}
)


def clean(text: str) -> str:
    """Remove layout commands, currency signs and degrees, unwrap ``\\text{}``, and collapse spaces."""
    if _PLAIN_NUMBER.fullmatch(text):
        return text
    text = ascii_numerals(text).translate(_ASCII)
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    text = _WRAPPED.sub(r" \1 ", text)
    text = re.sub(r" {2,}", " ", text).strip().rstrip(".;,:").strip()
    while len(text) > 1 and text[0] == "{" and _closing(text) == len(text) - 1:
        text = text[1:-1].strip()
    text = _PREFIX.sub("", text)
    return _CURRENCY.sub("", text) if text[:1] in _CURRENCY_STARTS else text


def _closing(text: str) -> int:
    """Position at which the bracket at 0 closes; -1 if it does not."""
    depth = 0
    for position, char in enumerate(text):
        if position and text[position - 1] == "\\" and char in "{}":
            continue
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if not depth:
                return position
    return -1


_WORD_ANSWERS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, lazy_regex(pattern, re.IGNORECASE))
    for name, pattern in (
        (
            "no solution",
            r"(?:there (?:is|are) |the (?:equation|system) has |it has )?no (?:real )?(?:solutions?|roots?)(?: exists?)?|"
            r"none|[∅ø]|\\(?:emptyset|varnothing)|"
            r"\\\{ ?\\\}|\{ ?\}|(?:the )?(?:empty|null) set|(?:the system is )?inconsistent(?: system)?|"
            r"(?:方程)?(?:没有|沒有|无|無)(?:实数|實數|实|實)?解|解(?:は)?なし|解[はが](?:ない|存在しない|ありません)|"
            r"(?:실수 ?)?(?:해|근)[가는]? ?(?:없(?:다|음|습니다)|존재하지 않(?:는다|음|습니다))|"
            r"keine (?:reellen? )?lösung(?:en)?|(?:aucune|pas de) solution(?: réelle)?|"
            r"(?:sin|no (?:hay|tiene)) soluci[óo]n(?:es)?(?: real(?:es)?)?|"
            r"(?:sem|não (?:há|tem)) solu(?:ção|ções)(?: rea(?:l|is))?|nessuna soluzione(?: reale)?|"
            r"(?:действительных )?решений нет|нет (?:действительных )?решений|"
            r"geen (?:reële )?oplossing(?:en)?|لا يوجد حل|لا توجد حلول",
        ),
        (
            "all real numbers",
            r"(?:x ?\\in ?|x ?∈ ?)?(?:\\mathbb ?\{? ?R ?\}?|\\Bbb ?\{? ?R ?\}?|\\Re|ℝ|"
            r"(?:the set of )?(?:all|every) real numbers?|(?:the )?real numbers|all reals?)|"
            r"\( ?- ?\\infty ?, ?\+? ?\\infty ?\)|"
            r"(?:全体|所有|一切)(?:实数|實數)|すべての実数|全ての実数|모든 실수|alle reellen zahlen|tous les (?:nombres )?réels|"
            r"todos l?os (?:números )?rea(?:les|is)|все действительные числа|tutti i numeri reali|جميع الأعداد الحقيقية",
        ),
        (
            "does not exist",
            r"(?:the limit |it )?does ?n[o'’]t exist|DNE|undefined|not defined|(?:it |the slope )is undefined|"
            r"(?:极限)?不存在|存在しない|존재하지 않(?:는다|음|습니다)|existiert nicht|n['’]existe pas|n[oã]o? existe|не существует",
        ),
        ("infinitely many", r"(?:there are )?infinitely many(?: solutions)?|infinite(?:ly many| number of)? solutions"),
        ("diverges", r"(?:it |the (?:series|integral|sequence) )?(?:diverges?|(?:is )?divergent)"),
        ("converges", r"(?:it |the (?:series|integral|sequence) )?(?:converges?|(?:is )?convergent)"),
    )
)
_MAY_BE_WORDS = lazy_regex(r"[a-zA-Z]{3}|[∅øℝ]|[^\W\d_\x00-\x7f]{2}|\\Re|^\\?\{|infty")


def word_answer(text: str) -> str | None:
    r"""The one spelling of an answer in words that data sets hold: "no solution" for ``\emptyset``; None for others."""
    if not _MAY_BE_WORDS.search(text) or len(text) > 80:
        return None
    return next((name for name, pattern in _WORD_ANSWERS if pattern.fullmatch(text)), None)


def without_unit(text: str) -> tuple[str, bool]:
    """A number without its unit, and whether it is a percentage: ``12 cm^2`` is 12, ``28 percent`` 28."""
    percent = _PERCENT.search(text)
    if percent:
        return text[: percent.start()].strip(), True
    if not _ENDS_IN_UNIT.search(text):
        return text, False
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


_DEEPEST = 6
_LETTER = r"(?:[a-zA-Z]|\\(?!frac|sqrt|pm|infty)[a-zA-Z]+)"
_SUBSCRIPT = r"(?:\s*_\s*(?:\{\s*\\?\w+\s*\}|\w))?"
_NAME = lazy_regex(
    rf"(?:\\Delta\s*)?{_LETTER}{_SUBSCRIPT}'*"  # x, \Delta x, x_1
    rf"(?:\s*\(\s*(?:{_LETTER}|-?\d+)(?:\s*,\s*(?:{_LETTER}|-?\d+))*\s*\))?|"  # f(x), f(2), f(x, y)
    rf"\|?[A-Z]{{2,3}}\|?|"  # AB, |AB|
    rf"\(\s*{_LETTER}(?:\s*,\s*{_LETTER}){{1,3}}\s*\)|"  # (x, y)
    rf"[A-Z]{_SUBSCRIPT}\s*:\s*[A-Z]{_SUBSCRIPT}"  # A : B
)
_MEMBER = lazy_regex(r"[a-zA-Z]\s*\\in(?![a-zA-Z])\s*")
_RELATION = lazy_regex(r"(?<![<>!=\\])=(?!=)")
_AND = lazy_regex(r"(?<![a-zA-Z\\])(?:and|or|그리고|또는)(?![a-zA-Z])|(?<=[\d)\]}])(?:and|or)(?=[a-zA-Z])")
_GROUPED = lazy_regex(
    r"[-+]?\s?[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?|[-+]?\s?\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"
)
_THOUSANDS = lazy_regex(r"(?<=\d),(?=\d{3}(?!\d))")


_WORDS_OF_BASES = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_BASES = {word: str(base) for base, word in enumerate(_WORDS_OF_BASES.split(), 2)}
_BASE = rf"([1-9]\d?|{'|'.join(_BASES)})"
_BASED = lazy_regex(
    rf"(?=[^_(]*\d|[A-Z]{{2}})([\dA-Fa-f]+)\s*(?:_\s*\{{?\s*(?:base\s*)?{_BASE}\s*\}}?|,?\s*\(?\s*(?:in\s+)?base\s*{_BASE}\s*\)?)",
    re.IGNORECASE,
)
"""``2516_8``, ``10 base 3``: a numeral in another base, which differs from the decimal number."""
_IN_BRACKETS = lazy_regex(r"^\(\s*(\w+)\s*\)(?=\s*_)")  # (1011)_2
_MATRIX = lazy_regex(
    r"[(\[]?\s*\\begin\s*\{(?:[pbBvV]?matrix|smallmatrix|array)\}\s*(?:\{[^{}]*\})?(.*?)\\end\s*\{\w+\}\s*[)\]]?",
    re.DOTALL,
)
_POINT = lazy_regex(r"([A-Z])\s*(?=\(.*,.*\)$)")


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A parsed answer."""

    text: str
    """The cleaned text, for display."""
    kind: str
    """``atom``; ``list``: in order; ``set``: in any order; or a pair of brackets such as ``(]``: a tuple or an interval."""
    items: tuple[ParsedAnswer, ...] = ()
    value: Value | None = None
    """The value of a constant atom."""
    percent: bool = False
    name: str = ""
    """The name of the value: the x of ``x = 5``."""

    @property
    def key(self) -> str:
        """Answers with equal keys are equal, but equal answers may have different keys."""
        if self.kind == "atom":
            return value_key(self.value) if self.value is not None else squeeze(self.text)
        keys = [item.key for item in self.items]
        if self.kind == "set":
            return "{" + " | ".join(sorted(set(keys))) + "}"
        ends = "()" if self.kind == "list" else self.kind
        return ends[0] + " | ".join(keys) + ends[1]

    @property
    def is_constant(self) -> bool:
        """Whether every part was parsed as a number, so that a difference is final."""
        return self.value is not None if self.kind == "atom" else all(item.is_constant for item in self.items)


def parse(text: str) -> ParsedAnswer:
    """Parse an answer; anything not understood is an atom without a value."""
    cleaned = clean(text)
    words = word_answer(cleaned)
    return ParsedAnswer(words, "atom") if words else _form(cleaned, _DEEPEST)


def _form(text: str, depth: int) -> ParsedAnswer:
    text = _MEMBER.sub("", text, count=1) if _MEMBER.match(text) else text
    if depth and (matrix := _matrix(text, depth - 1)) is not None:
        return matrix
    if depth and not _GROUPED.fullmatch(text):
        parts, any_order = _parts(text)
        if len(parts) > 1:
            return _list(text, [_form(part, depth - 1) for part in parts], any_order=any_order)
        for read in (_named, _point, _either, _bracketed, _union):
            form = read(text, depth - 1)
            if form is not None:
                return form
    return _atom(text)


def _matrix(text: str, depth: int) -> ParsedAnswer | None:
    """A matrix, row by row."""
    if "\\begin" not in text or (match := _MATRIX.fullmatch(text)) is None:
        return None
    rows = [row for row in re.split(r"\\\\(?:\s*\[[^\]]*\])?|\\cr(?![a-zA-Z])", match[1]) if row.strip()]
    read = tuple(ParsedAnswer(row, "&&", tuple(_form(cell.strip(), depth) for cell in row.split("&"))) for row in rows)
    return ParsedAnswer(text, "||", read)


def _atom(text: str) -> ParsedAnswer:
    if (based := _BASED.fullmatch(_IN_BRACKETS.sub(r"\1", text, count=1))) is not None:
        base = _BASES.get((based[2] or based[3]).lower()) or (based[2] or based[3])
        value = constant(based[1]) if base == "10" else None
        return ParsedAnswer(f"{based[1].upper()}_{base}", "atom", value=value)
    if SCALED.search(text):  # 5 million, 3万円
        thin, found = find(text)
        rest = thin[found[-1].end :] if found else ""
        alone = len(found) == 1 and not thin[: found[0].start].strip()
        only_unit = not rest.strip() or without_unit(f"1{rest}")[0] == "1"
        return ParsedAnswer(text, "atom", value=found[0].value if alone and only_unit else None)
    bare, percent = without_unit(text)
    value = constant(bare.replace(" ", "") if _GROUPED.fullmatch(bare) else bare)
    return ParsedAnswer(text, "atom", value=None if bare == "e" else value, percent=percent)


def _list(text: str, items: list[ParsedAnswer], *, any_order: bool) -> ParsedAnswer:
    """Solutions are unordered: points, and parts joined by "and" or named; bare comma-separated numbers are ordered."""
    names = {item.name for item in items if item.name}
    if (
        any_order
        and len(names) < 2
        and items[0].value is not None
        and all(item.value == items[0].value for item in items)
    ):
        return items[-1]  # one value, written in several ways
    points = all(len(item.items) > 1 and item.kind != "list" for item in items)
    return ParsedAnswer(text, "set" if any_order or points or len(names) == 1 else "list", tuple(items))


def _named(text: str, depth: int) -> ParsedAnswer | None:
    r"""``x = 5``, also after a chain (``x = 2+3 = 5``) and before an approximation (``x = 1/3 \approx 0.33``)."""
    exact, _, rough = text.partition(r"\approx") if "\\approx" in text else (text, "", "")
    if rough and _NAME.fullmatch(exact.strip()):
        return replace(_form(rough.strip(), depth), name=squeeze(exact.strip()))
    if rough:
        return _form(exact.strip(), depth)
    name, *chain = _RELATION.split(text)
    if not chain:
        return None
    if _NAME.fullmatch(name.strip()):
        return replace(_form(chain[-1].strip(), depth), name=squeeze(name.strip()))
    last = _atom(chain[-1].strip())  # of 2 + 3 = 5 apples
    return last if last.value is not None and constant(name.strip()) == last.value else None


def _point(text: str, depth: int) -> ParsedAnswer | None:
    """``A(1, 2)``, a named point."""
    match = _POINT.match(text)
    point = _bracketed(text[match.end() :], depth) if match else None
    return replace(point, name=match[1]) if match and point and point.is_constant else None


def _either(text: str, _depth: int) -> ParsedAnswer | None:
    r"""``1 \pm 2`` is the set of 3 and -1."""
    if text.count(r"\pm") != 1 or _parts(text)[0] != [text]:
        return None
    both = [_atom(text.replace(r"\pm", sign)) for sign in "+-"]
    if any(one.value is None for one in both):
        return None
    return ParsedAnswer(text, "set", tuple(both))


def _bracketed(text: str, depth: int) -> ParsedAnswer | None:
    r"""``(1, 2)``, ``[0, 1)``, ``\{1, 2\}``; brackets around one thing are nothing, braces and square ones apart."""
    inside, ends = text[1:-1], text[:1] + text[-1:]
    if text.startswith(r"\{") and text.endswith(r"\}"):
        inside, ends = text[2:-2], "{}"
    elif ends[:1] not in ("(", "[") or ends[1:] not in (")", "]"):
        return None
    if not _balanced(inside):
        return None
    items = tuple(_form(part, depth) for part in _parts(inside)[0])
    if ends == "{}":
        return ParsedAnswer(text, "set", items[0].items if len(items) == 1 and items[0].kind == "set" else items)
    if len(items) == 1:
        return items[0] if ends == "()" else None
    return ParsedAnswer(text, ends, items)


def _union(text: str, depth: int) -> ParsedAnswer | None:
    parts = [part.strip() for part in re.split(r"\\cup(?![a-zA-Z])", text)]
    if len(parts) < 2 or not all(_balanced(part) for part in parts):
        return None
    return ParsedAnswer(text, "set", tuple(_form(part, depth) for part in parts))


def _parts(text: str) -> tuple[list[str], bool]:
    """Split at the outermost semicolons, else at commas and the word "and"; and whether that word was there."""
    semicolons: list[tuple[int, int]] = []
    commas: list[tuple[int, int]] = []
    words: list[tuple[int, int]] = []
    depth = 0
    for position, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and char in ";,":
            (semicolons if char == ";" else commas).append((position, position + 1))
        elif depth == 0 and char in "ao그또" and (word := _AND.match(text, position)):
            words.append(word.span())
    if semicolons:
        return _cut(text, semicolons), False
    if len(words) + len(commas) > 1 and any(text[end : end + 1] == " " for _, end in commas):
        commas = [span for span in commas if not _THOUSANDS.match(text, span[0])]
    return _cut(text, sorted(commas + words)), bool(words)


def _cut(text: str, spans: list[tuple[int, int]]) -> list[str]:
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(text)]
    parts = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    return [part for part in parts if part]


def _balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return False
    return depth == 0
