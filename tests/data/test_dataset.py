"""Loading a dataset: every source, the filter, rows that lack something, and what is said where nothing is left."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.suites import write_jsonl

from pytest_llmtune.data.dataset import check_source, load
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROWS = [{"q": "a", "answer": "1"}, {"q": "b", "answer": "2"}, {"q": "c", "answer": "3"}]


def three() -> list[dict[str, str]]:
    return list(ROWS)


def generated() -> Iterator[dict[str, int]]:
    yield from ({"n": number} for number in range(3))


def failing() -> list[Any]:
    raise RuntimeError("no luck")


def complaining() -> list[Any]:
    raise SuiteError("no rows today")


def breaking() -> Iterator[dict[str, int]]:
    yield {"n": 1}
    raise KeyError("second")


class Table:
    """What of a pandas table is used."""

    columns = ("q",)

    def to_dict(self, how: str) -> list[dict[str, str]]:
        assert how == "records"
        return [{"q": "a"}]


def complaint(source: Any, base_dir: Path | None = None, **options: Any) -> str:
    with pytest.raises(SuiteError) as caught:
        load(source, base_dir=base_dir, **options)
    return str(caught.value)


def test_a_list_of_rows() -> None:
    """Positions, columns and counts are known."""
    dataset = load(ROWS)
    assert [(example.index, dict(example.row)) for example in dataset.examples] == list(enumerate(ROWS))
    assert (dataset.columns, dataset.dropped, dataset.filtered, dataset.source) == (
        ("q", "answer"),
        0,
        0,
        "the list of rows",
    )


def test_files_by_path(tmp_path: Path) -> None:
    """Relative to the suite, as text or as Path."""
    write_jsonl(tmp_path / "data" / "a.jsonl", ROWS)
    for source in ("data/a.jsonl", Path("data/a.jsonl"), str(tmp_path / "data/a.jsonl")):
        assert [dict(example.row) for example in load(source, base_dir=tmp_path).examples] == ROWS


def test_several_files_in_one(tmp_path: Path) -> None:
    """A glob joins files of different formats, in order of their names."""
    write_jsonl(tmp_path / "1.jsonl", ROWS[:1])
    (tmp_path / "2.json").write_text(json.dumps(ROWS[1]))
    (tmp_path / "3.csv").write_text("answer,q\n3,c\n")
    assert [dict(example.row) for example in load("[0-9].*", base_dir=tmp_path).examples] == ROWS


def test_members_of_a_zip(tmp_path: Path) -> None:
    """Read from inside the archive."""
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("x/a.csv", "q,answer\na,1\nb,2\nc,3\n")
    assert [dict(example.row) for example in load("d.zip/x/*.csv", base_dir=tmp_path).examples] == ROWS


@pytest.mark.parametrize("source", [three, f"{__name__.rpartition('.')[2]}:three"])
def test_functions(source: Any) -> None:
    """Given, or named as module:function beside the suite."""
    assert [dict(example.row) for example in load(source, base_dir=Path(__file__).parent).examples] == ROWS


def test_functions_may_return_what_gives_rows() -> None:
    """A generator, a table, a data set."""
    assert [example.row["n"] for example in load(generated).examples] == [0, 1, 2]
    assert [example.row["q"] for example in load(Table).examples] == ["a"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (failing, "test_dataset:failing raised RuntimeError: no luck"),
        (breaking, "test_dataset:breaking raised KeyError after row 1: 'second'"),
        (lambda: "text", "gave 'text'; valid: a list of rows"),
        (lambda: {"q": "a"}, "valid: a list of rows"),
        (lambda: None, "gave None; valid: a list of rows"),
        (lambda: [1], "row 1: a row is a mapping of column to value, got 1"),
        (list, "holds no row"),
        (5, "is 5; valid: a path (jsonl, ndjson, json, csv"),
        ([], "is an empty list; a suite needs rows"),
        ([["q"]], "the list of rows: row 1: a row is a mapping"),
        ("nowhere.jsonl", "no file"),
        ("no_such_module_at_all:f", "no module 'no_such_module_at_all'"),
        ("json:nothing", "json has no function 'nothing'"),
    ],
)
def test_sources_that_give_nothing(source: Any, says: str) -> None:
    """Each said in one sentence, whatever the user's function does."""
    assert says in complaint(source)


def test_our_own_errors_pass_through() -> None:
    """A function that uses this package says what it says."""
    assert complaint(complaining) == "no rows today"


def test_errors_name_the_source(tmp_path: Path) -> None:
    """A path as it was written."""
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert complaint("a.jsonl", tmp_path, needed=["x"]).startswith("a.jsonl has no column 'x'")
    assert complaint(Path("a.jsonl"), tmp_path, where="q == 'x'").startswith("a.jsonl: no row of 3 is left")
    assert complaint(three, needed=["x"]).startswith(f"{__name__}:three has no column 'x'")


def test_where_as_expression_and_as_function() -> None:
    """Both keep the positions that rows have in the source."""
    for where in ("answer > 1", lambda row: int(row["answer"]) > 1):
        dataset = load(ROWS, where=where)
        assert [(example.index, example.row["q"]) for example in dataset.examples] == [(1, "b"), (2, "c")]
        assert (dataset.filtered, dataset.dropped) == (1, 0)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("anwser > 1", "names 'anwser' (did you mean 'answer'?), but the columns are 'q', 'answer'"),
        ("q > 1", "'a' > 1 cannot be compared; in row 1"),
        ("q.x == 1", "is not allowed"),
        (lambda row: row["x"], "where raised KeyError: 'x'; in row 1: {'q': 'a'"),
        ("answer > 9", "the list of rows: no row of 3 is left: 3 excluded by where='answer > 9'"),
    ],
)
def test_wrong_filters(where: Any, says: str) -> None:
    """A column that no row has is an error, not an empty data set."""
    assert says in complaint(ROWS, where=where)


