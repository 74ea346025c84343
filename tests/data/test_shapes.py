"""How data files are written: pandas' orientations, other separators, YAML 1.2, and what is told instead of guessed."""

from __future__ import annotations

import json
from typing import Any

import pandas
import pytest
from support.suite_files import read_suites
from support.suites import refusal

from pytest_llmtune import Suite
from pytest_llmtune.data.dataset import load
from pytest_llmtune.data.readers import FORMATS
from pytest_llmtune.errors import SuiteError

ROWS = [{"question": "1 + 1", "answer": 2}, {"question": "2 + 2", "answer": 4}]


def rows(name: str, content: str | bytes) -> list[Any]:
    data = content.encode() if isinstance(content, str) else content
    return [row for _, row in FORMATS[name.rpartition(".")[2]](data, name, None)]


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
def test_json_of_pandas(orient: Any) -> None:
    """Every orientation that names the columns; also of one row."""
    for table in (pandas.DataFrame(ROWS), pandas.DataFrame(ROWS[:1])):
        found = [
            {name: row[name] for name in row if name != "index"} for row in rows("d.json", table.to_json(orient=orient))
        ]
        assert found == table.to_dict("records")


def test_one_row_alone_is_no_table() -> None:
    """Whatever is nested in it."""
    row = {"question": {"text": "a", "lang": "en"}, "answer": {"text": "b", "lang": "en"}}
    assert rows("d.json", json.dumps(row)) == [row]
    assert "as many values" in refusal(lambda: rows("d.json", '{"columns": ["a", "b"], "data": [[1]]}'))


@pytest.mark.parametrize(
    ("content", "mark"),
    [
        ("question;answer\na;1,5\nb;2,5\nc;3\n", "semicolons"),
        ("question\tanswer\na, b\t1\nc\t2\n", "tabs"),
        ('question;answer\n"a;b";1\nc;2\n', "semicolons"),
        ("question,answer\na;b,1\nc,2\n", None),
        ('question,answer\n"a, b;c",1\n', None),
        ("question\na;b\nc\n", None),
    ],
)
def test_separators_are_seen_and_reported(tmp_path: Any, content: str, mark: str | None) -> None:
    """In the first lines of a CSV file; commas where there is a doubt."""
    (tmp_path / "d.csv").write_text(content, encoding="utf-8")
    data = load("d.csv", base_dir=tmp_path)
    assert data.columns == (("question",) if "answer" not in content else ("question", "answer"))
    assert [mark in note for note in data.notes] == ([True] if mark else [])


def test_yaml_data_are_yaml_1_2() -> None:
    """What YAML 1.1 takes for truths, octals, times and dates is text; so is a number whose zeros would be lost."""
    texts = ["no", "yes", "on", "off", "012", "00", "12:30", "2024-01-01", "0x1F", "1_000", "007.5", "<<"]
    assert rows("d.yaml", "".join(f"- {{a: {text}}}\n" for text in texts)) == [{"a": text} for text in texts]
    values = {
        "true": True,
        "12": 12,
        "-3": -3,
        "0": 0,
        "1.5": 1.5,
        "1e3": 1000.0,
        "null": None,
        "~": None,
        '"no"': "no",
    }
    assert rows("d.yaml", "".join(f"- {{a: {text}}}\n" for text in values)) == [
        {"a": value} for value in values.values()
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", '[{"a": 1e400}]', "1e400 is too large for a number"),
        ("d.jsonl", '{"a": 1}\n{"a": -1e999}\n', "d.jsonl:2: not usable JSON: -1e999"),
        ("d.json", '[{"a": 1, "b": 2, "a": 3}]', "duplicate key 'a'"),
        ("d.jsonl", '{"a": {"b": 1, "b": 1}}\n', "duplicate key 'b'"),
        ("d.csv", "a,b\n1,2\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("d.jsonl", '{"a": 1}\n'.encode("utf-16-be"), "UTF-16 without a byte order mark"),
        ("d.jsonl", '{"a": 1}\n'.encode("utf-16-be"), "iconv -f UTF-16BE"),
        ("d.yaml", "- {a: 1}\n- {a: -1e400}\n", "line 2: -1e400 is too large for a number"),
        ("d.csv", b"a,b\n1,\x002 and a longer text that follows\n", "NUL bytes"),
    ],
)
def test_what_is_an_error_instead_of_a_guess(name: str, content: str | bytes, message: str) -> None:
    """Numbers past all bounds, doubled keys, an encoding that is not said."""
    assert message in refusal(lambda: rows(name, content))


