"""The name under which an interrupted re-recording resumes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording.housekeeping import RerecordSession

if TYPE_CHECKING:
    from pathlib import Path


def test_a_killed_run_is_resumed_until_one_ends(tmp_path: Path) -> None:
    """The same name, so that the cache has its answers; after the end another one."""
    session = RerecordSession.of(tmp_path / "a.cassette.json", tmp_path)
    name = session.begin()
    assert session.begin() == name
    session.end()
    assert session.begin() != name
    session.file.write_text("not a name\n", encoding="utf-8")
    assert session.begin().startswith("record-")
    session.end()
    session.end()


def test_a_live_run_is_resumed_only_on_the_same_day(tmp_path: Path) -> None:
    """Models may have changed since."""
    session = RerecordSession.of(tmp_path / "a.cassette.json", tmp_path, today=True)
    name = session.begin()
    assert session.begin() == name
    before = time.time() - 2 * 86_400
    os.utime(session.file, (before, before))
    assert session.begin() != name


@pytest.mark.parametrize("step", [RerecordSession.begin, RerecordSession.end])
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, step: object) -> None:
    """Nothing is asked for that could not be resumed."""
    session = RerecordSession.of(tmp_path / "a.cassette.json", tmp_path)
    session.file.mkdir(parents=True)
    with pytest.raises(RecordingError, match=r"cannot be used: .*; make the directory writable"):
        step(session)  # type: ignore[operator]
