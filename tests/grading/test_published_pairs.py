"""The `math` grader on published test cases and on references of public data sets: see data/README.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.graders import math

from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from pytest_llmtune.grading.math import Math

DATA = Path(__file__).with_name("data") / "published_pairs.jsonl"
PAIRS = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def accepted(grader: Math, pair: dict[str, str]) -> bool:
    try:
        return grader.grade([pair["response"]], {"answer": pair["reference"]}).metrics["success_vote"] == 1
    except SuiteError:  # a reference that cannot be used is refused before a search, and accepts nothing
        return False


@pytest.mark.parametrize(
    ("symbolic", "least", "every"),
    [(False, 0.6, 1), (True, 0.9, 9), pytest.param(True, 0.95, 1, marks=pytest.mark.slow)],  # sympy is slow
    ids=["alone", "a ninth with math-verify", "with math-verify"],
)
def test_published_pairs(symbolic: bool, least: float, every: int) -> None:
    """No wrong pair is accepted; of the equal ones 60 % are without the extra, 95 % with it."""
    grader = math(symbolic=symbolic)
    equal = [accepted(grader, pair) for pair in [pair for pair in PAIRS if pair["equal"]][::every]]
    assert not [pair for pair in [pair for pair in PAIRS if not pair["equal"]][::every] if accepted(grader, pair)]
    assert len(equal) == -(-263 // every)
    assert sum(equal) >= least * len(equal)


REFERENCES = [json.loads(line)["answer"] for line in DATA.with_name("references.jsonl").read_text("utf-8").splitlines()]
SPELLINGS = (
    "So it is $\\boxed{{{0}}}$.",
    "The answer is ${0}$.",
    "Therefore, the final answer is \\({0}\\).",
    "The answer is:\n\\[\n{0}\n\\]",
    "Work.\n#### {0}",
)


def bare(reference: str) -> str:
    return reference[1:-1] if re.fullmatch(r"\$[^$]*\$", reference) else reference


def altered(reference: str) -> list[str]:
    """The same with another number, and with the other sign."""
    number = re.search(r"\d+", reference)
    others = [reference[1:] if reference.startswith("-") else f"-{reference}"]
    if number is not None:
        at, end = number.span()
        others += [reference[:at] + str(int(number[0]) + 1) + reference[end:], f"{reference[:end]}7{reference[end:]}"]
    return others


@pytest.mark.parametrize(
    ("symbolic", "every"),
    [(False, 1), (True, 20), pytest.param(True, 4, marks=pytest.mark.slow)],
    ids=["alone", "a twentieth with math-verify", "with math-verify"],
)
def test_references_of_public_data_sets(symbolic: bool, every: int) -> None:
    """Each equals itself however it is presented and spaced, and differs from itself with another number or sign."""
    grader = math(symbolic=symbolic)
    for reference in REFERENCES[::every]:
        own = bare(reference)
        spaced, large = re.sub(r" (?![a-zA-Z])", "", own), own.replace(r"\frac", r"\dfrac")
        for text in (
            *(form.format(own) for form in SPELLINGS if "$" not in own),
            *map("\\boxed{{{}}}".format, (spaced, large)),
        ):
            assert accepted(grader, {"response": text, "reference": reference}), (reference, text)
        for other in altered(own) if own.count("=") < 2 else ():  # of a chain, the last value counts
            assert not accepted(grader, {"response": f"\\boxed{{{other}}}", "reference": reference}), (reference, other)


@pytest.mark.parametrize(
    "response",
    [
        r"5\frac{dx}{dt}=kx-a",
        r"\frac{dy}{dt}=kx-a",
        r"\frac{d x}{d s} = kx-a",
        r"\frac{d^2x}{dt^2}=kx-a",
        r"\frac{dx}{dt}=kx+a",
    ],
)
def test_a_derivative_is_no_zero(response: str) -> None:
    """sympy takes the derivative of a variable for 0, and with it every equation that has one on the left."""
    grader = math(symbolic=True)
    assert not accepted(grader, {"reference": r"\frac{dx}{dt}=kx-a", "response": rf"\boxed{{{response}}}"})
    assert accepted(grader, {"reference": r"\frac{dx}{dt}=kx-a", "response": r"\boxed{\frac{d x}{d t} = -a + kx}"})