def test_rows_that_lack_something_are_dropped_and_counted() -> None:
    """Only for columns that are needed; missing is null, absent or NaN, not the empty text of JSON."""
    rows: list[Mapping[str, Any]] = [
        {"q": "a", "answer": "1"},
        {"q": "b", "answer": None},
        {"q": "c"},
        {"q": float("nan"), "answer": "2"},
        {"q": "", "answer": "", "other": 1},
    ]
    dataset = load(rows, needed=["q", "answer"])
    assert [example.index for example in dataset.examples] == [0, 4]
    assert (dataset.dropped, dataset.lacking) == (3, {"answer": 2, "q": 1})
    assert load(rows).dropped == 0


def test_needed_may_depend_on_the_columns() -> None:
    """As the reference does: the first of several names that is there."""
    seen: list[Any] = []

    def needed(columns: Any) -> list[str]:
        seen.append(columns)
        return ["q"]

    load(ROWS, needed=needed)
    assert seen == [("q", "answer")]


def test_a_needed_column_that_is_not_there() -> None:
    """An error, since all rows would be dropped."""
    assert complaint(ROWS, needed=["anser"]) == (
        "the list of rows has no column 'anser' (did you mean 'answer'?); the columns are 'q', 'answer'"
    )


def test_nothing_left_says_why() -> None:
    """With the counts of filter and missing cells."""
    rows = [{"q": "a", "answer": None}, {"q": "b", "answer": "x"}]
    assert complaint(rows, where="q == 'a'", needed=["answer"]) == (
        "the list of rows: no row of 2 is left: 1 excluded by where=\"q == 'a'\", 1 without 'answer'"
    )


def test_the_counselling_csv(tmp_path: Path) -> None:
    """BOM, Korean columns, a trailing empty column and empty cells, as in the published file."""
    text = '구분,유저,챗봇,\r\n감정,"안녕, 나야",네,\r\n감정,혼자야,,\r\n,응,그래,\r\n'
    (tmp_path / "wellness.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    dataset = load("wellness.csv", base_dir=tmp_path, needed=["유저", "챗봇"])
    assert dataset.columns == ("구분", "유저", "챗봇")
    assert [example.row["유저"] for example in dataset.examples] == ["안녕, 나야", "응"]
    assert (dataset.dropped, dataset.lacking) == (1, {"챗봇": 1})
    assert dataset.examples[1].row["구분"] is None


def test_files_without_header(tmp_path: Path) -> None:
    """Their columns are named by the suite."""
    (tmp_path / "a.tsv").write_text("good\t1\n")
    dataset = load("a.tsv", base_dir=tmp_path, columns=["text", "label"])
    assert dict(dataset.examples[0].row) == {"text": "good", "label": "1"}


def test_the_limit_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that never ends is stopped."""
    monkeypatch.setattr("pytest_llmtune.data.dataset.MAX_ROWS", 10)

    def endless() -> Iterator[dict[str, int]]:
        number = 0
        while True:
            yield {"n": number}

    assert "more than the limit of 10 rows" in complaint(endless)


def test_the_limit_of_bytes_holds_for_all_files_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A glob of many files is no way around it."""
    monkeypatch.setattr("pytest_llmtune.data.dataset.MAX_BYTES", 2_500)
    for name in "abc":
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": "x" * 1_000}])
    assert "larger than the limit" in complaint("*.jsonl", tmp_path)
    assert len(load("[ab].jsonl", base_dir=tmp_path).examples) == 2


def test_checking_reads_nothing(tmp_path: Path) -> None:
    """At collection only its being there is checked."""
    (tmp_path / "a.jsonl").write_text("no json")
    check_source("a.jsonl", tmp_path)
    check_source(failing, tmp_path)
    check_source("anything:at_all", tmp_path)
    with pytest.raises(SuiteError, match="unknown kind of file"):
        check_source(str(Path(__file__)), tmp_path)
    with pytest.raises(SuiteError, match="no option 'spilt'"):
        check_source("hf:x?spilt=test", tmp_path)


def test_code_outside_of_the_project_is_not_run(tmp_path: Path) -> None:
    """With a root, as for YAML suites, a function is one of the project's own."""
    (tmp_path / "mine.py").write_text("def rows():\n    return [{'q': 1}]\n")
    assert len(load("mine:rows", base_dir=tmp_path, root=tmp_path).examples) == 1
    assert "is outside the project" in complaint("os:getcwd", tmp_path, root=tmp_path)


@given(st.lists(st.fixed_dictionaries({"q": st.text(max_size=3)}), min_size=1, max_size=8), st.randoms())
def test_fingerprint_is_of_content(rows: list[dict[str, str]], random: Any) -> None:
    """Re-ordering the rows changes neither fingerprint nor the set of ids."""
    moved = list(rows)
    random.shuffle(moved)
    one, other = load(rows), load(moved)
    assert one.fingerprint == other.fingerprint
    assert {example.id for example in one.examples} == {example.id for example in other.examples}


def test_editing_one_row_changes_one_id() -> None:
    """So that it stales that row only."""
    edited = [*ROWS[:1], {"q": "b", "answer": "22"}, *ROWS[2:]]
    before, after = (tuple(example.id for example in load(rows).examples) for rows in (ROWS, edited))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert load(ROWS).fingerprint != load(edited).fingerprint
