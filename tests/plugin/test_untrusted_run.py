"""A model that attacks: its answers go through a real search, re-recording and guard, and out of every output."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
import yaml
from markdown_it import MarkdownIt
from support.browser import chromium
from support.llm_server import LLMServer

from pytest_llmtune._util.text import clean

if TYPE_CHECKING:
    from pathlib import Path

ATTACKS = (
    "</script></textarea><script>window.pwned=1</script>",
    '<img src="https://evil.example/x" onerror="window.pwned=1">" onmouseover="window.pwned=1" x=\'',
    "\x1b[31mred\x1b[0m\x9b31m\x1b[2J\x1b[H\x1bc\r\x08\x7f",
    "\x1b]0;owned\x07\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\\x1b]52;c;b3duZWQ=\x07",
    "\n::error file=x.py::owned\n::set-env name=A::b\r\n::add-mask::a\n##[error]x ##vso[task.setvariable]y",
    "\nsection_start:0:x\r\x1b[0K",
    "]]><evil/><![CDATA[ &evil; <!ENTITY x SYSTEM 'file:///etc/passwd'>",
    "\u202egnorw\u202c \u2066x\u2069 \u200f\u061c\u2028\u2029\x85",
    "a\x00b\x01\x02\x0b\x0c\x1f",
    "a\ud800b\udfff\ufffe\uffff\U000e0041\ufeff",
    "{{ 7*7 }}{% for x in y %}{0.__class__}%(x)s${x} [bold red]x[/] :smile:",
    "[x](https://evil.example) ![y](https://evil.example/y.png) `a` | b <b>c</b> @everyone #1",
    "!!python/object/apply:os.system ['true']\n--- &a *a",
    "x" * 1_000_000,
)
SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl", prompt={prompt!r}, model="m", temperature=0, n=1, max_tokens=300_000, num_samples=1,
    grader="contains", prices={{"m": {{"input": 0.001, "output": 0.001}}}}, optimization_budget=9, tune_size=2,
    shuffle=False, max_drop=0.1,
)
def test_attacked(llmtune):
    llmtune.check()
"""
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
OBEYED = re.compile(
    r"^[ \t]*::(?!error file=test_it\.py,line=4,title=llmtune%3A attacked failed::).*|##\[|##vso\[", re.MULTILINE
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def assert_harmless(text: str, limit: int) -> None:
    """No character that a terminal obeys, no line that a CI system obeys but our own, and no megabyte."""
    assert CONTROLS.findall(COLOURS.sub("", text).replace("\r\n", "\n")) == []
    assert OBEYED.findall(text) == []
    assert len(text) < limit


def _sendable(text: str) -> str:
    """Lone surrogates are no text that could be sent; a model's JSON may hold them all the same."""
    return text.encode("utf-8", "replace").decode()


class Attacked:
    """A project whose model answered well once, and attacks in every answer since; the data attack too."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester, self.path = pytester, pytester.path
        rows = [
            {"id": i, "question": f"Number {i}: {_sendable(attack)[:500]}", "answer": f"fine {i}"}
            for i, attack in self.asked()
        ]
        (self.path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        self.prompt("{question}")

    @staticmethod
    def asked() -> list[tuple[int, str]]:
        return list(enumerate(["calm", "calmer", *ATTACKS]))  # the first two are tuned on

    def prompt(self, text: str) -> None:
        (self.path / "test_it.py").write_text(SUITE.format(prompt=text), encoding="utf-8")

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


@pytest.fixture
def attacked(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Attacked:
    good = True

    def answer(body: dict[str, Any]) -> str:
        found = re.search(r"Number (\d+)", body["messages"][-1]["content"])
        assert found
        index = int(found[1])
        attack = dict(Attacked.asked())[index]
        return f"{attack} fine {index}" if good else attack

    made = Attacked(pytester)
    with LLMServer(answer=answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        tuned = made.run("--llm-tune")
        tuned.assert_outcomes(passed=1)
        assert_harmless(tuned.stdout.str(), 20_000)
        good = False
        recorded = made.run("--llm-record=all", "-v")
        recorded.assert_outcomes(failed=1)
        assert_harmless(recorded.stdout.str(), 50_000)
    return made


@pytest.mark.slow
def test_nothing_of_it_is_obeyed(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminal, JUnit, GitHub's summary and annotations, JSON, our page, pytest-html's, lock file, recording."""
    _very_verbose(attacked)
    _stale_suite(attacked)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(attacked.path / "step.md"))
    files = ("--junitxml=out.xml", "--llm-json=out.json", "--llm-report=page.html", "--html=all.html")
    result = attacked.run(*files, "--self-contained-html", "-n", "2")
    result.assert_outcomes(failed=1)
    assert_harmless(result.stdout.str(), 20_000)
    assert len([line for line in result.outlines if line.startswith("::error ")]) == 1
    _junit(attacked.path / "out.xml")
    _summary(attacked.path / "step.md")
    said = json.loads((attacked.path / "out.json").read_text(encoding="ascii"))["suites"][0]["evaluation"]["results"]
    assert {one["responses"][0] for one in said} == set(ATTACKS)
    _pages(attacked.path / "page.html", attacked.path / "all.html")


def _very_verbose(attacked: Attacked) -> None:
    """With -vv every answer is there whole, and not one control of it."""
    text = attacked.run("-vv").stdout.str()
    assert_harmless(text, 10_000_000)
    assert "x" * 1_000_000 in text
    assert all(f"          | {line}" in text for attack in ATTACKS for line in clean(attack).split("\n"))


def _stale_suite(attacked: Attacked) -> None:
    """The nearest recorded request is shown harmless; lock file and recording are plain data."""
    attacked.prompt("Now: {question}")
    result = attacked.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*prompt changed*"])
    assert_harmless(result.stdout.str(), 20_000)
    attacked.prompt("{question}")
    lock = yaml.safe_load((attacked.path / "llmtune" / "attacked.lock.yaml").read_text(encoding="utf-8"))
    assert lock["version"] == 1
    recording = (attacked.path / "llmtune" / "attacked.cassette.json").read_text(encoding="utf-8")
    assert len(json.loads(recording)["interactions"]) == len(ATTACKS)


def _junit(path: Path) -> None:
    cases = list(ElementTree.parse(path).iter("testcase"))  # noqa: S314 - our own file
    assert [len(list(case.iter("failure"))) for case in cases] == [1]
    assert not [case for case in cases if list(case.iter("evil"))]
    assert path.stat().st_size < 100_000


def _summary(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert_harmless(text, 100_000)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = {child.type for token in tokens for child in token.children or ()}
    assert inline & {"link_open", "image"} == set()
    assert not [token for token in tokens if token.type == "html_block"]


def _pages(*paths: Path) -> None:
    with chromium() as browser:
        for path in paths:
            browser.open(path)
            browser.run("document.querySelectorAll('.examples tbody button').forEach((button) => button.click())")
            browser.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
            assert browser.run("return window.pwned") is None
            assert browser.all("evil") + browser.all("img[src*=evil]") + browser.all("a[href*=evil]") == []
            assert [url for url in browser.requests() if url.startswith("http")] == []
            assert browser.console() == []
        assert browser.one(".llmtune li").text.startswith("FAIL: success_vote fell")  # in its row of pytest-html
