"""One reader of numbers for `numeric` and `math`."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graders import shared

from pytest_llmtune.grading import resolve
from pytest_llmtune.grading.numbers import last_of, number_in

SURE = {
    r"\frac{840}{13}": Fraction(840, 13),
    r"\dfrac12": Fraction(1, 2),
    r"3\times10^5": 300_000,
    "3 × 10⁵": 300_000,
    "4.5e3": 4500,
    "12{,}000": 12_000,
    r"12\,000": 12_000,
    "12,\\!000": 12_000,
    "12 000 Euro": 12_000,
    "12\u202f000": 12_000,
    "12,34,567": 1_234_567,
    "1.234.567": 1_234_567,
    "1.234,5": Fraction(2469, 2),
    "１，２３４": 1234,
    "١٬٢٣٤": 1234,
    "१२": 12,
    "2 1/2": Fraction(5, 2),
    "2½": Fraction(5, 2),
    "-2 1/2": Fraction(-5, 2),
    "\u22122 ¾": Fraction(-11, 4),
    "minus 3.5": Fraction(-7, 2),
    "$1.5M": 1_500_000,
    "3 bn": 3_000_000_000,
    "1.5*10**6": 1_500_000,
    "40千米": 40,
    "\u22125": -5,
    "\u20135": -5,
    "$1,000.00": 1000,
    r"\$18": 18,
    "Rs. 1,50,000": 150_000,
    "20 cm^2": 20,
    r"20 \text{ cm}^2": 20,
    "9.8 m/s²": Fraction(49, 5),
    "18元": 18,
    "15개": 15,
    "5万": 50_000,
    "5 million": 5_000_000,
    "30%": 30,
    "70 [1].": 70,
    "5!": 5,
    "12 - 5": 7,
    "m+n = 256+37 = 293": 293,
    "3 (not 4)": 3,
    "18 dollars per day for 7 days": 18,
    "72, in total, and the rest": 72,
}
UNSURE = [
    "1e5000",
    "5e-5000",
    "7:30",
    "3-5",
    "3,5",
    "1,2,3",
    "2024-05-01",
    "21.0.3",
    "±42",
    r"\pm 42",
    "42x",
    r"\frac{x}{13}",
    "x^2",
    "",
    "none",
    "3/0",
]


@pytest.mark.parametrize(("text", "value"), SURE.items())
def test_what_is_read(text: str, value: Fraction | int) -> None:
    """As the statement of an answer; most of it in prose too."""
    assert number_in(text) == value
    assert last_of(f"So we get {text.split(' per', maxsplit=1)[0].split(', in', maxsplit=1)[0]}") == value


@pytest.mark.parametrize("text", UNSURE)
def test_what_cannot_be_read_for_sure_is_no_number(text: str) -> None:
    """Never its last digits."""
    assert number_in(text) is None
    assert last_of(text) is None


@pytest.mark.parametrize("text", ["3 or 4", "between 3 and 5", "3, 4", "not 4", "12 cm x 5 cm", "3/4 or 5/4"])
def test_several_numbers_are_no_statement(text: str) -> None:
    """Which one is meant cannot be told."""
    assert number_in(text) is None


@pytest.mark.parametrize(
    "text",
    ["It is 18, not 19.", "18 (see note 2)", "Step 1: add. That makes 18", "1. Add\n2. It is 18", "GPT-4 says 18"],
)
def test_numbers_beside_the_answer(text: str) -> None:
    """Denied ones, enumerators, steps and names."""
    assert last_of(text) == 18


@pytest.mark.parametrize(
    ("grader", "reference", "response", "expected"),
    [
        ("numeric", "5", "The answer is not 5.", False),
        ("numeric", "12", "#### 1) Read the 7 words\n#### 2) Result\n12", True),
        ("numeric", "14", "The answer is 12. Correction: 14.", True),
        ("numeric", "14", "The answer is 12. Sorry, I meant 14.", True),
        ("numeric", "14", "The answer is 14. On second thought, let me explain.", True),
        ({"math": {"symbolic": False}}, "18", "The answer is 18, I hope this helps! Call 555-1234.", True),
        ("numeric", "6", "He is 5 ft 6 in", False),
        ("numeric", "30", "It takes 2 hours and 30 minutes", False),
        ("numeric", "4", "It is between 2 and 4", False),
        ("numeric", "16", "It is 16 rather than 18", True),
        ({"math": {"symbolic": False}}, "1", r"\boxed{1 million}", False),
        ({"math": {"symbolic": False}}, "1000000", r"\boxed{1 million}", True),
        ({"math": {"symbolic": False}}, "30000", r"\boxed{3万円}", True),
        ({"math": {"symbolic": False}}, "5", "The answer is 5 since 2+3=5.", True),
        ({"math": {"symbolic": False}}, "5", r"\boxed{2+4=5}", False),
        ({"math": {"symbolic": False}}, "15", r"\boxed{15^\circ\text{C}}", True),
        ("numeric", "12", "There are 12 people. The answer is unknown.", False),
        ("numeric", "12", "The answer is as follows.\n12", True),
        ("numeric", "7", r"\boxed{12 \text{ or } 7}", False),
        ("numeric", "3", r"\boxed{2\sqrt{3}}", False),
        ("numeric", "3", r"\boxed{x^2 + 3}", False),
        ("numeric", "20", r"\boxed{20 \text{ cm}^2}", True),
        ("numeric", "42", "Let \\boxed{n=6}. Then 6*7 = 42.\n\n**Answer: 42**", True),
        ("numeric", "6", "Let \\boxed{n=6}. Then 6*7 = 42.\n\n**Answer: 42**", False),
        ("numeric", "14", "The answer is 12. Wait, no, it's 14.", True),
        ("numeric", "14", "#### 12\nActually, the answer is 14.", True),
        ("numeric", "18", "Die Antwort lautet 18.", True),
        ("numeric", "18", "الجواب هو ١٨", True),
        ("numeric", "3\\times10^5", "300000", True),
        ({"numeric": {"decimal_comma": True}}, "0,5", "Die Antwort ist 0,5.", True),
        ({"numeric": {"abs_tol": 0.01}}, "1.73", r"\boxed{\sqrt{3}}", True),
        ({"math": {"symbolic": False}}, "18", "The answer is 18 dollars per day for 7 days.", True),
        ({"math": {"symbolic": False}}, "7", "The answer is 18 dollars per day for 7 days.", False),
        ({"math": {"symbolic": False}}, "840/13", r"The answer is $\frac{840}{13}$ minutes.", True),
        ({"math": {"symbolic": False, "extract": ["last"]}}, "18", "It costs $5 each.\nTogether they cost $18.", True),
        ({"math": {"symbolic": False, "extract": ["last"]}}, "5", "It costs $5 each.\nTogether they cost $18.", False),
    ],
)
def test_in_the_graders(grader: Any, reference: str, response: str, expected: bool) -> None:
    """Boxes, phrases, corrections; each accepted one has a refused neighbour."""
    assert (shared(grader).grade([response], {"answer": reference}).metrics["success_vote"] == 1) is expected


DIGITS = {
    "Arabic": "٠١٢٣٤٥٦٧٨٩",
    "full width": "０１２３４５６７８９",
    "Devanagari": "०१२३४५६७८९",
    "Latin": "0123456789",
}


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(list(DIGITS.values())),
    st.sampled_from(["", ",", " ", "\u202f", "'", "indian"]),
    st.sampled_from(
        ["The answer is {}.", "So it is {}", r"\boxed{{{}}}", "#### {}", "**Answer:** {} apples", "答案是{}"]
    ),
)
def test_every_script_and_grouping_is_read(value: int, digits: str, mark: str, frame: str) -> None:
    """And the neighbour is never accepted."""
    if mark == "indian":
        head, tail = f"{abs(value):d}"[:-3], f"{abs(value):d}"[-3:]
        parts = [head[max(0, end - 2) : end] for end in range(len(head), 0, -2)][::-1]
        text = ",".join([*parts, tail])
    else:
        text = f"{abs(value):,}".replace(",", mark)
    text = ("-" if value < 0 else "") + "".join(digits[int(char)] if char.isdecimal() else char for char in text)
    grader = resolve("numeric")
    response = frame.format(text)
    assert grader.grade([response], {"answer": str(value)}).metrics["success_vote"] == 1
    assert grader.grade([response], {"answer": str(value + 1)}).metrics["success_vote"] == 0


@given(st.text(max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    """Whatever a model says is a number or none."""
    number_in(text)
    last_of(text)


@pytest.mark.parametrize(
    ("cell", "right", "wrong"),
    [
        (1.234, "1,234", "1234"),
        (1.5, "1,5", "15"),
        (1234, "1.234", "1,234"),
        ("1,234", "1,234", "1.234"),
        (-0.5, "-0,5", "5"),
    ],
)
def test_a_number_in_a_cell_has_no_decimal_comma(cell: object, right: str, wrong: str) -> None:
    """Only texts are written with one."""
    grader = shared({"numeric": {"decimal_comma": True}})
    assert grader.grade([right], {"answer": cell}).metrics["success_vote"] == 1
    assert grader.grade([wrong], {"answer": cell}).metrics["success_vote"] == 0
