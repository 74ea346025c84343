"""The package of docs/how-to/extend.md, installed: its grader, report, source and engine are found by name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pytest_llmtune import Suite
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Settings
from pytest_llmtune.workflow.services import SuiteServices

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "extend.md"
SUITE = """
name: short
dataset: [{question: q, words: 2}, {question: another q, words: 2}]
prompt: "{question}"
model: m
prices: {m: {input: 1, output: 1}}
tune_size: 1
n: 1
grader: {length: {slack: 1}}
allow_vacuous: true
allow_constant_prompt: true
max_tokens: 10
temperature_or_top_p: {temperature: 0}
"""


@pytest.fixture
def installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project in whose environment the page's package is installed."""
    blocks = dict(re.findall(r"```(toml|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    project = tomllib.loads(blocks["toml"])["project"]
    site = pytester.mkdir("site")
    (site / "shop_llmtune.py").write_text(blocks["python"], encoding="utf-8")
    info = site / "shop_llmtune-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(str(site))
    (pytester.path / "short.llmtune.yaml").write_text(SUITE, encoding="utf-8")
    return pytester


@pytest.mark.parametrize("how", ["--llm-source=canned", "--llm-engine=here"])
def test_everything_that_a_package_registers_is_used(
    installed: pytest.Pytester, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source or an engine answers, the grader grades, and the report is written; the replay needs neither."""
    if "engine" in how:  # it stands in for this process, which would ask the suite's endpoints
        monkeypatch.setenv("OPENAI_API_KEY", "sk-nobody")
    tuned = installed.runpytest("--llm-tune", how, "--llm-reporter=lines:out.txt")
    tuned.assert_outcomes(passed=1)
    assert (installed.path / "out.txt").read_text() == "short: passed\n"
    lock = (installed.path / "llmtune" / "short.lock.yaml").read_text(encoding="utf-8")
    assert "success_vote: {value: 1.0" in lock
    cassette = (installed.path / "llmtune" / "short.cassette.json").read_text(encoding="utf-8")
    assert "two words" in cassette
    installed.runpytest("--llm-reporter=lines:again.txt").assert_outcomes(passed=1)
    assert (installed.path / "again.txt").read_text() == "short: passed\n"


def test_names_that_nobody_registers(installed: pytest.Pytester) -> None:
    for option, valid in (("--llm-source=cannd", "canned"), ("--llm-reporter=line:x", "lines")):
        result = installed.runpytest(option)
        result.stderr.fnmatch_lines([f"*{option.partition('=')[0]} is '{option.partition('=')[2]}'; valid: {valid}*"])
    result = installed.runpytest("--llm-engine=dask")
    result.stderr.fnmatch_lines(
        ["*--llm-engine is 'dask'; valid: local, here, here://HOST:PORT, ray, ray://HOST:PORT*"]
    )
    (installed.path / "short.llmtune.yaml").write_text(SUITE.replace("length: {slack: 1}", "lenght: {}"))
    installed.runpytest().stdout.fnmatch_lines(["*no grader 'lenght'*did you mean 'length'*"])


def test_what_a_package_does_wrong_is_reported(installed: pytest.Pytester) -> None:
    """An option that the grader has not, and a report that fails: neither is silent, nor an INTERNALERROR."""
    (installed.path / "short.llmtune.yaml").write_text(SUITE.replace("slack", "slak"), encoding="utf-8")
    result = installed.runpytest("--llm-source=canned", "--llm-tune")
    result.stdout.fnmatch_lines(["*length:*slak*"])
    assert result.ret != 0
    (installed.path / "short.llmtune.yaml").write_text(SUITE, encoding="utf-8")
    result = installed.runpytest("--llm-source=canned", "--llm-tune", "--llm-reporter=lines:nowhere/out.txt")
    result.stdout.fnmatch_lines(["*--llm-reporter=lines failed: FileNotFoundError*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


ORDER = """
import pytest

class First:
    @pytest.hookimpl(tryfirst=True)
    def pytest_llmtune_redact(self, text):
        return text.replace("secret", "first")

class Around:
    @pytest.hookimpl(wrapper=True)
    def pytest_llmtune_redact(self, text):
        found = yield
        return found.replace("middle", "[hidden]")

def pytest_llmtune_redact(text):
    return text.replace("first", "middle")

def pytest_configure(config):
    config.pluginmanager.register(First())
    config.pluginmanager.register(Around())
"""


def test_redaction_hooks_have_pluggys_order_and_wrappers(installed: pytest.Pytester) -> None:
    """``tryfirst`` comes first, each gets what the one before returned, and a wrapper sees what came of all."""
    installed.makeconftest(ORDER)
    (installed.path / "short.llmtune.yaml").write_text(
        SUITE.replace("question: q,", "question: one secret,").replace("another q", "another secret")
    )
    installed.runpytest("--llm-source=canned", "--llm-tune").assert_outcomes(passed=1)
    cassette = (installed.path / "llmtune" / "short.cassette.json").read_text(encoding="utf-8")
    assert "[hidden]" in cassette
    assert not any(word in cassette for word in ("secret", "first", "middle"))


@pytest.mark.parametrize("option", ["engine", "source"])
def test_a_name_that_no_package_registers_is_refused_before_anything_is_sent(tmp_path: Path, option: str) -> None:
    suite = Suite(name="s", dataset=[{"q": "1", "answer": "1"}], prompt="{q}", model="m", grader="exact")
    settings = Settings(root=tmp_path, base_url="http://127.0.0.1:9", **{option: "nobodys"})  # type: ignore[arg-type]
    services = SuiteServices(suite, settings, Redactor(), lambda _: None, lambda _: None)
    with pytest.raises(LLMTuneError, match=rf"--llm-{option}=nobodys: no package registers this {option}"):
        services.live(Ledger(), cached=None)
    assert services.live_sources == []
