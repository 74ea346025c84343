"""What a model says is untrusted: it goes through every output, and none of it is obeyed anywhere."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from decimal import Decimal
from html import unescape
from xml.etree import ElementTree

import pytest
import yaml
from markdown_it import MarkdownIt
from support.browser import chromium
from support.results import evaluation, lock, report, result

from pytest_llmtune._util.text import clean
from pytest_llmtune.guard import results_file as results
from pytest_llmtune.guard.lockfile import Lock, Measured, StudySummary, TrialSummary
from pytest_llmtune.guard.result import Compared, SuiteReport
from pytest_llmtune.guard.verdict import Stale
from pytest_llmtune.report import terminal
from pytest_llmtune.report.ci import error_annotations, junit_properties, markdown
from pytest_llmtune.report.html import fragment, write
from pytest_llmtune.report.progress import Progress
from pytest_llmtune.types import Finished, Started, TrialDone

ATTACKS = {
    "script": "</script></textarea><script>window.pwned=1</script>",
    "image": '<img src="https://evil.example/x" onerror="window.pwned=1">',
    "attribute": '" onmouseover="window.pwned=1" x=\'',
    "template": "{{ 7*7 }}{% for x in y %}{0.__class__}%(x)s${x}",
    "colour": "\x1b[31mred\x1b[0m\x9b31m",
    "title": "\x1b]0;owned\x07\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "screen": "\x1b[2J\x1b[H\x1bc\r\x08\x7f",
    "command": "\n::error file=x.py::owned\n::set-env name=A::b\r\n::add-mask::a\n##[error]x ##vso[task.setvariable]y",
    "section": "\nsection_start:0:x\r\x1b[0K",
    "cdata": "]]><evil/><![CDATA[ &evil; <!ENTITY x SYSTEM 'file:///etc/passwd'>",
    "direction": "\u202egnorw\u202c \u2066x\u2069 \u200f\u061c",
    "nul": "a\x00b\x01\x02\x0b\x0c\x1f\u2028\u2029\x85",
    "surrogate": "a\ud800b\udfff\ufffe\uffff",
    "markdown": "[x](https://evil.example) ![y](https://evil.example/y.png) `a` | b <b>c</b> @everyone #1",
    "markup": "[bold red]x[/] :smile: [link=https://evil.example]y[/link]",
    "yaml": "!!python/object/apply:os.system ['true']\n--- &a *a",
    "megabyte": "x" * 1_000_000,
    "tag": "\U000e0041\ufeff\u200b",
}


def suite(attack: str) -> SuiteReport:
    """A failing suite in which every text is the attack: answers, questions, rows, errors, notes, configurations."""
    row = {"problem": attack, attack: attack}
    today = evaluation(
        [
            result(0, 0.0, answer=attack, responses=[attack] * 3, row=row, votes=2),
            result(1, None, row=row, error=attack),
            result(2, 1.0, answer=None, responses=[attack], row=row),
        ],
        {"model": attack, "prompt": attack, "stop": [attack]},
    )
    before = evaluation([result(0, 1.0, answer=attack, row=row), result(2, 0.0, answer=attack, row=row)])
    config = {"model": attack, "prompt": attack}
    trials = (TrialSummary(1, config, Measured(0.5), Decimal(1), Decimal(1), attack),)
    made = report(
        today,
        lock(before),
        stale=[Stale(attack, "--llm-accept")],
        name=attack,
        notes=(attack,),
        study=StudySummary(trials, Decimal(1), attack, winner=1),
        compared=(Compared(attack, config, Measured(0.5), Decimal(1)),),
    )
    return replace(made, verdict=replace(made.verdict, problem=attack))


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest) -> str:
    return ATTACKS[request.param]


CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\u2028\u2029\ud800-\udfff]"
)
CI_COMMANDS = re.compile(r"^\s*::.*|##\[|##vso\[", re.MULTILINE)


def assert_harmless(text: str, limit: int, *, log: bool = True) -> None:
    """No character that a terminal obeys, no megabyte of text, and in a log no line that a CI system obeys."""
    assert CONTROLS.findall(text) == []
    assert not log or CI_COMMANDS.findall(text) == []
    assert len(text) < limit


@pytest.mark.parametrize("verbosity", [0, 1, 2])
def test_terminal(attack: str, verbosity: int) -> None:
    """A failure and the summary hold the words, but no escape, no CI command, and at -v no megabyte."""
    one = suite(attack)
    assert_harmless(terminal.failure(one, verbosity=verbosity), 50_000 if verbosity < 2 else 10_000_000)
    assert_harmless(terminal.summary([one], width=100, verbosity=verbosity), 1_000)


def test_very_verbose_answers_stay_whole(attack: str) -> None:
    """With -vv the whole answer is there, made harmless; nothing is silently dropped."""
    text = terminal.failure(suite(attack), verbosity=2)
    for line in clean(attack).split("\n"):
        assert f"          | {line}" in text


def test_progress(attack: str) -> None:
    """Labels and notes cannot steer the terminal or the log."""
    for on_terminal in (False, True):
        file = io.StringIO()
        with Progress(file, terminal=on_terminal) as listener:
            listener(Started(attack, "tune", 1))
            listener(TrialDone(attack, 1, attack, 1.0, None, Decimal(0), 1.0, attack))
            listener(Finished(attack, Decimal(0), attack))
        output = re.sub(r"\x1b\[\??[0-9;]*[a-zA-Z]|\r", "", file.getvalue()) if on_terminal else file.getvalue()
        assert_harmless(output, 30_000)


def test_github_annotations(attack: str) -> None:
    """An annotation is one line with one command, whatever the answer."""
    (line,) = error_annotations([suite(attack)])
    assert "\n" not in line
    assert_harmless(line.removeprefix("::error "), 5_000)
    properties, _, _ = line.removeprefix("::error ").partition("::")
    assert [pair.partition("=")[0] for pair in properties.split(",")] == ["file", "line", "title"]


def test_github_summary(attack: str) -> None:
    """Rendered by a real Markdown parser with HTML allowed, the summary has no tag, link or picture but our own."""
    text = markdown([suite(attack)])
    assert_harmless(text, 20_000)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    assert [token.content for token in tokens if token.type == "html_block"] == []
    assert {token.content for token in inline if token.type == "html_inline"} <= {"<br>"}
    assert {token.type for token in inline} & {"link_open", "image"} == set()
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h2", "h3"]


def test_junit(pytester: pytest.Pytester) -> None:
    """The XML that pytest writes, with properties and failure texts, parses; the texts are short."""
    reports = [suite(attack) for attack in ATTACKS.values()]
    pytester.makepyfile(
        "import json, pathlib, pytest\n"
        "DATA = json.loads(pathlib.Path('data.json').read_text())\n"
        "@pytest.mark.parametrize('index', range(len(DATA)))\n"
        "def test_it(request, index):\n"
        "    request.node.user_properties.extend(map(tuple, DATA[index]['properties']))\n"
        "    pytest.fail(DATA[index]['failure'], pytrace=False)\n"
    )
    data = [{"properties": junit_properties(one), "failure": terminal.failure(one)} for one in reports]
    (pytester.path / "data.json").write_text(json.dumps(data))
    outcome = pytester.runpytest("-p", "no:llmtune", "--junitxml=out.xml")
    cases = list(ElementTree.parse(pytester.path / "out.xml").iter("testcase"))  # noqa: S314 - our own file
    assert [len(list(case.iter("property"))) for case in cases] == [len(one["properties"]) for one in data]
    assert [len(list(case.iter("failure"))) for case in cases] == [1] * len(ATTACKS)
    assert not any(list(case.iter("evil")) for case in cases)
    assert_harmless(outcome.stdout.str(), 500_000)


def test_xdist_and_pytest_html(pytester: pytest.Pytester) -> None:
    """Reports cross from xdist's workers as ASCII text on pytest's report, and stand escaped in pytest-html's page."""
    attacks = {name: attack for name, attack in ATTACKS.items() if name != "megabyte"}
    (pytester.path / "data.json").write_text(results.dumps([suite(attack) for attack in attacks.values()]))
    pytester.makeconftest(
        """
        import json, pathlib, pytest
        from pytest_llmtune.report import html
        from pytest_llmtune.guard import results_file as results

        REPORTS = results.read(pathlib.Path(__file__).with_name("data.json"))
        ARRIVED = []

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if call.when == "call":
                import pytest_html

                one = REPORTS[item.callspec.params["index"]]
                report.llmtune = results.dumps([one])
                report.extras = [pytest_html.extras.html(html.fragment(one))]
            return report

        def pytest_runtest_logreport(report):
            if report.when == "call":
                ARRIVED.extend(results.loads(report.llmtune))

        def pytest_sessionfinish(session):
            if not hasattr(session.config, "workerinput"):
                assert sorted(map(repr, ARRIVED)) == sorted(map(repr, REPORTS))
                pathlib.Path("arrived").write_text(str(len(ARRIVED)))
        """
    )
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.parametrize("index", range({len(attacks)}))
        def test_it(index):
            pass
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:llmtune", "-n", "2", "--html=out.html", "--self-contained-html")
    outcome.assert_outcomes(passed=len(attacks))
    assert (pytester.path / "arrived").read_text() == str(len(attacks))
    shown = (pytester.path / "out.html").read_text(encoding="utf-8")
    assert "<script>window.pwned" not in shown
    assert 'src="https://evil' not in shown
    (encoded,) = re.findall(r'data-jsonblob="([^"]*)"', shown)
    tests = json.loads(unescape(encoded))["tests"].values()
    assert sum("llmtune" in str(test) for test in tests) == len(attacks)


