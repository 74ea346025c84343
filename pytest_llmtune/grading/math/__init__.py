"""The ``math`` grader: compares the final answer mathematically with the reference."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_llmtune._dataclass import dataclass
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.base import BuiltIn, OtherExtras, reference_value
from pytest_llmtune.grading.math.equality import Algebra, equal, is_installed, is_settled
from pytest_llmtune.grading.math.extract import answer_in, check_forms, is_bare, untagged
from pytest_llmtune.grading.math.parse import ParsedAnswer, clean, parse, word_answer
from pytest_llmtune.grading.math.retracted import standing
from pytest_llmtune.grading.workers import off_thread
from pytest_llmtune.types import Answer, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Math"]


_NUMPY = lazy_regex(r"(?<![\w\\.])(?:np|numpy|math)\.(?=[a-z]+\s*\()")  # Minerva: np.arcsin(10/13)
_REFERENCE_FORMS = ("boxed", "hash", "phrase")


@dataclass(frozen=True, kw_only=True)
class Math(BuiltIn):
    """Compares in tiers: the MATH benchmark's string normalisation, numbers and structure, then math-verify.

    The last tier needs the extra `math`, runs in worker processes, and is used only if the others cannot decide.
    """

    extract: Sequence[str] = ("boxed", "hash", "phrase", "short")
    """Where to look for answers: boxed, hash, phrase, short, last."""
    symbolic: bool | None = None
    """Whether to use math-verify; None: if installed."""
    time_limit: float = 5.0
    """Seconds for math-verify per answer; after that the answer is wrong."""

    kind: ClassVar[str] = "math"
    # whether `symbolic` was not set; not a field, because it is not an option
    _as_installed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "extract", check_forms(self.extract))
        if self.symbolic and not is_installed():
            raise SuiteError("symbolic=True needs math-verify: pip install 'pytest-llmtune[math]'")
        if self.symbolic is None:  # decided now, because the fingerprint depends on it
            object.__setattr__(self, "symbolic", is_installed())
            object.__setattr__(self, "_as_installed", True)
        if isinstance(self.time_limit, bool) or not isinstance(self.time_limit, (int, float)) or self.time_limit <= 0:
            raise SuiteError(f"time_limit={self.time_limit!r}; expected seconds, more than 0")

    @property
    def with_other_extras(self) -> OtherExtras | None:
        if not self._as_installed:
            return None
        why = "without the extra `math`, which is installed here; to leave it out everywhere: {math: {symbolic: false}}"
        if not self.symbolic:
            why = 'with the extra `math`, which is not installed here: pip install "pytest-llmtune[math]"'
        return OtherExtras(self._fingerprint(symbolic=not self.symbolic), f"the baseline was graded {why}")

    @cached_property
    def _algebra(self) -> Algebra:
        return Algebra(self.time_limit)

    def reference(self, row: Row) -> str:
        return _read(self._reference(row)).text

    def read_answers(self, responses: Sequence[str], row: Row) -> tuple[Answer, ...]:
        reference = self._reference(row)
        return tuple(self._answer(_found(text, self.extract), reference) for text in responses)

    async def aanswers(self, responses: Sequence[str], row: Row, ask: Any) -> tuple[Answer, ...]:  # noqa: ARG002
        reference = self._reference(row)
        found = (_found(text, self.extract) for text in responses)
        undecided = (answer and not any(_compared(reference, answer)) for answer in found)
        if self._waits(responses) or (self.symbolic and any(undecided)):
            return await off_thread(self.answers, responses, row)
        return self.answers(responses, row)

    def _reference(self, row: Row) -> str:
        text = _NUMPY.sub(r"\\", str(reference_value(row, self.reference_column)).strip())
        found = answer_in(text, _REFERENCE_FORMS) or (text if is_bare(text) or word_answer(clean(text)) else None)
        if found is None or not _read(found).text:
            raise SuiteError(rf"the reference {text!r:.60} holds no \boxed answer, no #### line, and is no formula")
        return found

    def _answer(self, found: str | None, reference: str) -> Answer:
        found = _NUMPY.sub(r"\\", found) if found and "." in found else found
        form = _read(found) if found else None
        if not found or form is None or not form.text:
            return Answer(None, "", correct=False)
        key = _key(found)
        correct, settled = _compared(reference, found)
        if self.symbolic and not correct and not settled:
            finding = self._algebra.compare(_without_name(reference, found), _without_name(found, reference))
            correct, key = finding.equal, finding.key or key
        if correct:
            return Answer(_key(reference), form.text, correct=True)
        # never the reference's key: y = 5 is not x = 5, although both are 5
        return Answer(key if key != _key(reference) else f"{form.name or form.text} = {key}", form.text, correct=False)


@lru_cache(maxsize=64)  # ``aanswers`` reads a row's responses before ``read_answers``
def _found(text: str, forms: tuple[str, ...]) -> str | None:
    return answer_in(standing(untagged(text)), forms)


_DATE = lazy_regex(r"\d{4}([-/])\d{1,2}\1\d{1,2}|\d{1,2}([-/])\d{1,2}\2\d{4}")


@lru_cache(maxsize=50_000)
def _compared(reference: str, answer: str) -> tuple[bool, bool]:
    """Whether they are equal, and otherwise whether that is settled without algebra."""
    one, other = _read(reference), _read(answer)
    if _DATE.fullmatch(one.text) or _DATE.fullmatch(other.text):  # 2024-01-05 is not 2018
        return one.text == other.text, one.text != other.text
    correct = equal(one, other)
    return correct, not correct and is_settled(one, other)


def _without_name(text: str, other: str) -> str:
    r"""The text, without its name where the other is no equation: ``I_{\max} = 5 a`` beside ``5 a``."""
    form = _read(text)
    return form.text if form.name and form.kind == "atom" and "=" not in other else text


@lru_cache(maxsize=50_000)
def _key(text: str) -> str:
    return _read(text).key


@lru_cache(maxsize=50_000)
def _read(text: str) -> ParsedAnswer:
    return parse(text)
