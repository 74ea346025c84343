"""Splits: by content and seed, in proportion, steady when rows are appended, and without leaks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.data.dataset import Dataset, load
from pytest_llmtune.data.split import Split, split
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    import random


def dataset(count: int, start: int = 0, topics: int = 3) -> Dataset:
    return load([{"q": f"question {number}", "topic": f"t{number % topics}"} for number in range(start, start + count)])


def numbers(examples: Any) -> list[int]:
    return [int(example.row["q"].split()[1]) for example in examples]


def sides(made: Split) -> tuple[set[int], set[int]]:
    return set(numbers(made.tune)), set(numbers(made.test))


def test_first_rows_tune_and_the_rest_tests() -> None:
    """Twenty by default; no row is on both sides, none is lost."""
    made = split(dataset(50))
    tune, test = sides(made)
    assert (len(made.tune), len(made.test), made.reused) == (20, 30, False)
    assert tune | test == set(range(50))
    assert not tune & test
    assert made.dataset is not None
    assert len(made.dataset.examples) == 50


def test_without_shuffle_in_the_order_of_the_file() -> None:
    """The first rows tune, as they stand."""
    made = split(dataset(10), 4, 3, shuffle=False)
    assert (numbers(made.tune), numbers(made.test)) == ([0, 1, 2, 3], [4, 5, 6])


def test_test_size_caps() -> None:
    """At most so many rows are tested on."""
    assert len(split(dataset(50), 10, 5).test) == 5
    assert len(split(dataset(50), 10, 500).test) == 40


@pytest.mark.parametrize("count", [5, 20])
def test_where_no_row_is_left_the_tuning_rows_guard(count: int) -> None:
    """And the split says so."""
    made = split(dataset(count))
    assert made.reused
    assert made.test == made.tune
    assert len(made.tune) == count


def test_no_rows_to_tune_on() -> None:
    """A suite without anything to choose guards all rows."""
    made = split(dataset(5), 0)
    assert (len(made.tune), len(made.test), made.reused) == (0, 5, False)


def test_a_share_of_the_rows() -> None:
    """Below 1, tune_size is a share; at least one row."""
    assert len(split(dataset(50), 0.2).tune) == 10
    assert len(split(dataset(3), 0.01).tune) == 1


def test_the_seed_decides() -> None:
    """The same seed gives the same rows in the same order, another seed others."""
    assert split(dataset(50), seed=1) == split(dataset(50), seed=1)
    assert sides(split(dataset(50), seed=1)) != sides(split(dataset(50), seed=2))


def test_the_order_is_that_of_the_first_release() -> None:
    """Committed recordings depend on it: the recipe must not change."""
    assert numbers(split(dataset(12), 4).tune) == [8, 3, 5, 7]


def test_shuffling_leaves_no_trace_of_the_order() -> None:
    """Over many seeds, every row is tuned on about equally often."""
    counts: Counter[int] = Counter()
    data = dataset(10)
    for seed in range(200):
        counts.update(numbers(split(data, 5, seed=seed).tune))
    assert all(70 <= counts[number] <= 130 for number in range(10)), counts


@given(st.randoms(), st.integers(1, 15), st.booleans())
def test_reordering_the_file_changes_nothing(chance: random.Random, size: int, hashed: bool) -> None:
    """Rows are known by content, not by position; also in their order within the split."""
    rows = [{"q": f"question {number}"} for number in range(20)]
    moved = list(rows)
    chance.shuffle(moved)
    options: dict[str, Any] = {"method": "hash", "tune_size": size / 16} if hashed else {"tune_size": size}
    one, other = split(load(rows), **options), split(load(moved), **options)
    assert (numbers(one.tune), numbers(one.test)) == (numbers(other.tune), numbers(other.test))


def test_a_corrected_reference_moves_no_row() -> None:
    """What a model is asked decides the place, so that mending a label stales that row only."""
    rows = [{"q": f"question {number}", "answer": "x"} for number in range(40)]
    mended = [row | ({"answer": "y"} if number == 7 else {}) for number, row in enumerate(rows)]
    one, other = (split(load(data), prompt_columns=["q"]) for data in (rows, mended))
    assert (numbers(one.tune), numbers(one.test)) == (numbers(other.tune), numbers(other.test))


@given(count=st.integers(5, 60), more=st.integers(1, 40), size=st.integers(1, 30), seed=st.integers(0, 5))
def test_hash_by_count_keeps_sides_when_rows_are_appended(count: int, more: int, size: int, seed: int) -> None:
    """No row that was tuned on is tested on later, nor the other way round."""
    before = split(dataset(count), size, method="hash", seed=seed)
    after = split(dataset(count + more), size, method="hash", seed=seed)
    if not before.reused:
        assert sides(before)[0] <= sides(after)[0]
        assert sides(before)[1] <= sides(after)[1]
    assert len(after.tune) <= size


@given(
    count=st.integers(1, 40),
    removed=st.integers(0, 20),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
)
def test_hash_by_share_depends_on_nothing_but_the_row(count: int, removed: int, share: float, seed: int) -> None:
    """Rows may come, go and move."""
    whole = split(dataset(60), share, method="hash", seed=seed)
    part = split(dataset(count, start=removed), share, method="hash", seed=seed)
    if not (whole.reused or part.reused):
        assert sides(part)[0] <= sides(whole)[0]
        assert sides(part)[1] <= sides(whole)[1]


def test_hash_by_share_is_about_that_share() -> None:
    """A fifth of a thousand rows, give or take."""
    assert 160 <= len(split(dataset(1000), 0.2, method="hash").tune) <= 240


def test_the_cap_of_a_hash_split_is_steady_too() -> None:
    """The capped test rows stay the same when rows are appended."""
    before = split(dataset(40), 0.3, 10, method="hash")
    after = split(dataset(90), 0.3, 10, method="hash")
    assert sides(before)[1] == sides(after)[1]


def test_stratified() -> None:
    """Both parts have the topics in the proportions of the whole."""
    rows = [{"q": f"question {number}", "topic": "rare" if number < 10 else "common"} for number in range(100)]
    made = split(load(rows), 20, 30, stratify="topic")
    assert Counter(example.row["topic"] for example in made.tune) == {"rare": 2, "common": 18}
    assert Counter(example.row["topic"] for example in made.test) == {"rare": 3, "common": 27}


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    tune_size=st.integers(1, 40),
    seed=st.integers(0, 3),
)
def test_stratified_quotas(sizes: list[int], tune_size: int, seed: int) -> None:
    """Each stratum's share is its exact share, rounded up or down, and the sum is what was asked for."""
    topics = [str(index) for index, size in enumerate(sizes) for _ in range(size)]
    data = load([{"q": f"question {number}", "topic": topic} for number, topic in enumerate(topics)])
    made = split(data, tune_size, stratify="topic", seed=seed)
    wanted = min(tune_size, len(topics))
    assert len(made.tune) == wanted
    counts = Counter(example.row["topic"] for example in made.tune)
    for index, size in enumerate(sizes):
        assert abs(counts[str(index)] - wanted * size / len(topics)) < 1