def test_json(attack: str) -> None:
    """The document is ASCII without controls, and gives back the very text."""
    text = results.dumps([suite(attack)])
    assert_harmless(text, 50_000_000, log=False)
    assert text.isascii()
    assert results.loads(text) == (suite(attack),)


def test_lock_file(attack: str) -> None:
    """A lock file stays plain YAML with no tag, alias or megabyte of answers in it."""
    evaluated = suite(attack).evaluation
    assert evaluated is not None
    made = Lock.of("x", evaluated, prices={}, fingerprints={})
    text = made.text()
    examples = text.partition("\nexamples:\n")[2]
    assert_harmless(examples, 10_000, log=False)
    assert yaml.safe_load(text.encode("utf-8", "replace").decode())["version"] == 1


def test_page(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a real browser nothing of it runs, asks the network, or ends an element; every answer is shown as text."""
    target = write(tmp_path_factory.mktemp("page"), [suite(attack) for attack in ATTACKS.values()])
    with chromium() as browser:
        browser.open(target)
        for index in range(len(ATTACKS)):
            browser.run(f"document.querySelectorAll('#examples-{index} tbody button').forEach((b) => b.click())")
        browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert browser.run("return window.pwned") is None
        assert browser.console() == []
        assert browser.requests() == [target.as_uri()]
        assert browser.run("return document.querySelectorAll('section.suite').length") == len(ATTACKS)
        assert browser.run("return document.querySelectorAll('img, evil, iframe, b b, textarea').length") == 0
        shown = browser.run(
            "return [...document.querySelectorAll('.detail pre')].map((pre) => pre.textContent).join('\\n')"
        )
        for attack in ATTACKS.values():
            assert clean(attack)[:10_000] in shown
        assert_harmless(browser.run("return document.querySelector('main').textContent"), 5_000_000, log=False)


def test_the_page_lets_no_other_script_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Should an injection ever get past the escaping, the page's policy stops it: a planted script does not run."""
    target = write(tmp_path_factory.mktemp("page"), [suite("x")])
    text = target.read_text(encoding="utf-8")
    planted = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'><img src='https://evil.example/x'>"
    target.write_text(text.replace("</main>", f"{planted}</main>"), encoding="utf-8")
    with chromium() as browser:
        browser.open(target)
        assert browser.run("return window.pwned") is None
        assert browser.all(".examples tbody tr")
        assert [url for url in browser.requests() if url.startswith("http")] == []


def test_the_fragment_for_pytest_html(attack: str) -> None:
    """What stands in pytest-html's row is escaped and short."""
    text = fragment(suite(attack))
    assert_harmless(text, 30_000)
    assert re.findall(r"<(?!/?(div|p|b|ul|li|table|caption|thead|tbody|tr|th|td)[ >])", text) == []
