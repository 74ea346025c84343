"""The `math` grader: where answers stand, when they are equal, and how equal ones vote."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graders import math

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.math import Math

ROW = {"answer": "18"}


def right(reference: str, response: str, **options: object) -> bool:
    return math(**options).grade([response], {"answer": reference}).metrics["success_vote"] == 1


NOTHING = (
    "无解 | 無解 | 方程无实数解 | 解なし | 解はない | 해가 없다 | 해 없음 | keine Lösung | aucune solution | pas de solution | sin solución | "
    "no hay solución | sem solução | nessuna soluzione | нет решений | no real solutions"
)


@pytest.mark.parametrize(
    "response",
    [
        r"So \boxed{18}.",
        r"\fbox{18}",
        r"So it is \fbox{18}.",
        "She earns it.\n#### 18",
        "The answer is 18.",
        "18",
        r"\boxed{7}, no: \boxed{18}",
    ],
)
def test_answers_are_found_in_every_form(response: str) -> None:
    r"""``\boxed``, ``\fbox``, ``####``, a phrase, and an answer that is nothing else; the last one counts."""
    assert right("18", response)


@pytest.mark.parametrize(
    ("form", "response"), [("boxed", r"\boxed{18}"), ("hash", "#### 18"), ("phrase", "The answer is 18.")]
)
def test_each_form_can_be_switched_off(form: str, response: str) -> None:
    """With only the other forms allowed the same response holds no answer."""
    others = [name for name in ("boxed", "hash", "phrase") if name != form]
    assert right("18", response, extract=[form])
    assert not right("18", response, extract=others)


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("1,000", "1000"),
        ("0.25", r"\frac{1}{4}"),
        ("0.25", "1/4"),
        (r"\frac12", "0.5"),
        ("50\\%", "50"),
        (r"10\text{ units}", "10"),
        (r"\dfrac{3}{4}", r"\tfrac34"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("x=5", "5"),
        ("(1, 2)", r"\left(1,2\right)"),
        ("p - q", "p-q"),
    ],
)
def test_what_the_ancestor_called_different(reference: str, response: str) -> None:
    """Equal as mathematics, with or without the box around it."""
    assert right(reference, rf"\boxed{{{response}}}")


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("10", "100"),
        ("0.28", "28"),
        ("1,2", "2,1"),
        ("x>5", "x<5"),
        ("[0,1)", "[0,1]"),
        ("3", "-3"),
        ("2", r"\sqrt{2}"),
    ],
)
def test_what_is_not_equal(reference: str, response: str) -> None:
    """Near misses."""
    assert not right(reference, rf"\boxed{{{response}}}")


@pytest.mark.parametrize("response", ["", " ", "I do not know.", r"\boxed{}"])
def test_two_missing_answers_are_never_equal(response: str) -> None:
    """No answer is no success, and a reference without an answer is refused."""
    assert not right("18", response)
    with pytest.raises(SuiteError, match="reference"):
        math().reference({"answer": "words without a formula in them"})


def test_equal_answers_vote_together() -> None:
    """Half, 0.5 and 1/2 are one candidate with three votes, against two for 3."""
    grade = math().grade(
        [r"\boxed{\frac12}", r"\boxed{3}", r"\boxed{0.5}", r"\boxed{3}", r"\boxed{1/2}"], {"answer": "0.5"}
    )
    assert grade.metrics["success_vote"] == 1
    assert [count for _, count in grade.votes] == [3, 2]


@pytest.mark.parametrize("where", ["thread", "event loop"])
def test_math_verify_works_off_the_main_thread_and_under_asyncio(where: str) -> None:
    """Its limit of time is no signal of the main thread's."""
    grader, found = math(symbolic=True), []
    pair = [r"\boxed{\sin^2 x + \cos^2 x + y}"], {"answer": "1 + y"}
    if where == "thread":
        thread = threading.Thread(target=lambda: found.append(grader.grade(*pair)))
        thread.start()
        thread.join()
    else:

        async def grade() -> None:
            found.append(await grader.agrade(*pair, None))

        asyncio.run(grade())
    assert found[0].metrics["success"] == 1


def test_it_is_another_grader_elsewhere_only_where_the_extra_decides() -> None:
    """An option that is set holds on every machine."""
    assert Math(symbolic=False).with_other_extras is None
    other = Math().with_other_extras
    assert other is not None
    assert other.fingerprint != Math().fingerprint


def test_an_answer_that_takes_too_long_is_wrong() -> None:
    """And the next one is graded as ever."""
    grader = Math(symbolic=True, time_limit=2)
    assert (
        grader.grade([r"\boxed{\sum_{n=1}^{99999999} \frac{1}{n^{\pi}}}"], {"answer": r"\zeta(3)"}).metrics["success"]
        == 0
    )
    assert grader.grade([r"\boxed{\sin^2 x + \cos^2 x + y}"], {"answer": "1 + y"}).metrics["success"] == 1


@given(st.integers(-(10**9), 10**9), st.integers(1, 999))
def test_a_number_equals_itself_in_every_spelling(whole: int, part: int) -> None:
    """Thousands separators, trailing zeros, a fraction over 1000; and never its neighbour."""
    decimal = f"{whole}.{part:03d}"
    fraction = rf"\frac{{{abs(whole) * 1000 + part}}}{{1000}}"
    sign = "-" if whole < 0 else ""
    for spelling in (f"{whole:,}.{part:03d}", f"{decimal}00", f"{sign}{fraction}"):
        assert right(decimal, rf"\boxed{{{spelling}}}", symbolic=False)
    assert not right(decimal, rf"\boxed{{{whole}.{part:03d}1}}", symbolic=False)
    assert not right(str(whole), rf"\boxed{{{whole + 1}}}", symbolic=False)


