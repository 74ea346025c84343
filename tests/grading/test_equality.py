"""When the `math` grader takes an answer for the reference, without algebra: by value, by name, part by part."""

from __future__ import annotations

import pytest
from support.graders import math

from pytest_llmtune.grading.math.equality import _LONGEST, Algebra, _spelled, is_settled
from pytest_llmtune.grading.math.parse import parse


def right(reference: str, response: str) -> bool:
    """Whether a boxed response is graded as right."""
    grade = math(symbolic=False).grade([rf"\boxed{{{response}}}"], {"answer": rf"\boxed{{{reference}}}"})
    return grade.metrics["success_vote"] == 1


LETTERS = [f"a_{i}" for i in range(61)]


@pytest.mark.parametrize(
    ("reference", "response", "equal"),
    [
        # names
        ("x = 5", "x = 5", True),
        ("x = 5", "5", True),
        ("5", "y = 5", True),
        ("x = 5", "y = 5", False),
        ("x = a", "y = a", False),
        ("(x, y) = (1, 2)", "(1, 2)", True),
        ("(x, y) = (1, 2)", "(a, b) = (1, 2)", False),
        ("x = 1, y = 2", "y = 2, x = 1", True),
        ("x = 1, y = 2", "y = 1, x = 2", False),
        ("x = 1, y = 2", "x = 2, y = 1", False),
        ("x = 1, y = 2", "x = 1, z = 2", False),
        ("x = 1, y = 2", "x = 1, y = 3", False),
        ("x = 1, y = 2", "a = 1, b = 2", False),
        ("x = 1, y = 2", "x = 1, y = 2, z = 3", False),
        ("x = 1, y = 2, z = 3", "x = 1, y = 2", False),
        ("x = 1, y = 2", "1, 2", True),
        ("x = 1, y = 2", "2, 1", False),
        ("1, 2", "x = 1, y = 2", True),
        ("2, 1", "x = 1, y = 2", False),
        ("x = a, y = b", "y = b, x = a", True),
        ("x = a, y = b", "y = a, x = b", False),
        ("x = 1, x = 2", "x = 2, x = 1", True),
        ("x = 1 and x = 2", "x = 2 and x = 1", True),
        ("x = 1 and x = 2", "1 and 2", True),
        ("x = 1 and x = 2", "y = 1 and y = 2", False),
        ("x = 1 and x = 2", "y = 2 and y = 1", False),
        # percent: a reader takes 28 % for either number, but no number for another
        (r"28\%", "28", True),
        (r"28\%", "0.28", True),
        ("28", r"28\%", True),
        ("0.28", r"28\%", True),
        (r"28\%", r"28\%", True),
        (r"28\%", r"0.28\%", False),
        (r"28\%", "2800", False),
        ("28", r"0.28\%", False),
        (r"0.28\%", "28", False),
        ("28", "0.28", False),
        ("0.28", "28", False),
        # a decimal of six places or more may be rounded
        (r"\frac{1}{3}", "0.333333", True),
        ("0.333333", r"\frac{1}{3}", True),
        (r"\frac{1}{3}", "-0.333333", False),
        (r"-\frac{1}{3}", "-0.333333", True),
        (r"-\frac{1}{3}", "-.3333333", True),
        (r"\frac{1}{3}", "0.33333", False),
        (r"\frac{1}{3}", "0.333334", False),
        (r"\frac{2}{3}", "0.666667", True),
        (r"\frac{2}{3}", "0.666666", False),
        (r"(a, \frac{1}{3})", "(a, 0.333333)", True),
        # a decimal comma, where the other side is that decimal
        ("1,22", "1.22", True),
        ("1.22", "1,22", True),
        ("-1,5", "-1.5", True),
        ("1,22", "1.23", False),
        ("1.23", "1,22", False),
        ("1, 22", "1.22", False),
        ("(1,22)", "1.22", False),
        # sets, lists, tuples, intervals
        (r"\{1, 2\}", r"\{2, 1\}", True),
        (r"\{1, 2\}", r"\{2, 1, 1\}", True),
        (r"\{1, 2\}", "2, 1", True),
        ("2, 1", r"\{1, 2\}", True),
        (r"\{1, 2\}", "(1, 2)", False),
        ("(1, 2)", r"\{1, 2\}", False),
        (r"\{a, 1\}", "(a, 1)", False),
        ("(a, 1)", r"\{a, 1\}", False),
        (r"\{1, 2\}", r"\{1, 2, 3\}", False),
        (r"\{1, 2, 3\}", r"\{1, 2\}", False),
        (r"\{a, b\}", r"\{b, a\}", True),
        (r"\{a, b\}", r"\{b, a, c\}", False),
        (r"\{a, b, c\}", r"\{b, a\}", False),
        ("(1, 2)", "1, 2", True),
        ("(a, b)", "(a, b)", True),
        ("(a, b)", "a, b", True),
        ("a, b", "(a, b)", True),
        ("(a, b)", "(b, a)", False),
        ("(a, b)", "(a, b, c)", False),
        ("(a, b, c)", "(a, b)", False),
        ("[a, b]", "(a, b)", False),
        ("[a, b]", "a, b", False),
        ("[1, 2)", "[1, 2]", False),
        ("(a, 1)", "(a, 2)", False),
        ("(a, 5)", "a", False),
        ("a", "(a, 5)", False),
        (r"\pi", "3.141593", True),
        (r"\pi", "3.14159", False),
        (r"\frac{a}{3}", "0.333333", False),
        ("0.333333", r"\frac{a}{3}", False),
        ("1,5", r"\sqrt{2}", False),
        ("(1, 2, 3)", "1.22", False),
        (r"\frac{1}{3}", "0.3333330", False),
        ("0.123456", "0.1234561", True),
        ("0.123456", "0.1234567", False),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1, 2)", False),
        # words and numbers
        ("east", "east", True),
        ("east", "west", False),
        ("east", "5", False),
        ("5", "east", False),
    ],
)
def test_two_answers_are_equal_as_people_read_them(reference: str, response: str, equal: bool) -> None:
    """The response is graded right where it is the reference, and nowhere else."""
    assert right(reference, response) is equal


