"""Data files: every format gives the same rows, in any script, and says the line where it cannot."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.suites import refusal

from pytest_llmtune.data.readers import FORMATS, format_of
from pytest_llmtune.errors import SuiteError

ROWS = [
    {"구분": "감정", "유저": '안녕, "친구"\n둘째 줄', "챗봇": "네"},
    {"구분": "Ünïcode", "유저": "tab\there", "챗봇": "שלום"},
]


def read(name: str, content: str | bytes, columns: list[str] | None = None) -> list[tuple[str, Any]]:
    data = content.encode() if isinstance(content, str) else content
    return list(FORMATS[format_of(name) or ""](data, name, columns))


def rows(name: str, content: str | bytes, columns: list[str] | None = None) -> list[Any]:
    return [row for _, row in read(name, content, columns)]


def complaint(name: str, content: str | bytes, columns: list[str] | None = None) -> str:
    with pytest.raises(SuiteError) as caught:
        read(name, content, columns)
    return str(caught.value)


def table(delimiter: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue()


CONTENTS = {
    "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n",
    "a.ndjson": "\r\n".join(json.dumps(row) for row in ROWS),
    "a.json": json.dumps(ROWS, ensure_ascii=False, indent=1),
    "b.json": json.dumps({"version": 1, "data": ROWS}),
    "a.csv": table(","),
    "a.tsv": table("\t"),
    "a.yaml": "\n".join(f"- {json.dumps(row)}" for row in ROWS),
    "a.YML": json.dumps(ROWS),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_all_formats_give_the_same_rows(name: str, encoding: str) -> None:
    """With and without a byte order mark, and as a spreadsheet's "Unicode text"."""
    assert rows(name, CONTENTS[name].encode(encoding)) == ROWS


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a.jsonl", "jsonl"),
        ("A.CSV", "csv"),
        ("a.jsonl.gz", "jsonl"),
        ("a.b.parquet", "parquet"),
        ("a.txt", None),
        ("jsonl", "jsonl"),
        ("a", None),
    ],
)
def test_format_by_name(name: str, format_: str | None) -> None:
    """The ending tells, in any case, before .gz."""
    assert format_of(name) == format_


def test_places_name_the_line() -> None:
    """So that an error about a row leads to it; a quoted cell may hold line breaks."""
    assert [place for place, _ in read("a.jsonl", '\n{"a":1}\n\n{"a":2}')] == ["a.jsonl:2", "a.jsonl:4"]
    assert [place for place, _ in read("a.csv", 'a\n"x\ny"\nz')] == ["a.csv:3", "a.csv:4"]
    assert [place for place, _ in read("a.json", "[{}, {}]")] == ["a.json: row 1", "a.json: row 2"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_line_ends_of_a_checkout_change_no_cell(name: str) -> None:
    """With core.autocrlf, a cell of several lines stays the same text."""
    assert [row for _, row in read(name, 'a\r\n"x\r\ny"\r\n')] == [row for _, row in read(name, 'a\n"x\ny"\n')]


def test_strange_line_ends_inside_json_strings() -> None:
    """U+2028 and NEL end no line of JSON Lines."""
    text = "a\u2028b\u0085c\x0bd"
    assert rows(
        "a.jsonl", json.dumps({"t": text}, ensure_ascii=False).replace("\\u000b", "\x0b").replace("\x0b", "\\u000b")
    ) == [{"t": text}]


def test_one_object_is_one_row() -> None:
    """MATH keeps each problem in a file of its own; a list inside a row is no list of rows."""
    assert rows("a.json", '{"problem": "p", "solution": "s"}') == [{"problem": "p", "solution": "s"}]
    assert rows("a.json", '{"data": [1, 2], "answer": "x"}') == [{"data": [1, 2], "answer": "x"}]


def test_cells_of_tables_are_texts_or_missing() -> None:
    """An empty or blank cell is missing; a short line lacks its last cells."""
    assert rows("a.csv", "a,b,c\n1,,x\n 2 , ,\n3\n") == [
        {"a": "1", "b": None, "c": "x"},
        {"a": " 2 ", "b": None, "c": None},
        {"a": "3", "b": None, "c": None},
    ]


def test_trailing_empty_columns_are_left_out() -> None:
    """As in exports of spreadsheets: a header and cells that end in commas."""
    assert rows("a.csv", "a,b,,\n1,2,,\n3,4\n") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert rows("a.csv", "a,b\n1,2,,\n") == [{"a": "1", "b": "2"}]
    assert rows("a.csv", ",a\n,1\n") == [{"a": "1"}]


def test_a_value_in_an_unnamed_column_is_an_error() -> None:
    """A lost cell is usually a missing quotation mark."""
    said = "a.csv:3: the cell 'oops' is in no named column; the header is 'a', 'b'"
    assert complaint("a.csv", "a,b\n1,2\n1,2,oops\n") == said
    assert "a.csv:2: the cell 'x' is in no named column" in complaint("a.csv", "a,\n1,x\n")


def test_blank_lines_of_tables_are_skipped() -> None:
    """Also lines of nothing but separators."""
    assert rows("a.csv", "a,b\n\n1,2\n,\n\n") == [{"a": "1", "b": "2"}]


def test_a_table_without_header() -> None:
    """The suite's key columns names them."""
    assert rows("a.tsv", "good\t1\nbad\t0\n", ["text", "label"]) == [
        {"text": "good", "label": "1"},
        {"text": "bad", "label": "0"},
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.yaml"])
def test_empty_files_hold_no_row(name: str) -> None:
    """No row, or our own error; never a crash."""
    said = refusal(lambda: rows(name, "") == [] or pytest.fail("rows out of nothing"))
    assert said is None or said.startswith(name)


def test_lone_quotation_marks_in_tsv() -> None:
    """Programs other than spreadsheets write them as they are; spreadsheets quote."""
    assert rows("a.tsv", 'q\ta\n"hi there\tx\nsay "no"\ty\n') == [
        {"q": '"hi there', "a": "x"},
        {"q": 'say "no"', "a": "y"},
    ]
    assert rows("a.tsv", 'q\ta\n"hi"\n') == [{"q": "hi", "a": None}]
    assert rows("a.tsv", 'q\ta\n"hi ""you""\tthere"\tx\n') == [{"q": 'hi "you"\tthere', "a": "x"}]


def test_large_cells_and_the_limit_of_csv() -> None:
    """csv's own limit of 128 KB per cell is lifted while we read, and put back."""
    before = csv.field_size_limit()
    assert rows("a.csv", "a\n" + "x" * 200_000)[0]["a"] == "x" * 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "a.jsonl:2: not JSON: Expecting value at column 7"),
        ("a.jsonl", '{"a": 1} {"a": 2}', "a.jsonl:1: not JSON: Extra data"),
        ("a.json", '[\n{"a": 1},\n]', "a.json:"),
        ("a.json", "5", "a.json: contains 5; valid: a list of rows"),
        ("a.yaml", "- a: 1\n- a: [", "a.yaml: not YAML: line"),
        ("a.yaml", "- !!python/object/apply:os.getcwd []", "not YAML: line 1: tags are not allowed here"),
        ("a.yaml", "- &a [1]\n- *a", "anchors and aliases are not allowed here"),
        ("a.csv", 'a,b\n"x"y,2\n', "a.csv:2: not a table:"),
        ("a.csv", 'a\n"never closed', "a.csv:2: not a table:"),
        ("a.csv", "a,b,a\n1,2,3", "a.csv: the header names 'a' twice"),
        ("a.jsonl", b'{"a": "\xb0\xa1"}', "a.jsonl:1: byte 0xb0 is not UTF-8; save the file as UTF-8"),
        ("a.csv", "이름\n값".encode("cp949"), "iconv -f CP949"),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", "not usable JSON"),
        ("a.json", "[" * 100_000, "not usable JSON"),
        ("a.parquet", b"PAR1 no", "a.parquet: not usable parquet"),
    ],
)
def test_errors_name_the_file_and_the_line(name: str, content: str | bytes, says: str) -> None:
    """What is not that format is told in one sentence."""
    assert says in complaint(name, content)


