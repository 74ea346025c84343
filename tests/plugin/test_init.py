"""``--llm-init``: a starter suite for whatever data file, which collects, validates, and overwrites nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.suite_files import read_suites

from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.plugin.init import write_starter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_llmtune.suite import Suite

Rows = list[dict[str, Any]]
LONG = "It depends on the weather, on the season and on the mood of the cat, as a thousand years of records tell. "
DATA: dict[str, tuple[Rows, tuple[str, ...], Any]] = {
    "numbers": ([{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(30)], ("question",), "numeric"),
    "money": (
        [{"text": f"Item {i}?", "Target": f"${i},000.50"} for i in range(30)],
        ("text",),
        {"numeric": {"reference": "Target"}},
    ),
    "gsm8k": ([{"question": f"{i}?", "answer": f"So.\n#### {i}"} for i in range(30)], ("question",), "math"),
    "boxed": ([{"problem": f"{i}?", "solution": f"\\boxed{{{i}}}"} for i in range(30)], ("problem",), "math"),
    "latex": ([{"problem": f"{i}?", "answer": f"\\frac{{{i}}}{{7}}"} for i in range(30)], ("problem",), "math"),
    "letters": (
        [{"query": f"{i}?", "options": f"A) {i}", "label": "ABCD"[i % 4]} for i in range(30)],
        ("query", "options"),
        "choice",
    ),
    "labels": (
        [{"id": i, "review": f"Review {i}", "label": ("good {}", "bad: no")[i % 2]} for i in range(30)],
        ("review",),
        {"choice": {"labels": ["good {}", "bad: no"]}},
    ),
    "magic": (
        [{"text": f"Is {i} even?", "label": ("yes", "no")[i % 2]} for i in range(30)],
        ("text",),
        {"choice": {"labels": ["yes", "no"]}},
    ),
    "json": ([{"input": f"{i}", "expected": {"n": i, "odd": i % 2 > 0}} for i in range(30)], ("input",), "json"),
    "short": (
        [{"instruction": f"Name {i}", "input": "x", "output": f"name {i} of all"} for i in range(30)],
        ("instruction", "input"),
        {"contains": {"reference": "output", "ignore_case": True}},
    ),
    "korean": (
        [{"번호": i, "문의": f"{i}번 컵이 깨져서 왔어요", "분류": ("칭찬", "불만")[i % 2]} for i in range(30)],
        ("문의",),
        {"choice": {"reference": "분류", "labels": ["칭찬", "불만"]}},
    ),
}


class Workspace:
    """A project of a user with one data file."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester, self.path = pytester, pytester.path

    def data(self, rows: Rows, name: str = "data/things.jsonl") -> str:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return name

    def run(self, *args: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)

    def suite(self, name: str = "things.llmtune.yaml") -> Suite:
        [(suite, _)] = read_suites(self.path / name, shown_as=name, root=self.path)
        return suite


@pytest.fixture
def workspace(pytester: pytest.Pytester) -> Workspace:
    return Workspace(pytester)


@pytest.mark.parametrize("kind", DATA)
def test_the_suite_fits_the_data(workspace: Workspace, kind: str) -> None:
    """Prompt fields, reference and grader come from the data; both forms collect, and validate against every row."""
    rows, fields, grader = DATA[kind]
    result = workspace.run("--llm-init", "things", workspace.data(rows))
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["wrote things.llmtune.yaml", "wrote test_things.py", "next: pytest --llm-tune-dry-run *"]
    )
    suite = workspace.suite()
    assert suite.space.templates[0].fields == frozenset(fields)
    assert suite.grader == grader
    result = workspace.run("--collect-only", "-q")  # every row is held against templates and grader
    result.stdout.fnmatch_lines(["test_things.py::test_things_in_python", "things.llmtune.yaml::things"])
    assert result.ret == 0


def test_both_forms_say_the_same(workspace: Workspace) -> None:
    """The Python form's keys are the YAML form's."""
    workspace.run("--llm-init", "things", workspace.data(DATA["labels"][0]))
    tree = ast.parse((workspace.path / "test_things.py").read_text(encoding="utf-8"))
    [decorator] = next(node for node in tree.body if isinstance(node, ast.FunctionDef)).decorator_list
    assert isinstance(decorator, ast.Call)
    python = {str(key.arg): _value(key.value) for key in decorator.keywords}
    said = yaml.safe_load((workspace.path / "things.llmtune.yaml").read_text(encoding="utf-8"))
    assert said.pop("name") == "things"
    assert python == said


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return {node.func.id: [_value(argument) for argument in node.args]}
    return ast.literal_eval(node)


