"""Results of many examples: as a tuple of them, and not in memory."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from dataclasses import replace
from decimal import Decimal
from subprocess import run
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exchanges import body_of, exchange
from support.results import evaluation, lock, result

from pytest_llmtune._util import files as spool
from pytest_llmtune._util.serialize import to_plain
from pytest_llmtune.completions.source import ReplaySource
from pytest_llmtune.grading import resolve
from pytest_llmtune.guard import evaluation as evaluating
from pytest_llmtune.guard.evaluation import Collector, SpilledResults, evaluate
from pytest_llmtune.money.prices import PriceBook
from pytest_llmtune.recording import Recording
from pytest_llmtune.suite import Config, Template
from pytest_llmtune.types import Answer, Example, ExampleGrade, ExampleResult, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_llmtune.types import Evaluation

_TEXT = st.text(st.characters(exclude_categories=()))
_GRADES = st.builds(
    ExampleGrade,
    st.dictionaries(_TEXT, st.floats(allow_nan=False)),
    st.lists(st.tuples(_TEXT, st.integers(0, 9))).map(tuple),
    st.none() | _TEXT,
    st.lists(st.builds(Answer, st.none() | _TEXT, _TEXT, st.booleans())).map(tuple),
)
_FOUND = st.builds(
    ExampleResult,
    st.just(Example("0" * 16, 0, {"q": "?"})),
    st.sampled_from(["ok", "refused", "unknown"]),
    st.none() | _GRADES,
    st.lists(_TEXT).map(tuple),
    st.builds(Usage, *[st.integers(0, 10**6)] * 3, st.booleans()),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.floats(0, 1e6),
    st.none() | _TEXT,
)


def kept(results: Sequence[ExampleResult]) -> SpilledResults:
    """On disk; the last one is put there first."""
    found = SpilledResults([each.example for each in results])
    for place in reversed(range(len(results))):
        found[place] = results[place]
    return found


@given(st.lists(_FOUND, max_size=4))
def test_results_are_as_a_tuple_of_them(results: list[ExampleResult]) -> None:
    """Whatever they hold, lone surrogates included: equal, as long, in order, and the same in JSON."""
    found = kept(results)
    assert found == tuple(results)
    assert (len(found), list(found), found[1:], repr(found)) == (
        len(results), results, tuple(results[1:]), repr(tuple(results)),
    )  # fmt: skip
    assert to_plain(found) == to_plain(results)


def test_other_results_are_not_equal() -> None:
    """One cent, one letter, one more."""
    one = result(1)
    assert kept([one]) != (result(1, answer="7"),)
    assert kept([one]) != (one, one)
    assert kept([one]) != [one]


def test_a_lock_file_says_the_same_of_results_on_disk() -> None:
    """Verdict's figures and the baseline's text are those of results in memory, unknown ones included."""
    results = [result(number, [1.0, 0.0, 0.25, None][number % 4], answer=str(number)) for number in range(40)]
    usual, found = evaluation(results), evaluating.evaluation_of({"model": "small"}, kept(results))
    assert found == evaluating.evaluation_of({"model": "small"}, results)
    assert lock(replace(usual, results=kept(results))).text() == lock(usual).text()
    assert [each.example.index for each in found.unknown] == list(range(3, 40, 4))


def recorded(path: Path, count: int) -> Recording:
    """Of so many rows, five answers each, with 2,000 characters in each answer."""
    answers = [f"{'so ' * 666}{number}" for number in range(5)]
    Recording.write(path, (exchange(f"q{row}", *answers) for row in range(count)))
    return Recording.load(path)


def rows(count: int) -> list[Example]:
    return [Example(f"{row:016x}", row, {"q": f"q{row}", "answer": "3"}) for row in range(count)]


def replayed(
    recording: Recording, examples: Sequence[Example], collected: Callable[[Collector], None] = lambda _: None
) -> Evaluation:
    """The evaluation of all rows, from their recording."""
    parameters = {name: value for name, value in body_of("").items() if name != "messages"} | {"n": 5}
    collector = Collector(ReplaySource(recording))
    job = evaluate(
        Config(parameters, Template.prompt("{q}")),
        examples,
        grader=resolve("numeric"),
        source=collector,
        prices=PriceBook({"small": {"input": 1, "output": 1}}),
    )
    found = asyncio.run(job)
    collected(collector)
    return found


def bytes_a_row(measured: Callable[[int], int]) -> float:
    """What a row more leaves, of which what does not grow is no part."""
    few, many = 30, 90
    measured(few)  # for what is made once
    return (measured(many) - measured(few)) / (many - few)


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are treated as many."""
    monkeypatch.setattr(evaluating, "_MANY", 0)
    monkeypatch.setattr(spool, "_IN_MEMORY", 1000)


@pytest.mark.usefixtures("on_disk")
def test_few_bytes_a_row_stay_in_memory(tmp_path: Path) -> None:
    """Of ten thousand characters of answers, their grades, votes, tokens and dollars, and of what will be recorded."""

    def held(count: int) -> int:
        recording, examples = recorded(tmp_path / f"{count}.cassette.json", count), rows(count)
        held_by: list[object] = []
        gc.collect()
        tracemalloc.start()
        held_by.append(replayed(recording, examples, held_by.append))
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size

    assert bytes_a_row(held) < 400


@pytest.mark.usefixtures("on_disk")
def test_a_recording_is_written_without_being_held(tmp_path: Path) -> None:
    """At most a request's text of every row is in memory, and never the answers."""

    def most(count: int) -> int:
        path = tmp_path / f"{count}.cassette.json"
        recording, collectors = recorded(path, count), list[Collector]()
        replayed(recording, rows(count), collectors.append)
        gc.collect()
        tracemalloc.start()
        Recording.write(path.with_name(f"again-{count}.cassette.json"), collectors[0].gathered.exchanges)
        _, size = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert path.with_name(f"again-{count}.cassette.json").read_bytes() == path.read_bytes()
        return size

    assert bytes_a_row(most) < 600


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_no_room_for_results_is_reported() -> None:
    """A full disk ends the run with a sentence that says what to do; nothing is lost silently."""
    code = (
        "import resource\n"
        "from pytest_llmtune._util.files import Spool\n"
        "from pytest_llmtune.errors import CacheError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n"
        "spool = Spool()\n"
        "try:\n"
        "    for number in range(100): spool.put('x' * 10_000)\n"
        "except CacheError as error: print(number, error)\n"
    )
    told = run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.startswith(("59 ", "60 "))
    assert "free disk space" in told
    assert "TMPDIR" in told


def test_results_on_disk_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation is equal, to the cent and to the digit, wherever the results are."""
    recording = recorded(tmp_path / "q.cassette.json", 30)
    usual = replayed(recording, rows(30))
    monkeypatch.setattr(evaluating, "_MANY", 29)
    found = replayed(recording, rows(30))
    assert isinstance(found.results, SpilledResults)
    assert isinstance(usual.results, tuple)
    assert found.results == usual.results
    assert found == usual
    assert found.cost == Decimal(0) < found.inference_cost