def test_parquet() -> None:
    """Columns of any type and script; NaN and null are kept for the rows' own cleaning."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    data = {"유저": ["안녕", None], "n": [1, 2], "x": [0.5, math.nan], "l": [["a"], []], "m": [{"k": 1}, {"k": 2}]}
    parquet.write_table(pyarrow.table(data), out)
    first, second = rows("a.parquet", out.getvalue())
    assert first == {"유저": "안녕", "n": 1, "x": 0.5, "l": ["a"], "m": {"k": 1}}
    assert second["유저"] is None
    assert math.isnan(second["x"])


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
CELL = TEXT.filter(lambda text: bool(text.strip()))


@given(st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.booleans() | st.none()), max_size=5))
def test_json_lines_round_trip(data: list[dict[str, Any]]) -> None:
    """Whatever JSON can say comes back."""
    assert rows("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in data)) == data
    assert rows("a.json", json.dumps(data)) == data


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
@example([("0", "0\r\n0")])
def test_tables_round_trip(cells: list[tuple[str, str]]) -> None:
    """Commas, quotation marks and line breaks inside of cells come back; \\r\\n as \\n, which git may make of it."""
    out = io.StringIO()
    csv.writer(out).writerows([("one", "two"), *cells])
    expected = [{"one": one.replace("\r\n", "\n"), "two": two.replace("\r\n", "\n")} for one, two in cells]
    assert rows("a.csv", out.getvalue()) == expected


@given(
    name=st.sampled_from(["a.csv", "a.tsv", "a.json", "a.jsonl", "a.yaml", "a.parquet"]), content=st.binary(max_size=60)
)
def test_any_bytes_are_read_or_refused(name: str, content: bytes) -> None:
    """No file makes anything but rows or our own error."""
    said = refusal(lambda: read(name, content))
    assert said is None or said.startswith(name)


@given(
    content=st.text(alphabet='[]{}",:\\ \n\t-ab1e&*!|>', max_size=60),
    name=st.sampled_from(["a.csv", "a.tsv", "a.json", "a.yaml"]),
)
def test_any_text_is_read_or_refused(name: str, content: str) -> None:
    """The same with text that is nearly right."""
    said = refusal(lambda: read(name, content))
    assert said is None or said.startswith(name)


def test_gzip_is_not_this_rooms_work() -> None:
    """Formats get unpacked bytes; packed ones are refused as what they are."""
    assert "a.jsonl" in complaint("a.jsonl", gzip.compress(b"{}"))
