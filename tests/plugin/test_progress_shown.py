"""Progress of a real search: a bar on a real terminal, a line a trial in a log, silence under -q, nothing captured."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from support.screen import PYTEST, on_a_terminal

if TYPE_CHECKING:
    from conftest import Project

BAR = re.compile(r"sums [━╸╺ ]+ (trial|example) ")
WHOLE = re.compile(
    r"sums [━╸╺ ]+ trial [1-6] of 6, \$0\.\d+ of \$1\.00, best [01], \d+ requests answered, \d in flight +\d:\d\d so far$"
)


@pytest.fixture
def slow(tuned: Project) -> Project:
    """A server that takes a moment, and a test that looks at what was captured."""
    tuned.server.latency = 0.03
    path = tuned.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace("def test_sums(llmtune):", "def test_sums(llmtune, capfd):")
    path.write_text(f"{text}    print('mine')\n    assert capfd.readouterr() == ('mine\\n', '')\n", encoding="utf-8")
    return tuned


def test_a_terminal_has_one_bar(slow: Project) -> None:
    """While it searches one line tells trial, dollars, best, requests in flight and time left; then it is gone."""
    shutil.rmtree(slow.pytester.path / ".llmtune")  # every answer is asked for again
    seen = on_a_terminal([*PYTEST, "--llm-tune", "--llm-concurrency=4"], slow.pytester.path, width=100)
    assert seen.code == 0, seen.end
    bars = [[line for line in moment if BAR.match(line)] for moment in seen.moments]
    assert max(map(len, bars)) == 1
    assert not bars[-1]
    assert any(WHOLE.match(line) for [line] in filter(None, bars)), bars
    assert "sums: tuning done, trial 6 of 6, $0.00" in seen.end
    assert "sums: recording done, example 18 of 18, $0.00" in seen.end
    assert "1 passed" in seen.end
    assert not seen.cursor_hidden


def test_a_narrow_terminal_without_colour(slow: Project) -> None:
    """A live run on sixty columns: what does not fit is cut, and with --color=no there is no colour."""
    command = [*PYTEST, "--llm-live", "--llm-concurrency=2", "--color=no"]
    seen = on_a_terminal(command, slow.pytester.path, width=44)
    assert seen.code == 0, seen.end
    assert max(sum(bool(BAR.match(line)) for line in moment) for moment in seen.moments) == 1
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", seen.sent)


def test_a_log_has_one_line_a_trial(slow: Project) -> None:
    """Where output goes to a file, no cursor moves; what tests print and what is captured stays their own."""
    result = slow.pytester.runpytest_subprocess("-p", "no:cacheprovider", "--llm-tune", "--junitxml=out.xml", "-rP")
    result.assert_outcomes(passed=1)
    trials = re.findall(r"^sums: trial (\d) of 6, \$0\.\d+ of \$1.00", result.stdout.str(), re.MULTILINE)
    assert trials == list("123456")
    assert "\x1b" not in result.stdout.str()
    xml = ElementTree.parse(slow.pytester.path / "out.xml")  # noqa: S314 - our own file
    assert "trial" not in "".join(text for case in xml.iter("testcase") for text in case.itertext())


def test_workers_write_a_line_now_and_then(slow: Project) -> None:
    """Under -n there is no bar: workers share the terminal, and each line names its suite."""
    hurry = "from pytest_llmtune.report import progress\nprogress._PAUSE = 0\n"
    (slow.pytester.path / "conftest.py").write_text(hurry, encoding="utf-8")
    seen = on_a_terminal([*PYTEST, "-n", "1", "--llm-live", "--llm-concurrency=4"], slow.pytester.path, width=100)
    assert seen.code == 0, seen.end
    lines = {line for moment in seen.moments for line in moment}
    assert any(re.match(r"sums: example \d+ of 18, \$0\.0\d+, \d+ requests answered", line) for line in lines), seen.end
    assert not any(BAR.match(line) for line in lines)
    assert not seen.cursor_hidden


def test_quiet_is_silent(slow: Project) -> None:
    """Nothing of it under -q."""
    result = slow.pytester.runpytest_subprocess("-p", "no:cacheprovider", "--llm-live", "-q")
    result.assert_outcomes(passed=1)
    assert "asking live" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("arguments", [[], ["-n", "1", "--llm-live"]])
def test_failures_are_as_wide_as_the_terminal(tuned: Project, arguments: list[str]) -> None:
    """The width is looked up before output is captured; a worker, which has no terminal, is told, and is silent."""
    path = tuned.pytester.path / "test_sums.py"
    text = path.read_text(encoding="utf-8").replace("(llmtune):", "(llmtune, request):")
    looking = "    plugin = request.config.pluginmanager.getplugin('llmtune')\n"
    looking += "    assert plugin.session_of(request.config).width == 132\n"
    path.write_text(text + looking, encoding="utf-8")
    seen = on_a_terminal([*PYTEST, *arguments], tuned.pytester.path, width=132)
    assert seen.code == 0, seen.end
    assert b"asking" not in seen.sent
