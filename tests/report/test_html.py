"""The report page in real headless Chromium."""

from __future__ import annotations

import json
import re
import shlex
import sys
from decimal import Decimal
from pathlib import Path
from subprocess import run
from typing import TYPE_CHECKING

import pytest
from support.browser import Browser, chromium
from support.results import compared, evaluation, lock, report, result, scores

from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard.lockfile import Measured, StudySummary, TrialSummary
from pytest_llmtune.guard.verdict import Criteria, Limit, Stale
from pytest_llmtune.report import html

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmtune.guard.result import SuiteReport

STUDY = StudySummary(
    tuple(
        TrialSummary(i, {"model": "m", "n": i}, Measured(i / 9, 0, 1), Decimal(i) / 1000, Decimal(i) / 10, "done")
        for i in range(1, 9)
    ),
    Decimal("3.6"),
    "num_samples",
    Decimal(4),
    Decimal("0.006"),
    winner=6,
    heldout=Measured(0.7, 0.6, 0.8),
)


def suites(study: StudySummary | None = STUDY) -> list[SuiteReport]:
    """250 examples: rows 0..9 lost, 10..14 gained, 20 unknown, every seventh of the others wrong before and after."""

    def score(index: int) -> float:
        return float(index % 7 != 0)

    def today(index: int) -> float | None:
        return None if index == 20 else 0.0 if index < 10 else 1.0 if index < 15 else score(index)

    before = [result(i, 1.0 if i < 10 else 0.0 if i < 15 else score(i)) for i in range(250)]
    now = [result(i, today(i), answer="41" if i < 10 else "42", votes=2 + i % 3) for i in range(250)]
    failed = report(
        evaluation(now),
        lock(evaluation(before), study),
        Criteria(max_drop=0.01, max_unknown=1, limits=(Limit("success", "min", Decimal("0.5")),)),
        study=study,
        compared=(compared("untuned", 0.5, "0.001"),),
        notes=("a note",),
    )
    return [
        failed,
        report(scores(1, 1), name="감정 분류", nodeid="mood.llmtune.yaml::감정 분류"),
        report(None, stale=[Stale("the prompt changed", "--llm-tune")], nodeid="test_more.py::test_it"),
    ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as window:
        yield window


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return html.write(tmp_path_factory.mktemp("report") / "out", suites())


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return html.write(tmp_path_factory.mktemp("report") / "out", suites(study=None))


def opened(browser: Browser, file: Path) -> Browser:
    browser.emulate(1280, 900)
    browser.requests()
    browser.open(file)
    return browser


@pytest.fixture
def page(browser: Browser, small_file: Path) -> Browser:
    """The page without a search, and so without five megabytes of plotly: quick to load."""
    return opened(browser, small_file)


@pytest.fixture
def whole_page(browser: Browser, file: Path) -> Browser:
    """The page with its figures."""
    return opened(browser, file)


def rows(page: Browser) -> list[str]:
    """The numbers of the rows shown."""
    script = (
        "return [...document.querySelectorAll('#examples-0 tbody tr:not(.detail)')].map((r) => r.cells[0].textContent)"
    )
    return [str(number) for number in page.run(script)]


def test_it_loads_without_errors_and_without_network(whole_page: Browser, file: Path) -> None:
    """One file, opened offline: nothing on the console, and no request but for the file itself."""
    assert whole_page.all(".js-plotly-plot .main-svg")
    assert whole_page.console() == []
    assert whole_page.requests() == [file.as_uri()]


def test_the_verdict_is_readable_without_scripts(file: Path) -> None:
    """Headline, gates, flips and commands stand in the HTML itself."""
    text = re.sub(r"<script.*?</script>", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    for words in (
        "LLM suites: 2 of 3 failed",
        "success_vote fell from",
        "10 examples lost and 5 gained since the baseline, of 249 compared",
        "pytest --llm-tune tests/test_math.py::test_algebra",
        "the prompt changed",
        "a note",
        "감정 분류",
        "score on held-out rows",
        "tests/llmtune/algebra.cassette.json: 20 interactions",
    ):
        assert words in text


def test_flipped_examples_are_shown_first(page: Browser) -> None:
    """Where something flipped, that is what one comes for; the count is told to screen readers too."""
    assert rows(page) == [str(i) for i in range(15)]
    assert page.one("#examples-0 .count").text == "15 of 250 examples"
    assert page.one("#examples-0 .count").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize(
    ("choice", "count", "first"),
    [
        ("all", 250, "0"),
        ("flipped", 15, "0"),
        ("lost", 10, "0"),
        ("gained", 5, "10"),
        ("failed", 44, "0"),
        ("unknown", 1, "20"),
    ],
)
def test_the_filter_chooses(page: Browser, choice: str, count: int, first: str) -> None:
    """Each choice shows just the examples it names, a hundred at most at once."""
    page.one(f"#examples-0 option[value={choice}]").click()
    assert page.one("#examples-0 .count").text == f"{count} of 250 examples"
    assert len(rows(page)) == min(count, 100)
    assert rows(page)[0] == first


def test_search_finds_question_answer_and_id(page: Browser) -> None:
    """Typing narrows the table at once, within the filter."""
    page.one("#examples-0 option[value=all]").click()
    search = page.one("#examples-0 input")
    search.send_keys("what is 123 ")
    assert rows(page) == ["123"]
    search.clear()
    search.send_keys(f"{77:016x}")
    assert rows(page) == ["77"]
    search.clear()
    search.send_keys("no such thing")
    assert rows(page) == []


def test_columns_sort_both_ways(page: Browser) -> None:
    """A click sorts up, another one down; numbers as numbers, and the header says which way."""
    page.one("#examples-0 option[value=all]").click()
    header = page.one("#examples-0 [data-sort=index]")
    header.click()
    assert rows(page)[:3] == ["249", "248", "247"]
    assert header.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    page.one("#examples-0 [data-sort=score]").click()
    assert rows(page)[0] == "20"
    assert header.find_element("xpath", "..").get_attribute("aria-sort") is None


def test_what_changed_says_how_many_rows_it_leaves_out(page: Browser) -> None:
    """Five of ten lost rows are shown above the table, and the others are counted."""
    box = page.one(".changed").text
    assert box.count("row ") == 5
    assert "... and 5 more lost: see Examples below" in box


def test_pages_turn(page: Browser) -> None:
    """250 examples are three pages; the buttons end where the pages do."""
    page.one("#examples-0 option[value=all]").click()
    following, previous = page.one("#examples-0 .following"), page.one("#examples-0 .previous")
    assert not previous.is_enabled()
    following.click()
    following.click()
    assert (rows(page)[0], len(rows(page)), page.one("#examples-0 .page").text) == ("200", 50, "page 3 of 3")
    assert not following.is_enabled()
    previous.click()
    assert rows(page)[0] == "100"


def test_details_open_by_keyboard(page: Browser) -> None:
    """Enter on the button shows votes, row and every response, and closes them again."""
    button = page.one("#examples-0 tbody button")
    button.send_keys("\ue007")
    detail = page.one("#examples-0 .detail").text
    assert button.get_attribute("aria-expanded") == "true"
    assert "What is 0 + 0?" in detail
    assert "2 ×\n41" in detail
    assert "Response 5 of 5 (wrong)\nSo it is \\boxed{41}." in detail
    button.send_keys("\ue007")
    assert page.all("#examples-0 .detail") == []


def test_all_can_be_reached_by_keyboard(page: Browser) -> None:
    """The first stop skips to the results; filter, sort and paging obey keys, and each stop is seen to have the focus."""
    tab, enter = "\ue004", "\ue007"
    page.run("location.reload()")
    page.one("body").send_keys(tab)
    assert page.run("return document.activeElement.className") == "skip"
    page.driver.switch_to.active_element.send_keys(enter)
    assert page.run("return location.hash") == "#main"
    page.one("#examples-0 select").send_keys("failed")
    assert page.one("#examples-0 .count").text.startswith("44 of")
    page.one("#examples-0 [data-sort=question]").send_keys(enter)
    assert (
        page.one("#examples-0 [data-sort=question]").find_element("xpath", "..").get_attribute("aria-sort")
        == "ascending"
    )
    page.one("#examples-0 input").send_keys("What", tab)
    assert page.run("return document.activeElement.dataset.sort") == "index"
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_table_of_suites_sorts(page: Browser) -> None:
    """By a press on a head, numbers as numbers; a screen reader is told."""
    names = "return [...document.querySelectorAll('nav tbody th')].map((th) => th.textContent)"
    first = page.run(names)
    head = page.all("nav thead button")[3]
    head.click()
    assert page.run("return document.querySelectorAll('nav th')[3].getAttribute('aria-sort')") == "ascending"
    head.click()
    assert page.run("return document.querySelectorAll('nav th')[3].getAttribute('aria-sort')") == "descending"
    assert sorted(page.run(names)) == sorted(first)


def test_commands_and_requests_can_be_copied(page: Browser) -> None:
    """A command with its button; a row's request as curl, with the row's own values in the prompt, quoted for a shell."""
    assert page.one(".next .copy").text == "Copy"
    page.one("#examples-0 tbody button").click()
    page.run(
        "window.copied = []; Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (t) => copied.push(t)}})"
    )
    page.one(".detail .copy").click()
    page.one(".next .copy").click()
    curl, command = page.run("return window.copied")
    assert command.startswith("pytest --llm-")
    words = shlex.split(curl)
    assert words[:2] == ["curl", "${OPENAI_BASE_URL:-https://api.openai.com/v1}/chat/completions"]
    body = json.loads(words[-1])
    assert body["model"] == "gpt-4o-mini"
    assert re.fullmatch(r"What is \d+ \+ \d+\? Put the answer in \\boxed\{\}\.", body["messages"][-1]["content"])


def test_figures_show_search_and_budgets(whole_page: Browser) -> None:
    """The scatter has trials, front, winner and baselines, and both budgets are named."""
    names = whole_page.run("return document.querySelector('[data-figure=quality-0]').data.map(trace => trace.name)")
    assert names == ["Pareto front", "trials", "baselines", "winner"]
    text = " ".join(whole_page.texts(".chart"))
    assert "inference budget $6.00" in text
    assert "optimization budget $4.00" in text
    label = whole_page.one("[data-figure=quality-0]").get_attribute("aria-label")
    assert (
        label
        == "Scatter plot of cost per 1,000 instances against success_vote, 8 trials; the winner scores 0.6667 at $6.00"
    )


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_sticks_out_of_the_screen(whole_page: Browser, width: int) -> None:
    """On a phone as on a desk the page scrolls in one direction only; details opened too."""
    whole_page.emulate(width, 900, mobile=width < 700)
    whole_page.run("location.reload()")
    whole_page.one("#examples-0 tbody button").click()
    for summary in whole_page.all("summary"):
        whole_page.run("arguments[0].parentElement.open = true", summary)
    assert whole_page.run("return document.documentElement.scrollWidth") <= width


CONTRAST = """
const light = (text) => {
  const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (!/^rgba.*, 0\\)$/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const worst = [];
const all = "h1,h2,h3,h4,p,li,td,th,a,button,summary,caption,figcaption,small,.badge,b,dt,pre,label,.count";
for (const element of document.querySelectorAll(all)) {
  if (!element.offsetParent || !element.textContent.trim() || element.closest(".chart") || element.disabled) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) worst.push(element.tagName + " " + element.className + " " + ratio.toFixed(2));
}
return worst;
"""


def test_paper_is_white_and_shows_everything(whole_page: Browser) -> None:
    """Printed from a dark screen: details open, charts in dark ink, nothing to click; the page is restored afterwards."""
    whole_page.emulate(1280, 900, dark=True)
    ink = "return getComputedStyle(document.querySelector('.chart .xtitle')).fill"
    whole_page.run("dispatchEvent(new Event('beforeprint'))")
    whole_page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert whole_page.run(ink) == "rgb(31, 35, 40)"
    assert whole_page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert whole_page.all("details:not([open])") == []
    assert not any(button.is_displayed() for button in whole_page.all("main button:not(thead button)"))
    whole_page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    whole_page.emulate(1280, 900, dark=True)
    whole_page.run("dispatchEvent(new Event('afterprint'))")
    assert whole_page.run(ink) == "rgb(232, 237, 243)"
    assert whole_page.all("details[open]") == []
    whole_page.emulate(1280, 900)


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_in_light_and_dark(whole_page: Browser, dark: bool) -> None:
    """Every text stands out from its ground by 4.5 to 1 at least (WCAG AA), and the figures follow the mode."""
    whole_page.emulate(1280, 900, dark=dark)
    whole_page.run("location.reload()")
    whole_page.one("#examples-0 tbody button").click()
    assert whole_page.run(CONTRAST) == []
    background = whole_page.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(16, 21, 28)") is dark
    assert whole_page.run("return document.querySelector('.chart')._fullLayout.font.color") == (
        "#e8edf3" if dark else "#1f2328"
    )


NAMELESS = """
const named = (e) => e.getAttribute("aria-label") || e.textContent.trim() || (e.labels || []).length;
const controls = [...document.querySelectorAll("button, a, select, input, summary")];
const problems = controls.filter((e) => !named(e)).map((e) => e.outerHTML);
for (const table of document.querySelectorAll("table")) if (!table.caption) problems.push("no caption");
const levels = [...document.querySelectorAll("h1,h2,h3")].map((heading) => Number(heading.tagName[1]));
if (levels.some((level, index) => index && level > levels[index - 1] + 1)) problems.push("heading level skipped");
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
if (new Set(ids).size !== ids.length) problems.push("an id stands twice");
if (!document.documentElement.lang) problems.push("no language");
return problems;
"""


def test_screen_readers_have_names_for_everything(whole_page: Browser) -> None:
    """Controls, tables and headings are named and in order."""
    assert whole_page.run(NAMELESS) == []


def test_5000_examples_stay_usable(browser: Browser, tmp_path: Path) -> None:
    """Loading, filtering and searching 5,000 examples of five long answers takes well under a second or two of CPU."""
    today = evaluation([result(i, float(i % 3 > 0), responses=["word " * 100] * 5) for i in range(5_000)])
    path = html.write(tmp_path / "big.html", [report(today, lock(scores(1)))])
    browser.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    browser.open(path)
    assert browser.one(".count").text.endswith("of 5000 examples")
    loaded = browser.busy()
    assert 0 < loaded < 2
    browser.one("option[value=failed]").click()
    browser.one("input").send_keys("4998")
    assert browser.one(".count").text == "1 of 5000 examples"
    assert 0 < browser.busy() - loaded < 1
    assert browser.console() == []


def test_huge_answers_are_cut(browser: Browser, tmp_path: Path) -> None:
    """Megabytes of answers make no page of megabytes; what was cut is said."""
    today = evaluation([result(i, responses=["x" * 1_000_000] * 5) for i in range(4)])
    path = html.write(tmp_path / "huge.html", [report(today)])
    assert path.stat().st_size < 1_000_000
    browser.open(path)
    browser.one("tbody button").click()
    assert "... cut, 980,000 more characters" in browser.one(".detail").text


def test_where_the_page_goes(tmp_path: Path) -> None:
    """A name ending in .html is the file, any other one a directory; what cannot be written is a ReportError."""
    assert html.write(tmp_path / "a" / "x.HTML", []) == tmp_path / "a" / "x.HTML"
    assert html.write(tmp_path / "dir", []) == tmp_path / "dir" / "index.html"
    (tmp_path / "taken").write_text("")
    with pytest.raises(ReportError, match="the report cannot be written"):
        html.write(tmp_path / "taken", [])


def test_a_page_without_figures_needs_no_plotly() -> None:
    """Five megabytes of plotly are inlined only where there is something to draw."""
    assert len(html.page([report(scores(1))])) < 60_000
    assert len(html.page(suites())) > 1_000_000


@pytest.mark.parametrize("name", ["jinja2", "plotly"])
def test_a_missing_extra_is_named(name: str) -> None:
    """Without the extra, one line says what to install."""
    code = (
        f"import sys; sys.modules[{name!r}] = None\n"
        "sys.path.insert(0, 'tests')\n"
        "from report.test_html import suites\n"
        "from pytest_llmtune.report import html\n"
        "html.page(suites())"
    )
    done = run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .endswith(f"the HTML report needs {name}, which is not installed: pip install 'pytest-llmtune[report]'")
    )


def test_the_fragment_for_pytest_html_is_escaped() -> None:
    """The piece for pytest-html's row holds verdict, gates and flips, and nothing that a model could make run."""
    today = evaluation([result(0, 0, answer="<img src=x onerror=alert(1)>", question="<b>?")])
    text = html.fragment(report(today, lock(scores(1)), name="a&b"))
    assert "<b>a&amp;b: failed</b> success_vote 0" in text
    assert "FAIL: success_vote fell from 1 to 0" in text
    assert "<td>&lt;img src=x onerror=alert(1)&gt;</td>" in text
    assert "<td>&lt;b&gt;?</td>" in text
