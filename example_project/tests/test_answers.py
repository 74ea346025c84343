"""The parser, without any model."""

import pytest

from cornershop.answers import boxed_number, elect, stated_label


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7. The answer is \\boxed{7}.", 7),
        ("\\boxed{1}, no, \\boxed{2}", 2),
        ("\\boxed{$1,200}", 1200),
        ("The answer is 7.", None),
        ("\\boxed{seven}", None),
        ("\\boxed{7", None),
        ("", None),
    ],
)
def test_the_last_boxed_number_counts(text, number):
    assert boxed_number(text) == number


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        ("The customer is negative.", "negative"),
        ("positive or negative", None),
        ("I cannot say", None),
    ],
)
def test_a_label_counts_only_where_it_is_the_only_one(text, label):
    assert stated_label(text, ("positive", "negative")) == label


def test_the_majority_is_elected_and_the_unreadable_do_not_vote():
    assert elect([None, 7, 8, None, None, 8]) == 8


def test_the_first_of_equals_is_elected():
    assert elect([7, 8, 8, 7]) == 7


def test_nobody_is_elected_without_votes():
    assert elect([None, None]) is None
    assert elect([]) is None