@pytest.mark.parametrize(
    ("name", "content", "mark"),
    [
        ("d.csv", "question|answer\na;b,c|1\nd|2\n", "|"),
        ("d.csv", "question;answer\na,b,c;1\nd;2\n", ";"),
        ("d.tsv", "question^answer\na\tb^1\n", "^"),
        ("d.tsv", 'question\tanswer\na "b\t1\n', "\t"),
        ("d.csv", "question¦answer\na¦1\n", "¦"),
    ],
)
def test_a_separator_is_named(tmp_path: Any, name: str, content: str, mark: str) -> None:
    """Then nothing is guessed, and nothing is noted; in a YAML suite as in a marker."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    data = load(name, base_dir=tmp_path, delimiter=mark)
    assert data.columns == ("question", "answer")
    assert {row.row["answer"] for row in data.examples} <= {"1", "2"}
    assert data.notes == ()
    (tmp_path / "s.llmtune.yaml").write_text(
        f"dataset: {name}\ndelimiter: {json.dumps(mark)}\nprompt: '{{question}}'\nmodel: m\ngrader: exact\n", "utf-8"
    )
    [(suite, _)] = read_suites(tmp_path / "s.llmtune.yaml", shown_as="s", root=tmp_path)
    assert suite.load().dataset.columns == data.columns  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "mark", "message"),
    [
        ("question;answer\na,b;1\nd;2\n", ",", "no ',', and cells seem to be separated by semicolons: delimiter=';'"),
        ("question,answer\na,1\n", "|", "no '|', and cells seem to be separated by commas"),
        ("question|answer\na|b|1\n", "|", "is in no named column"),
        ([{"a": 1}], ";", "delimiter is for CSV and TSV files, and not for the list of rows"),
    ],
)
def test_a_wrong_separator_is_refused(tmp_path: Any, source: Any, mark: str, message: str) -> None:
    """With the one that the first lines show."""
    (tmp_path / "d.csv").write_text(source if isinstance(source, str) else "", encoding="utf-8")
    (tmp_path / "d.jsonl").write_text('{"a": 1}', encoding="utf-8")
    given = "d.csv" if isinstance(source, str) else source
    assert message in refusal(lambda: load(given, base_dir=tmp_path, delimiter=mark))
    assert "not for d.jsonl" in refusal(lambda: load("d.jsonl", base_dir=tmp_path, delimiter=mark))


HISTORY = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Who?"},
]


@pytest.mark.parametrize("cell", [HISTORY, json.dumps(HISTORY)], ids=["list", "JSON"])
def test_messages_from_a_column(cell: Any) -> None:
    """As they are, and as the lock file keeps the template."""
    suite = Suite(
        name="s",
        dataset=[{"history": cell, "answer": "me"}],
        messages="{history}",
        model="m",
        grader="exact",
        tune_size=1,
    )
    [template] = suite.space.templates
    assert list(template.render({"history": cell})) == HISTORY
    assert template.to_lock() == "{history}"
    assert suite.load().test


@pytest.mark.parametrize("cell", ["Hi", [], [{"content": "Hi"}], [{"role": "robot", "content": "x"}], 7])
def test_a_column_without_messages_is_reported(cell: Any) -> None:
    """With the column and what it holds."""
    suite = Suite(
        name="s", dataset=[{"history": HISTORY, "answer": "me"}], messages="{history}", model="m", grader="exact"
    )
    [template] = suite.space.templates
    with pytest.raises(SuiteError, match="the column 'history' has"):
        template.render({"history": cell})


@pytest.mark.parametrize("raw", ["Hi {history}", "{history!r}", "{history:>9}", "history", ""])
def test_only_a_column_stands_for_messages(raw: str) -> None:
    """Anything else is no list of messages."""
    with pytest.raises(SuiteError, match="messages"):
        Suite(name="s", dataset=[{"history": HISTORY}], messages=raw, model="m", grader="exact")
