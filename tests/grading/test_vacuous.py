"""Graders that answers without content can satisfy are refused before anything is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from support.llm_server import LLMServer

from pytest_llmtune import Suite, tune
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.grading import check
from pytest_llmtune.grading.custom import Function
from pytest_llmtune.settings import Settings
from pytest_llmtune.types import Example

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = [{"question": f"{n} + 1?", "answer": f"\\boxed{{{n + 1}}}", "title": ""} for n in range(20)]


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer("Whatever.") as running:
        yield running


def search(server: LLMServer, root: Path, grader: Any, rows: list[dict[str, str]] = ROWS, **keys: Any) -> None:
    suite = Suite(
        name="vacuous", dataset=rows, prompt="{question}", model="m", grader=grader, n=1, max_tokens=20,
        prices={"m": {"input": 1, "output": 1}}, optimization_budget=1, tune_size=10, **keys,
    )  # fmt: skip
    tune(suite, settings=Settings(root=root, base_url=server.base_url))


def always(responses: list[str], answer: str) -> dict[str, float]:
    return {"success_vote": 1.0, "success": 1.0}


def nothing_equals_nothing(responses: list[str], **row: str) -> dict[str, float]:
    """The ancestor's flaw: where neither text holds a box, None == None."""
    boxed = [text if "\\boxed" in text else None for text in responses]
    return {"success_vote": float(boxed[0] == row.get("solution"))}


def any_number(responses: list[str], answer: str) -> dict[str, float]:
    return {"success_vote": float(any(char.isdigit() for char in responses[0]))}


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        (always, r"always is vacuous.*\n  row 1: white space has success 1\n  row 2"),
        (nothing_equals_nothing, "nothing_equals_nothing is vacuous"),
        (any_number, "the reference of another row"),
        ({"math": {"reference": "question"}}, r"cannot use the reference of 20 of 20 rows"),
        ({"regex": {"pattern": None, "reference": "pattern"}}, "vacuous|cannot use"),
    ],
)
def test_it_is_refused_without_one_request(server: LLMServer, tmp_path: Path, grader: Any, message: str) -> None:
    """The rows and what was accepted are listed."""
    rows = [row | {"pattern": ".*", "question": f"words only, {row['question']} please"} for row in ROWS]
    with pytest.raises(LLMTuneError, match=message):
        search(server, tmp_path, grader, rows)
    assert server.count == 0


def test_a_suite_that_means_it_says_so(server: LLMServer, tmp_path: Path) -> None:
    """``allow_vacuous=True`` lets it run."""
    search(server, tmp_path, always, allow_vacuous=True)
    assert server.count > 0


def test_a_row_without_a_reference_is_listed(server: LLMServer, tmp_path: Path) -> None:
    """By its number, with what is wrong with it; five are enough."""
    rows = [row | {"answer": "no box" if index in (3, 7) else row["answer"]} for index, row in enumerate(ROWS)]
    with pytest.raises(LLMTuneError, match=r"2 of 20 rows:\n  row 4: .*\n  row 8: ") as caught:
        search(server, tmp_path, "math", rows)
    assert "no box" in str(caught.value)
    assert server.count == 0


@pytest.mark.parametrize(
    ("mode", "value", "refused"), [("max", 1.0, True), ("max", 0.0, False), ("min", 0.0, True), ("min", 1.0, False)]
)
def test_the_best_value_for_nothing_is_vacuous_both_ways(
    mode: Literal["max", "min"], value: float, refused: bool
) -> None:
    """Where less is better, a perfect zero for an empty answer is the success that it must not be."""

    def constant(responses: list[str], answer: str) -> dict[str, float]:
        return {"score": value}

    grader = Function(constant)
    examples = [Example(f"{index:016x}", index, {"q": str(index), "answer": str(index)}) for index in range(4)]
    if refused:
        with pytest.raises(SuiteError, match=f"row 1: white space has score {value:g}"):
            check(grader, examples, metric="score", mode=mode)
    else:
        check(grader, examples, metric="score", mode=mode)


def test_who_looks_for_wrong_answers_finds_them_in_nonsense() -> None:
    """A success metric that is minimised is no measure of emptiness, whichever way it points."""
    grader = Function(lambda responses, answer: {"success_vote": float(responses[0] == answer)})
    examples = [Example(f"{index:016x}", index, {"q": str(index), "answer": str(index)}) for index in range(4)]
    check(grader, examples, metric="success_vote", mode="min")
