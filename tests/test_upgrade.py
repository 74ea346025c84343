"""Files of the first release: read as they are, and rewritten by `--llm-accept`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    import pytest

FIRST = Path(__file__).parent / "first_release"
"""A suite as the first release tuned it: its lock file and recording are never written anew."""


def test_a_lock_file_and_a_recording_of_the_first_release_pass(pytester: pytest.Pytester) -> None:
    """The score and the cost are the locked ones to the digit; the lock file that is accepted then has today's facts."""
    shutil.copytree(FIRST, pytester.path, dirs_exist_ok=True)
    path = pytester.path / "tests" / "llmtune" / "mood.lock.yaml"
    recording = path.with_name("mood.cassette.json").read_bytes()
    first = yaml.safe_load(path.read_text(encoding="utf-8"))
    arguments = ["-p", "no:cacheprovider", "tests"]
    pytester.runpytest(*arguments).assert_outcomes(passed=1)
    pytester.runpytest(*arguments, "--llm-accept").assert_outcomes(passed=1)
    accepted = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name in ("success_vote", "inference_cost"):
        assert accepted["metrics"][name]["value"] == first["metrics"][name]["value"]
    assert "asked" not in first["examples"][0]
    assert accepted["examples"][0].keys() > first["examples"][0].keys()
    pytester.runpytest(*arguments).assert_outcomes(passed=1)
    assert path.with_name("mood.cassette.json").read_bytes() == recording
