"""The results of a run as JSON, and back."""

from __future__ import annotations

import dataclasses
import json
import typing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.results import compared, evaluation, lock, report, result, scores

from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard import results_schema
from pytest_llmtune.guard.gates import judge
from pytest_llmtune.guard.lockfile import Measured, StudySummary, TrialSummary
from pytest_llmtune.guard.result import SuiteReport
from pytest_llmtune.guard.results_file import dumps, loads, read, write
from pytest_llmtune.guard.verdict import Criteria, Limit, Stale
from pytest_llmtune.report.html import page
from pytest_llmtune.types import Interval

STUDY = StudySummary(
    (TrialSummary(1, {"model": "m"}, Measured(0.5, 0.1, 0.9), Decimal("0.1"), Decimal(1), "done"),),
    Decimal(1),
    "num_samples",
)
REPORT = report(
    scores(1, 0, 0.5, None),
    lock(scores(1, 1, 1, 1), STUDY),
    Criteria(max_drop=0.02, limits=(Limit("success", "min", Decimal("0.70")),)),
    study=STUDY,
    compared=(compared("untuned", 0.5, "0.00120"),),
    notes=("a note",),
    spent=Decimal("0.10"),
)
EMPTY = report(None, stale=[Stale("no recording", "--llm-record=missing")])


def test_every_report_survives_the_file(tmp_path: Path) -> None:
    """A suite with everything and one with nothing come back equal, amounts with all their digits."""
    write(tmp_path / "results.json", [REPORT, EMPTY])
    assert read(tmp_path / "results.json") == (REPORT, EMPTY)


@given(st.text(), st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.booleans(), max_size=4))
def test_any_answer_and_row_survive(answer: str, row: dict[str, Any]) -> None:
    """Whatever a model said or a row holds, the document is JSON in plain ASCII and reads back equal."""
    one = report(evaluation([result(0, answer=answer, row=row or {"q": "?"})]))
    text = dumps([one])
    assert text.isascii()
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert loads(text) == (one,)


def test_the_published_schema_is_todays_and_holds() -> None:
    """After a change of the types: python -m pytest_llmtune.guard.results_schema."""
    jsonschema = pytest.importorskip("jsonschema")
    assert results_schema.PATH.read_text(encoding="utf-8") == results_schema.text()
    jsonschema.Draft202012Validator.check_schema(results_schema.schema())
    validator = jsonschema.Draft202012Validator(results_schema.schema())
    document = json.loads(dumps([REPORT, EMPTY], killed=Decimal("0.1")))
    validator.validate(document)
    for change in (
        {"version": 2},
        {"spent": 0.1},
        {"suites": [{**document["suites"][0], "verdict": {"status": "ok"}}]},
    ):
        assert not validator.is_valid({**document, **change})


def test_figures_that_are_no_numbers_are_written() -> None:
    """NaN and infinity have no JSON number; they are text in the document, in the lock and on the page."""
    today = evaluation([result(0, metrics={"share": float("nan"), "loss": float("inf")})])
    (read_back,) = loads(dumps([report(today, lock(today), criteria=Criteria(metric="share"))]))
    assert str(read_back.evaluation.metrics) == str(today.metrics)  # type: ignore[union-attr]
    assert "nan" in page([read_back])


def test_a_verdict_can_be_judged_again_from_the_document() -> None:
    """Criteria, results and baseline are all there: judging what was read gives the very same verdict."""
    (again,) = loads(dumps([REPORT]))
    assert judge(again.evaluation, again.criteria, again.baseline, columns=again.columns) == REPORT.verdict


def test_the_head_counts_verdicts_and_dollars() -> None:
    """A script need not walk the suites to see how a run went."""
    data = json.loads(dumps([REPORT, REPORT, EMPTY]))
    assert (data["format"], data["version"]) == ("pytest-llmtune results", 1)
    assert data["verdicts"] == {"inconclusive": 2, "stale": 1}
    assert data["spent"] == "0.20"
    assert data["generator"].startswith("pytest-llmtune ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "results of version 2; this pytest-llmtune reads 1"),
        ({"format": "x"}, "not a results file of pytest-llmtune"),
        ({"suites": {}}, "not a results file of pytest-llmtune"),
        ({"suites": [{}]}, r"suites\[0\] lacks criteria, line, mode, name, nodeid, path, verdict"),
        ({"suites": [3]}, r"suites\[0\] is 3, not a mapping"),
    ],
)
def test_other_documents_are_refused(change: dict[str, Any], message: str) -> None:
    """A document of another kind or version is named as such, with the place."""
    data = json.loads(dumps([])) | change
    with pytest.raises(ReportError, match=message):
        loads(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000, '{"a": 1e999}', "\x00"])
def test_broken_documents_are_refused(text: str) -> None:
    """Anything but our own JSON is a ReportError, nothing else."""
    with pytest.raises(ReportError, match="the results: not "):
        loads(text)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """Missing, unreadable, foreign or unwritable files are ReportErrors with the path."""
    with pytest.raises(ReportError, match=r"gone\.json: the results cannot be read"):
        read(tmp_path / "gone.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ReportError, match=r"binary\.json: not UTF-8 text"):
        read(tmp_path / "binary.json")
    with pytest.raises(ReportError, match="the results cannot be written"):
        write(tmp_path, [])


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value in JSON data."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@given(st.data())
def test_no_damage_escapes_as_another_error(data: st.DataObject) -> None:
    """Any value replaced by another or taken away: the document is read, or refused with a ReportError of one line."""
    document = json.loads(dumps([REPORT]))
    path = data.draw(st.sampled_from(places(document)[1:]))
    holder = document
    for step in path[:-1]:
        holder = holder[step]
    wrong = data.draw(st.sampled_from([None, True, -1, 1.5, "x", [], {}, [[]], {"a": 1}, "NaN", 10**400]))
    if data.draw(st.booleans()):
        holder[path[-1]] = wrong
    else:
        del holder[path[-1]]
    try:
        message = repr(loads(json.dumps(document)))
    except ReportError as error:
        message = str(error)
    assert message
    assert "\n" not in message


def fields(kind: Any, seen: set[Any]) -> set[str]:
    """Names of all fields of all values that a report is made of."""
    if kind in seen:
        return set()
    seen.add(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        own = {one.name: hints[one.name] for one in dataclasses.fields(kind)}
        return {*own, *(name for hint in own.values() for name in fields(hint, seen))}
    return {name for part in typing.get_args(kind) for name in fields(part, seen)}


def test_the_documentation_names_every_field() -> None:
    """docs/json.md is kept true: it explains each field that a document can hold."""
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    missing = sorted(name for name in fields(SuiteReport, set()) if f"`{name}`" not in text)
    assert missing == []


def test_an_interval_keeps_its_confidence() -> None:
    """Intervals say of what confidence they are."""
    data = json.loads(dumps([REPORT]))["suites"][0]["verdict"]["interval"]
    assert data == {"low": 0.4, "high": 0.6, "confidence": Interval(0, 1).confidence}