@pytest.mark.parametrize(("parts", "equal"), [(60, True), (61, False)])
def test_long_lists_without_values_are_not_compared_part_by_part(parts: int, equal: bool) -> None:
    """Sixty parts are; more would take too long in a set."""
    members = LETTERS[:parts]
    assert right(rf"\{{{', '.join(members)}\}}", rf"\{{{', '.join(reversed(members))}\}}") is equal
    assert right(rf"\{{{', '.join(members[:60])}\}}", rf"\{{{', '.join(members)}\}}") is equal
    one_twice = [members[0], *members[:59], members[0]][:parts]
    assert right(rf"\{{{', '.join(members[:59])}\}}", rf"\{{{', '.join(one_twice)}\}}") is equal


@pytest.mark.parametrize(
    ("reference", "response"), [("x = 5", "y = 5"), ("x = 1, y = 2", "y = 1, x = 2"), ("(1, 2)", "[1, 2]")]
)
def test_an_answer_that_is_not_the_reference_never_votes_with_it(reference: str, response: str) -> None:
    """Two wrong answers of the same value outvote one right answer, and the vote is wrong."""
    responses = [rf"\boxed{{{reference}}}", rf"\boxed{{{response}}}", rf"\boxed{{{response}}}"]
    grade = math(symbolic=False).grade(responses, {"answer": reference})
    assert [count for _, count in grade.votes] == [2, 1]
    assert (grade.metrics["success"], grade.metrics["success_vote"]) == (1, 0)