@given(count=st.integers(10, 80), more=st.integers(1, 40), share=st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.7]))
def test_stratified_hash_is_steady_and_in_proportion(count: int, more: int, share: float) -> None:
    """By share, appended rows move nobody, and each stratum has its share up to one block of rows."""
    before = split(dataset(count), share, method="hash", stratify="topic")
    after = split(dataset(count + more), share, method="hash", stratify="topic")
    if not before.reused:
        assert sides(before)[0] <= sides(after)[0]
        assert sides(before)[1] <= sides(after)[1]
    sizes = Counter(number % 3 for number in range(count + more))
    tuned = Counter(number % 3 for number in sides(after)[0])
    for stratum, size in sizes.items():
        assert abs(tuned[stratum] - share * size) <= 2


def test_stratified_hash_by_count_cannot_be() -> None:
    """A count cannot stay both fair and steady."""
    with pytest.raises(SuiteError, match="takes tune_size as a fraction"):
        split(dataset(10), 5, method="hash", stratify="topic")


def test_an_unknown_stratum_column() -> None:
    """The nearest column is named."""
    with pytest.raises(SuiteError, match=r"stratify='topics' \(did you mean 'topic'\?\): the columns are 'q', 'topic'"):
        split(dataset(10), stratify="topics")


DOUBLED = [
    {"q": "same", "answer": "1"},
    {"q": "b", "answer": "2"},
    {"q": "same", "answer": "3"},
    {"q": "d", "answer": "4"},
]