def test_the_python_form_is_formatted(workspace: Workspace) -> None:
    """A newcomer's formatter and linter have nothing to say, long lists included."""
    rows = [{"text": f"{i}?", "label": f"the rather long label number {i % 9}"} for i in range(60)]
    workspace.run("--llm-init", "things", workspace.data(rows))
    for check in (["format", "--check"], ["check", "--select", "E4,E7,E9,W,F,I"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--no-cache", "test_things.py"]
        done = subprocess.run(command, cwd=workspace.path, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_comments_explain_the_choices(workspace: Workspace) -> None:
    """Every decision that is the reader's has a comment in both forms."""
    workspace.run("--llm-init", "things", workspace.data(DATA["korean"][0]))
    for name in ("things.llmtune.yaml", "test_things.py"):
        text = (workspace.path / name).read_text(encoding="utf-8")
        assert "# The column '분류' holds the right answers; the answers are 2 labels." in text
        assert "keep one of the two" in text
        assert text.count("# ") >= 7


def test_nothing_is_overwritten(workspace: Workspace) -> None:
    """One file that is there is enough: neither is written, and both stay as they are."""
    data = workspace.data(DATA["numbers"][0])
    (workspace.path / "test_things.py").write_text("mine", encoding="utf-8")
    result = workspace.run("--llm-init", "things", data)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --llm-init overwrites nothing: *test_things.py is there already*"])
    assert (workspace.path / "test_things.py").read_text(encoding="utf-8") == "mine"
    assert not (workspace.path / "things.llmtune.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["data/things.jsonl"], ["things.llmtune.yaml", "test_things.py"]),
        (["things"], ["things.llmtune.yaml", "test_things.py"]),
        (["llm/mine", "data/things.jsonl"], ["llm/mine.llmtune.yaml", "llm/test_mine.py"]),
        (["mine.llmtune.yaml", "data/things.jsonl"], ["mine.llmtune.yaml", "test_mine.py"]),
        (["test_mine.py", "data/things.jsonl"], ["mine.llmtune.yaml", "test_mine.py"]),
        (["v4.1", "data/things.jsonl"], ["v4.1.llmtune.yaml", "test_v4_1.py"]),
        (["My suite 7", "data/things.jsonl"], ["My suite 7.llmtune.yaml", "test_my_suite_7.py"]),
    ],
)
def test_names_and_places(workspace: Workspace, arguments: list[str], written: list[str]) -> None:
    """The data file is given, is the name, or has the name; a directory in the name is where the files go."""
    workspace.data(DATA["numbers"][0])
    assert workspace.run("--llm-init", *arguments).ret == 0
    workspace.run("--collect-only").stdout.fnmatch_lines(["*2 tests collected*"])
    assert all((workspace.path / name).is_file() for name in written)


@pytest.mark.parametrize("ini", ["", "[pytest]\ntestpaths = checks\n"])
def test_suites_go_where_tests_are(workspace: Workspace, ini: str) -> None:
    """Into ``tests`` or the first of ``testpaths``, so that plain pytest collects them."""
    folder = workspace.path / ("checks" if ini else "tests")
    folder.mkdir()
    (workspace.path / "pytest.ini").write_text(ini, encoding="utf-8")
    assert workspace.run("--llm-init", workspace.data(DATA["numbers"][0])).ret == 0
    assert sorted(path.name for path in folder.iterdir()) == ["test_things.py", "things.llmtune.yaml"]
    assert "dataset: ../data/things.jsonl" in (folder / "things.llmtune.yaml").read_text(encoding="utf-8")
    workspace.run("--collect-only").stdout.fnmatch_lines(["*2 tests collected*"])


def test_incomplete_and_repeated_rows_are_no_obstacle(workspace: Workspace) -> None:
    """Rows without an answer are left out; where rows ask the same, one of them is."""
    (workspace.path / "things.csv").write_text(
        "question,answer\n" + "".join(f"{i % 14} + 1?,{i % 14 + 1}\n" for i in range(42)) + "open?,\n", encoding="utf-8"
    )
    assert workspace.run("--llm-init", "things.csv").ret == 0
    assert workspace.suite().duplicates == "drop"
    workspace.run("--llm-tune-dry-run").assert_outcomes(passed=2)


def test_long_answers_are_judged_by_a_model(workspace: Workspace) -> None:
    """Free text is no string to compare; the comment says that judging costs money."""
    rows = [{"question": f"Why {i}?", "answer": f"{LONG * 3}{i}"} for i in range(10)]
    assert workspace.run("--llm-init", workspace.data(rows)).ret == 0
    assert list(workspace.suite().grader) == ["judge"]
    assert "a model compares them, at its price" in (workspace.path / "test_things.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda _: None, ["things"], "which data?*pytest --llm-init things FILE*"),
        (lambda _: None, ["x", "no.jsonl"], "no.jsonl: there is no such file"),
        (lambda w: w.data(DATA["numbers"][0], "a.jsonl"), ["things"], "which data?*there is a.jsonl"),
        (lambda w: w.data([{"text": "a"}, {"text": "b"}]), ["things"], "no column holds the right answers*text*"),
        (
            lambda w: w.data([{"id": 1, "answer": 1}, {"id": 2, "answer": 2}]),
            ["things"],
            "there is no column with a question*",
        ),
        (lambda w: w.data([]), ["things"], "*things.jsonl*"),
        (lambda w: w.data(DATA["numbers"][0]), ["con", "data/things.jsonl"], "*'con'*which some systems do not allow*"),
        (lambda w: w.data(DATA["numbers"][0]), ["a", "data/things.jsonl", "b"], "one data file, not 2*"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    workspace: Workspace, prepare: Callable[[Workspace], object], arguments: list[str], message: str
) -> None:
    """No data, data that cannot be a suite, names that cannot be files: a usage error, and no file."""
    prepare(workspace)
    result = workspace.run("--llm-init", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{message}"])
    assert not list(workspace.path.glob("*.llmtune.yaml"))


CELLS = st.one_of(
    st.text(max_size=12), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text(), max_size=2)
)
NAMES = st.one_of(st.sampled_from(["question", "answer", "text", "label"]), st.text(min_size=1, max_size=8))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NAMES, min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, CELLS)), min_size=1, max_size=9)
    )
)
def test_any_data_make_a_suite_or_one_error(rows: list[Mapping[str, Any]]) -> None:
    """Whatever names and cells: both forms read back as they were proven, or an error of ours says why not."""
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        (here / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        try:
            written, python = write_starter("x.jsonl", [], cwd=here, tests=here, root=here)
        except LLMTuneError:
            assert [path.name for path in here.iterdir()] == ["x.jsonl"]
            return
        [(suite, _)] = read_suites(written, shown_as="x", root=here)
        assert suite.load().test
        compile(python.read_text(encoding="utf-8"), "x", "exec")
