"""The value that every report is made from."""

from __future__ import annotations

import json
from time import process_time
from typing import TYPE_CHECKING

import pytest
from support.results import evaluation, lock, report, result, scores

from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard.results_file import dumps, loads
from pytest_llmtune.guard.verdict import Criteria, Stale

if TYPE_CHECKING:
    from pytest_llmtune.guard.result import SuiteReport


def test_it_crosses_processes_as_plain_data() -> None:
    """Only JSON's own types are in the data, so that xdist can send them; what arrives is equal."""
    one = report(scores(1, 0, None), lock(scores(1, 1, 1)))
    data = one.to_data()
    assert json.loads(json.dumps(data)) == data
    assert loads(dumps([one])) == (one,)


def test_other_data_are_refused() -> None:
    """Data of another shape are a ReportError with the place, not a traceback."""
    data = json.loads(dumps([report(scores(1))]))
    data["suites"][0]["evaluation"]["results"][0]["grade"]["votes"] = [["a"]]
    place = r"suites\[0\]\.evaluation\.results\[0\]\.grade\.votes\[0\]"
    with pytest.raises(ReportError, match=place + r" is \['a'\], not a list of 2"):
        loads(json.dumps(data))
    with pytest.raises(ReportError, match=r"suites\[0\] is None, not a mapping"):
        loads(json.dumps({**data, "suites": [None]}))


def test_ten_thousand_examples_cross_in_seconds() -> None:
    """10,000 examples of five answers are converted and read back in a few seconds of CPU."""
    one = report(evaluation([result(i) for i in range(10_000)]))
    start = process_time()
    [found] = loads(dumps([one]))
    assert len(found.evaluation.results) == 10_000  # type: ignore[union-attr]
    assert process_time() - start < 5


@pytest.mark.parametrize(
    ("one", "options"),
    [
        (report(scores(1), lock(scores(1))), []),
        (report(scores(0), lock(scores(1))), ["--llm-accept", "--llm-tune"]),
        (report(scores(None), mode="live"), ["--llm-live"]),
        (report(scores(None), mode="record=all"), ["--llm-record=all"]),
        (report(scores(1, None, None, None), lock(scores(1, 1, 1, 1)), mode="live"), ["--llm-live"]),
        (report(scores(1, None), lock(scores(1, 1)), stale=[Stale("x", "--llm-accept")]), ["--llm-record=missing"]),
        (
            report(None, stale=[Stale("x", "--llm-a"), Stale("y", "--llm-b"), Stale("z", "--llm-a")]),
            ["--llm-a", "--llm-b"],
        ),
        (
            report(scores(0), lock(scores(1)), Criteria(max_drop=0), stale=[Stale("x", "--llm-accept")]),
            ["--llm-accept"],
        ),
    ],
)
def test_the_next_command_fits_the_verdict(one: SuiteReport, options: list[str]) -> None:
    """Each status has its mending command, for just this suite, and none is named twice."""
    assert [command for command, _ in one.commands] == [f"pytest {option} {one.nodeid}" for option in options]
