"""The documentation cannot rot: what it shows is run, parsed, or looked up."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.suite_files import read_suites

import pytest_llmtune
from pytest_llmtune import cli
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve
from pytest_llmtune.grading.registry import BUILT_IN
from pytest_llmtune.plugin.options import OPTIONS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(kind, text, id=f"{page.relative_to(ROOT).as_posix()}-{number}-{kind}")
    for page in PAGES
    for number, (kind, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")), 1)
]


def blocks(*kinds: str) -> list[Any]:
    return [block for block in BLOCKS if block.values[0] in kinds]


@pytest.mark.parametrize(("kind", "text"), blocks("python"))
@pytest.mark.filterwarnings("ignore")  # vcrpy's and what it imports
def test_python_runs(kind: str, text: str) -> None:
    """Each block by itself, but for the calls that ask a model: of these the syntax alone is checked."""
    code = compile(text, "docs", "exec")
    if not re.search(r"^\s*(config, analysis = tune|print\()", text, re.MULTILINE):
        try:
            exec(code, {"__name__": "docs", "pytest": pytest})  # noqa: S102  # our own documentation
        except ModuleNotFoundError as missing:
            if str(missing.name).startswith("pytest_llmtune"):
                raise
            pytest.skip(f"needs {missing.name}, which .ci/clients installs")


@pytest.mark.parametrize(("kind", "text"), blocks("yaml"))
def test_yaml_is_a_suite_or_a_list_of_endpoints(
    kind: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As our own parsers read it; a CI system's workflow is YAML, and its options are looked up below."""
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "unused")
    found = yaml.safe_load(text)
    if "jobs" in found:
        return
    path = tmp_path / "shown.llmtune.yaml"
    path.write_text(text, encoding="utf-8")
    if isinstance(found, list):
        assert endpoints_of(str(path), base_url=None, root=tmp_path)
    else:
        dataset = tmp_path / found["dataset"]
        dataset.parent.mkdir(exist_ok=True)
        dataset.touch()
        [(suite, _)] = read_suites(path, shown_as=path.name, root=tmp_path)
        assert suite.name == found["name"]


@pytest.mark.parametrize(("kind", "text"), blocks("json", "toml", "ini", "sh", "bash", "console"))
def test_other_blocks_are_read_by_their_own_readers(kind: str, text: str) -> None:
    """Data is parsed; commands are read by a shell, and ours are commands that there are (the tutorial's are run)."""
    if kind == "json":
        json.loads(text)
    elif kind == "toml":
        tomllib.loads(text)
    elif kind == "ini":
        configparser.ConfigParser().read_string(text)
    else:
        shown = [line for line in text.splitlines() if kind != "console" or line.startswith("$ ")]
        script = "\n".join(line.removeprefix("$ ") for line in shown)
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)  # noqa: S607
        assert done.returncode == 0, done.stderr
        first = {line.split()[0] for line in script.splitlines() if line.strip() and not line.startswith((" ", "#"))}
        assert first <= {"pip", "pytest", "llmtune", "cd", "sed", "git", "export", "jq", "python", "npm", "unset"}, (
            first
        )


def test_every_block_says_what_it_is() -> None:
    """A block of a kind that no test reads would rot."""
    known = {"python", "yaml", "json", "toml", "ini", "sh", "bash", "console", "text"}
    assert {block.values[0] for block in BLOCKS} <= known
    bare = [
        page.name
        for page in PAGES
        if page.read_text(encoding="utf-8").count("\n```\n") != len(FENCE.findall(page.read_text(encoding="utf-8")))
    ]
    assert bare == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_options_and_ini_keys_exist(page: Path) -> None:
    """Every ``--llm-x`` and ``llmtune_x`` that is named anywhere, but in the log of changes."""
    text = page.read_text(encoding="utf-8")
    flags = {option.flag for option in OPTIONS}
    keys = {option.key for option in OPTIONS}
    assert set(re.findall(r"--llm-[a-z-]*[a-z]", text)) - {"--llm-x"} <= flags
    named = set(re.findall(r"\bllmtune_[a-z_]*[a-z]\b", text)) - {"llmtune_choices_counted", "llmtune_x"}
    assert named <= keys


def test_the_reference_is_up_to_date() -> None:
    """What the code says and what the pages say."""
    command = [sys.executable, str(ROOT / "docs" / "reference.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_has_its_entry() -> None:
    """What can be imported, and what is public of each class, with its meaning."""
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    assert set(pytest_llmtune.__all__) <= set(re.findall(r"^(?:## |\| )`(\w+)", page, re.MULTILINE))
    assert [line for line in page.splitlines() if line.endswith("|  |")] == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_of_a_grader_is_documented(name: str) -> None:
    """On the page on graders, or with those of traces; the text options of ``contains`` are those of ``exact``."""
    pages = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("grading.md", "how-to/task.md"))
    with pytest.raises(SuiteError, match="no option 'nosuch'") as error:
        resolve({name: {"nosuch": 1}}, where="here")
    options = str(error.value).partition("valid: ")[2].split(", ")
    assert [option for option in options if f"`{option}`" not in pages] == []


HISTORY = re.compile(
    r"\b(used to (?:be|take)|no longer|previously|earlier version|commit [0-9a-f]{7})\b", re.IGNORECASE
)
AVOIDED = re.compile(
    r"\b((?<!/)anew|beforehand|in order to|please note|simply|obviously"  # plain words
    r"|(?:is|are|was|were) told|tells? of|told of|cannot be told|whom|gone on with|goes on (?:from|where)|mend(?:s|ed)?|dearer"
    r"|dearest(?!`)|comes? and goes?|stands? (?:at|in|last|one|beside|twice)|lies? (?:in|below|beside|outside)|for nothing"
    r"|not a cent|of no use|rather too|in force|h[eo]ld against|as ever|as it stands|(?:asks?|asked) (?:again|only|nothing)"
    r"|holds? the (?:line|word)|a way of its own|where there (?:is|are|was|were) (?:none|several|one))\b",  # idiomatic ones
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_are_plain_and_tell_no_history(page: Path) -> None:
    """A small vocabulary to avoid; decisions have a date and may look back."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if AVOIDED.search(line)] == []
    assert "decisions" in page.parts or [line for line in lines if HISTORY.search(line)] == []


def test_help_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """The same vocabulary for the command ``llmtune``; pytest's options and the suite's keys are pages."""
    for command in ([], *([name] for name in ["init", "compare", "history", "show", "export", "grade", "schema"])):
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if AVOIDED.search(line)] == []


def test_messages_are_plain() -> None:
    """The same vocabulary for every text in the package but docstrings, and the phrases that models say."""
    found = []
    for path in sorted((ROOT / "pytest_llmtune").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str(text)) if (
                    " " in text and id(node) not in docstrings and path.name != "choice.py"
                ):
                    found += [f"{path.name}: {text[:100]}"] if AVOIDED.search(text) else []
    assert found == []


def test_every_page_is_in_the_navigation() -> None:
    """A page that nobody finds is not there."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.name != "README.md"]
    assert [page for page in pages if f" {page}\n" not in nav] == []


def test_links_between_files_lead_somewhere() -> None:
    """In the README too, which mkdocs does not see."""
    broken = [
        f"{page.name}: {target}#{anchor}"
        for page in PAGES
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8"))
        if not (linked := page.parent / target if target else page).exists()
        or (anchor and linked.suffix == ".md" and anchor not in _anchors(linked))
    ]
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """Of the headings, as mkdocs and GitHub make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
