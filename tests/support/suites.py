"""Suites for tests: a small declaration that is right, to be changed in one place at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SUMS = [{"question": f"{number} + 1", "answer": str(number + 1)} for number in range(30)]
WHERE = "tests/test_sums.py:12 (test_sums)"


def refusal(work: Callable[[], object]) -> str | None:
    """What our own error says of it; None where there is none. Any other error breaks through."""
    try:
        work()
    except LLMTuneError as error:
        return str(error)
    return None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A JSON Lines file, UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def keys(**changes: Any) -> dict[str, Any]:
    """The keys of a small suite with some changed; a key whose value is ``...`` is left out."""
    base = {"name": "sums", "dataset": SUMS, "prompt": "{question} = ?", "model": "m", "grader": "exact"}
    return {name: value for name, value in (base | changes).items() if value is not ...}


def suite(base_dir: Path | None = None, **changes: Any) -> Suite:
    """A small suite with some keys changed."""
    return Suite.from_mapping(keys(**changes), where=WHERE, base_dir=base_dir or Path.cwd())


def complaint(base_dir: Path | None = None, **changes: Any) -> str:
    """What is said about a small suite with some keys changed, without the place, which must lead every line."""
    with pytest.raises(SuiteError) as caught:
        suite(base_dir, **changes)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{WHERE}: ") for line in lines)
    return "\n".join(line.removeprefix(f"{WHERE}: ") for line in lines)


def load_complaint(base_dir: Path | None = None, **changes: Any) -> str:
    """What ``load`` says about a small suite with some keys changed, without the place."""
    declared = suite(base_dir, **changes)
    with pytest.raises(SuiteError) as caught:
        declared.load()
    return str(caught.value).removeprefix(f"{WHERE}: ")