@given(st.text(max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    """Whatever a model says is an answer or none, and an answer equals itself."""
    grader = Math(symbolic=False)
    [answer] = grader.answers([text], ROW)
    assert answer.key is not None or not answer.correct


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(
    ("reference", "response"),
    [
        *(
            (text, text.split()[0])
            for text in (
                "3 x",
                "-4 i",
                "10 xy",
                "6 x^2",
                "5 a b",
                "2 pi",
                "2 ln 3",
                "4 t",
                "7 ab",
                "3 a - b",
                "2 sqrt 2",
                "5 e",
                "2 n + 1",
            )
        ),
        ("3", "3x"),
        ("10 base 3", "10"),
        ("6 or 7", "6"),
        ("2516_8", "2516_9"),
        ("2516_8", "2516"),
        ("1010_2", "1010_3"),
        ("1A_{16}", "1B_{16}"),
        ("x_1", "x_2"),
        ("x = 5", "y = 5"),
        ("x = a + b", "y = a + b"),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
        ("2^{2005}", "2^{2006}"),
        ("5!", "5"),
        (r"0.\overline{3}", "0.3"),
        ("4", r"4\sqrt(2)"),
        ("no solution", "0"),
        ("no solution", r"\text{有两个解}"),
        ("no solution", r"\text{所有实数}"),
        ("no solution", r"\text{eine Lösung}"),
        ("5", r"5 \text{ not}"),
        ("all real numbers", r"(-\infty, 0)"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
        ("A(1,2)", "B(1,2)"),
        ("12:00", "1:00"),
        (r"9:30\text{ a.m.}", r"9:30\text{ p.m.}"),
        ("x y", "x + y"),
        ("FF_{16}", "FE_{16}"),
        ("-3 1/2", "-2.5"),
    ],
)
def test_what_is_not_equal_in_either_tier(reference: str, response: str, symbolic: bool) -> None:
    """A variable is no unit, nor is a base, a name, a factorial, a word."""
    assert not right(reference, rf"\boxed{{{response}}}", symbolic=symbolic)


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(
    ("reference", "response"),
    [
        *(
            ("15", text)
            for text in (
                "15元",
                "15개",
                "15個",
                "１５",
                "15 días",
                "15 km/h",
                "15 m/s^2",
                "15 ft-lb",
                r"15\ \Omega",
                "15 cm²",
                "US$15",
                "¥15",
            )
        ),
        *(
            ("15", text)
            for text in (
                r"15 \, \text{km} \cdot \text{h}^{-1}",
                r"\approx 15",
                "≈15",
                "~15",
                r"15\text{ percent}",
                "15 mph.",
                "15 USD",
                "15 h",
                "15 per day",
                "15µm",
                "₹15",
                "15_{10}",
            )
        ),
        ("10 m", "10"),
        ("1 in", "1 inch"),
        ("4.5e33", r"4.5 \times 10^{33} \, \text{erg/s}"),
        ("12,34,567", "1234567"),
        (r"\infty", r"\text{infinity}"),
        ("-3 1/2", "-3.5"),
        ("6!", "720"),
        ("2500!/2499!", "2500"),
        (r"2\frac12", "2.5"),
        ("2 1/2", r"\frac52"),
        (r"0.\overline{3}", r"\frac13"),
        (r"{4\over7}", r"\frac47"),
        ("2516_8", "2516_{8}"),
        ("10 base 3", "10_3"),
        ("no solution", r"\emptyset"),
        (r"\emptyset", r"\varnothing"),
        *(("no solution", rf"\text{{{words}}}") for words in NOTHING.split(" | ")),
        ("2516_8", "(2516)_8"),
        ("all real numbers", r"\text{所有实数}"),
        ("all real numbers", r"\text{모든 실수}"),
        ("all real numbers", r"\text{alle reellen Zahlen}"),
        ("does not exist", r"\text{不存在}"),
        ("all real numbers", r"\mathbb{R}"),
        (r"(-\infty, \infty)", r"\text{all real numbers}"),
        ("DNE", r"\text{does not exist}"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
        ("A(1,2)", "(1,2)"),
        (r"\approx 3.14", "3.14"),
    ],
)
def test_what_is_equal_in_either_tier(reference: str, response: str, symbolic: bool) -> None:
    """Units in any script, approximations, mixed numbers, words that mean the same."""
    assert right(reference, rf"\boxed{{{response}}}", symbolic=symbolic)


@pytest.mark.parametrize(
    "response",
    [
        "#### Step 1: 3 + 4\n#### Step 2\nThe answer is 18.",
        "#### Answer\n18",
        "#### **18**",
        "#### The answer is 18",
        "so\n####18",
        "**Final Answer:**\n\n18",
        "## Final Answer\n\n18",
        "**Answer**\n$18$",
        "#### Final Answer\n\\[\n18\n\\]",
    ],
)
def test_headings_are_no_answers(response: str) -> None:
    """Markdown's level 4 is written like GSM8K's mark of the answer."""
    assert right("18", response, symbolic=False)


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("4 t", "2 t + 2 t"),
        ("4 t", r"t \cdot 4"),
        ("(3, 5)", "3 < x < 5"),
        ("x y", "y x"),
        (r"|x|\ge 1", r"(-\infty,-1]\cup[1,\infty)"),
    ],
)
def test_algebra_takes_no_variable_for_a_unit(reference: str, response: str) -> None:
    """And knows intervals written as inequalities, on either side."""
    assert right(reference, rf"\boxed{{{response}}}", symbolic=True)