@pytest.mark.parametrize(
    ("reference", "response", "equal"),
    [
        ("east", "seat", False),
        ("east", r"2 e^2 st a", False),
        (r"\{east, west\}", r"\{seat, west\}", False),
        ("(east, 1)", "(seat, 1)", False),
        ("New York", "York New", False),
        ("a b", "b a", True),
        (r"\{a b, 1\}", r"\{1, b a\}", True),
        # names: algebra looks at what stands behind them, unless one side speaks of the other's
        ("x = 5", "y = 5", False),
        ("x = a + 1", "y = a + 1", False),
        ("x = a + 1", "x = 1 + a", True),
        ("x = a + 1", "1 + a", True),
        ("x = y + 1", "z = y + 1", False),
        ("x = y + 1", "y = x - 1", True),
        ("y = x - 1", "x = y + 1", True),
        ("x = xx + y - xx + 1", "y = x - 1", True),
        # a number is no number times a variable, which algebra may take for a unit
        ("4", "4 t", False),
        ("4 t", "4", False),
        ("4", "4 m", True),
        # numbers of another base
        ("2516_8", "2516_8", True),
        ("2516_8", "2516_9", False),
        ("2516_8", "2516", False),
        # what was read in part is decided by algebra
        ("(x + 1)(x - 1)", "x^2 - 1", True),
        ("(x + 1)(x - 1)", "x^2 + 1", False),
        (r"1 + y", r"\sin^2 x + \cos^2 x + y", True),
        ("1,5", r"\frac{3}{2}", True),
        ("1,41421", r"\sqrt{2}", False),
    ],
)
def test_what_was_read_to_the_end_is_not_left_to_algebra(reference: str, response: str, equal: bool) -> None:
    """To algebra a word is a product of letters, and a letter perhaps a unit."""
    grade = math(symbolic=True).grade([rf"\boxed{{{response}}}"], {"answer": rf"\boxed{{{reference}}}"})
    assert (grade.metrics["success_vote"] == 1) is equal


@pytest.mark.parametrize(
    ("reference", "response", "settled"),
    [
        # names: final, unless one side speaks of what the other defines
        ("x = a + b", "z = c + d", True),
        ("x = y + 1", "z = 3", True),
        ("x = y + 1", "y = x - 1", False),
        ("x = a + y", "y = 3", False),
        ("x = 3", "y = x + 1", False),
        ("x = a", "b + c", False),
        # a column of numbers may be written as a tuple
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1, 2)", False),
        ("(1, 2)", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", False),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", True),
        ("(1, 2)", "[1, 2]", True),
        # a number is no number of something
        ("4", "4t", True),
        ("4t", "4", True),
        ("4", "a + b", False),
        ("a + b", "4", False),
        # times of the day
        ("9:30 a.m.", "9:30 p.m.", True),
        ("9:30 AM", "9:30 p.m.", True),
        ("9:30 a.m.", "9:30 A.M.", False),
        ("9:30 a.m.", "a + b", False),
        ("9:30", "9:30 p.m.", False),
        # read to the last part
        ("4", "5", True),
        ("east", "seat", True),
        ("east", "a + b", False),
        ("a + b", "east", False),
        ("(1, a + b)", "(1, 2)", False),
        ("(1, 2)", "(1, a + b)", False),
    ],
)
def test_algebra_is_not_asked_where_the_difference_is_final(reference: str, response: str, settled: bool) -> None:
    assert is_settled(parse(reference), parse(response)) is settled


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        (r"\frac{dx}{dt}", "D_{xt}"),
        (r"\dfrac{d^2 y}{\mathrm{d} x^{2}}", "D_{yx2}"),
        (r"\sin 30^\circ", r"\sin(\frac{30\pi}{180})"),
        ("x = 4.", "x = 4"),
        ("2 t + 2 t", "2 t + 2 t^{1}"),
        (r"$\\frac{1}{2}$", r"\frac{1}{2}"),
    ],
)
def test_notation_that_algebra_misreads_is_respelled(text: str, spelled: str) -> None:
    """Derivatives become one symbol, degrees radians; a variable at the end is no unit, a full stop no part."""
    assert _spelled(text).strip() == spelled


def test_an_answer_is_compared_up_to_its_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it, it is unequal without a worker."""
    algebra = Algebra(1)
    asked: list[str] = []
    monkeypatch.setattr(algebra._pool, "call", lambda request, _: asked.append(request["answer"]))
    algebra.compare("1", "1" * _LONGEST)
    algebra.compare("1", "1" * (_LONGEST + 1))
    algebra.close()
    assert list(map(len, asked)) == [_LONGEST]