def test_duplicates_between_tune_and_test_are_refused() -> None:
    """The rows are named, and the keys that settle it."""
    with pytest.raises(SuiteError) as caught:
        split(load(DOUBLED), 2, shuffle=False, prompt_columns=["q"])
    assert str(caught.value) == (
        "1 of the test rows are tuning rows too (rows 1 = 3; the first: {'q': 'same', 'answer': '1'}); "
        "remove them, or set duplicates='drop' (keep the first of each) or duplicates='allow'"
    )


def test_many_duplicates_are_counted() -> None:
    """Five pairs are shown, the rest is counted."""
    with pytest.raises(SuiteError, match=r"8 of the test rows .* and 3 more"):
        split(load([{"q": str(number % 8)} for number in range(16)]), 8, shuffle=False)


def test_what_a_model_is_asked_makes_a_duplicate() -> None:
    """By all columns the rows differ; by the prompt's they do not."""
    assert len(split(load(DOUBLED), 2, shuffle=False).test) == 2
    assert len(split(load(DOUBLED), 2, shuffle=False, prompt_columns=["answer"]).test) == 2


def test_duplicates_dropped() -> None:
    """The first of each stays, and the count of the others is told."""
    made = split(load(DOUBLED), 2, shuffle=False, prompt_columns=["q"], duplicates="drop")
    assert [example.row["answer"] for example in (*made.tune, *made.test)] == ["1", "2", "4"]
    assert made.doubled == 1
    assert made.dataset is not None
    assert len(made.dataset.examples) == 3


def test_duplicates_allowed() -> None:
    """If the suite says so."""
    made = split(load(DOUBLED), 2, shuffle=False, prompt_columns=["q"], duplicates="allow")
    assert [example.row["answer"] for example in made.test] == ["3", "4"]


def test_duplicates_within_one_side_are_no_leak() -> None:
    """Only a row on both sides makes a result too good."""
    made = split(load([DOUBLED[0], DOUBLED[2], DOUBLED[1], DOUBLED[3]]), 2, shuffle=False, prompt_columns=["q"])
    assert [example.row["answer"] for example in made.tune] == ["1", "3"]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=30), st.floats(0.1, 0.9))
def test_hash_splits_never_leak(questions: list[str], share: float) -> None:
    """Equal questions have equal hashes, so they are on one side."""
    made = split(load([{"q": question} for question in questions]), share, method="hash")
    if not made.reused:
        assert not {example.row["q"] for example in made.tune} & {example.row["q"] for example in made.test}


def test_shuffled_duplicates_stand_together() -> None:
    """So that only a border between them can part them."""
    rows = [{"q": f"question {number % 30}", "id": str(number)} for number in range(60)]
    made = split(load(rows), 20, prompt_columns=["q"])
    assert len(set(numbers(made.tune))) == 10


def test_reused_rows_are_no_leak() -> None:
    """Where tuning rows guard, they are of course the same; that is said otherwise."""
    assert split(load(DOUBLED), 20, prompt_columns=["q"]).reused


def test_examples_keep_their_ids_and_positions() -> None:
    """A split moves examples, it does not make them."""
    data = dataset(30)
    known = {example.id: example.index for example in data.examples}
    made = split(data)
    assert {example.id: example.index for example in (*made.tune, *made.test)} == known
