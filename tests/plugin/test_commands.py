"""Every command that a message suggests names its suite, is run from where it is shown, and does what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project

NODE = "test_sums.py::test_sums"


def beside(project: Project) -> None:
    """A second suite, which no command for the first may touch."""
    text = (project.pytester.path / "test_sums.py").read_text(encoding="utf-8")
    other = text.replace("test_sums", "test_other").replace("{question}", "Other: {question}")
    (project.pytester.path / "test_other.py").write_text(other, encoding="utf-8")


def shown(result: pytest.RunResult) -> list[str]:
    """The commands of ours in what pytest printed."""
    text = re.sub(r"\s+", " ", result.stdout.str())
    return re.findall(r"pytest --llm-\S+(?: \S+::\S+)?", text)


def follow(project: Project, command: str) -> pytest.RunResult:
    return project.run(*shlex.split(command.rstrip(".;,)"))[1:])


def in_git(path: Path, *command: str) -> None:
    subprocess.run(["git", "-C", str(path), "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True)  # noqa: S607


DAMAGE = {
    "no lock file": (lambda path: (path / "llmtune" / "sums.lock.yaml").unlink(), "--llm-tune"),
    "damaged lock file": (
        lambda path: (path / "llmtune" / "sums.lock.yaml").write_text("version: [", encoding="utf-8"),
        "--llm-tune",
    ),
    "truncated recording": (
        lambda path: (path / "llmtune" / "sums.cassette.json").write_bytes(
            (path / "llmtune" / "sums.cassette.json").read_bytes()[:-200]
        ),
        "--llm-record=missing",
    ),
    "corrupt recording": (
        lambda path: (path / "llmtune" / "sums.cassette.json").write_text("nonsense", encoding="utf-8"),
        "--llm-record=missing",
    ),
    "no completion": (
        lambda path: (path / "llmtune" / "sums.cassette.json").write_text(
            (path / "llmtune" / "sums.cassette.json")
            .read_text(encoding="utf-8")
            .replace('\\"choices\\":', '\\"chosen\\":', 2),
            encoding="utf-8",
        ),
        "--llm-record=missing",
    ),
    "no recording": (lambda path: (path / "llmtune" / "sums.cassette.json").unlink(), "--llm-record=missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_mended_by_the_command_shown_and_for_nothing(tuned: Project, name: str) -> None:
    """It names this suite alone; what the cache holds is not paid for again, and the guard is green afterwards."""
    beside(tuned)
    spoil, option = DAMAGE[name]
    spoil(tuned.pytester.path)
    result = tuned.run("test_sums.py")
    result.assert_outcomes(failed=1)
    commands = [command for command in shown(result) if command.startswith(f"pytest {option}")]
    assert commands
    assert all(NODE in command for command in shown(result))
    before = tuned.server.count
    follow(tuned, commands[0]).assert_outcomes(passed=1)
    assert tuned.server.count == before
    assert not (tuned.pytester.path / "llmtune" / "other.lock.yaml").exists()
    tuned.run("test_sums.py").assert_outcomes(passed=1)


@pytest.mark.parametrize("where", [".", "sub"])
def test_commands_are_run_from_where_they_are_shown(
    tuned: Project, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Paths and node ids are relative to the directory in which pytest was called."""
    root = tuned.pytester.path
    (root / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (root / "sub").mkdir()
    in_git(root, "init", "-q")
    in_git(root, "add", "-A")
    in_git(root, "commit", "-qm", "x")
    lock = root / "llmtune" / "sums.lock.yaml"
    good = lock.read_bytes()
    lock.write_text("version: [", encoding="utf-8")
    monkeypatch.chdir(root / where)
    test = "test_sums.py" if where == "." else "../test_sums.py"
    result = tuned.run(test)
    found = re.search(r"\((git checkout -- [^)]+)\)", re.sub(r"\s+", " ", result.stdout.str()))
    assert found is not None
    subprocess.run(shlex.split(found[1]), check=True)
    assert lock.read_bytes() == good
    tuned.write_suite(prompt="Please: {question}")
    result = tuned.run(test)
    command = next(line for line in result.outlines if line.startswith("next: ")).removeprefix("next: ")
    assert f"{test}::test_sums" in command
    follow(tuned, command)
    tuned.run("--llm-accept", test).assert_outcomes(passed=1)


APP = """
import pytest, openai

def ask():
    with openai.OpenAI() as client:
        client.chat.completions.create(model="good", messages=[{"role": "user", "content": "1 plus 1"}])

@pytest.fixture(scope="module")
def index():
    ask()

@pytest.mark.llm_replay
def test_fixture(index):
    pass

@pytest.mark.llm_replay
@pytest.mark.parametrize("what", ["a b"])
def test_app(what):
    ask()
"""


def test_commands_of_app_tests_are_run_from_where_they_are_shown(
    tuned: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a subdirectory too, of tests, of parameters with blanks, and of fixtures."""
    root = tuned.pytester.path
    tuned.pytester.makepyfile(test_app=APP)
    (root / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (root / "sub").mkdir()
    monkeypatch.chdir(root / "sub")
    result = tuned.run("../test_app.py")
    result.assert_outcomes(failed=1, errors=1)
    commands = re.findall(r"record[^:]*: (pytest .*--llm-record=missing)", result.stdout.str())
    assert set(commands) == {
        "pytest ../test_app.py --llm-record=missing",
        'pytest "../test_app.py::test_app[a b]" --llm-record=missing',
    }
    for command in commands:
        follow(tuned, command)
    tuned.run("../test_app.py").assert_outcomes(passed=2)


def test_a_renamed_suite_is_offered_its_files(tuned: Project) -> None:
    """Same data, grader and space under another name: ``git mv`` costs nothing, a search would."""
    root = tuned.pytester.path
    in_git(root, "init", "-q")
    in_git(root, "add", "-A")
    in_git(root, "commit", "-qm", "x")
    path = root / "test_sums.py"
    path.write_text(path.read_text(encoding="utf-8").replace("def test_sums(", "def test_totals("), encoding="utf-8")
    result = tuned.run()
    result.assert_outcomes(failed=1)
    found = re.search(r"if this suite was renamed: (git mv .*\.json)", result.stdout.str())
    assert found is not None
    subprocess.run(found[1], shell=True, check=True, cwd=root)  # noqa: S602 - our own words
    assert sorted(file.name for file in (root / "llmtune").iterdir()) == ["totals.cassette.json", "totals.lock.yaml"]
    tuned.run().assert_outcomes(passed=1)


def test_files_of_a_suite_that_is_declared_are_offered_to_no_other(tuned: Project) -> None:
    """A copy of a suite is no renamed suite."""
    path = tuned.pytester.path / "test_sums.py"
    copy = path.read_text(encoding="utf-8").replace("test_sums", "test_copy")
    (tuned.pytester.path / "test_copy.py").write_text(copy, encoding="utf-8")
    result = tuned.run()
    result.assert_outcomes(passed=1, failed=1)
    assert "git mv" not in result.stdout.str()


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("'smus'", "llm_suite('smus'): there is no such suite (did you mean 'sums'?); the suites are sums"),
        ("'other'", "llm_suite('other'): there is no such suite; the suites are sums"),
        ("", "llm_suite takes the name of one suite"),
        ("suite='sums'", "llm_suite takes the name of one suite"),
        ("'../llmtune/sums'", "there is no such suite"),
    ],
)
def test_a_typo_in_llm_suite_lists_the_suites(tuned: Project, marker: str, says: str) -> None:
    """And no traceback."""
    tuned.pytester.makepyfile(
        test_app=f"import pytest\n\n@pytest.mark.llm_suite({marker})\ndef test_app(tuned_config):\n    pass\n"
    )
    result = tuned.run("test_app.py")
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert says in text
    assert "Traceback" not in text
    assert "session.py" not in text


def test_an_app_test_of_an_untuned_suite_names_the_suite(project: Project) -> None:
    """What tunes is the suite's test, not the app's."""
    project.pytester.makepyfile(test_app="def test_app(tuned_config):\n    pass\n")
    result = project.run()
    assert f"the suite 'sums' has no lock file yet. Write it: pytest --llm-tune {NODE}" in result.stdout.str()


def test_a_price_that_an_app_test_lacks_has_no_suite_to_go_into(tuned: Project) -> None:
    """Only the ini file is named, and it works."""
    tuned.pytester.makepyfile(
        test_app="""
import pytest

@pytest.mark.llm_replay(max_cost=1)
def test_app(llm_client):
    llm_client.chat.completions.create(model="good", messages=[{"role": "user", "content": "What is 1 plus 1?"}])
"""
    )
    result = tuned.run("test_app.py", "--llm-record=missing")
    result.assert_outcomes(failed=1)
    text = re.sub(r"\s+", " ", result.stdout.str())
    assert "in the suite" not in text
    found = re.search(r"in the ini file: llmtune_prices = (\S+ input=\S+ output=\S+)", text)
    assert found is not None
    alias = re.search(r"llmtune_prices = (\S+ model=\S+)", text)
    assert alias is not None
    lines = f"{found[1]}\n {alias[1].replace('good', 'other')}"
    (tuned.pytester.path / "pytest.ini").write_text(f"[pytest]\nllmtune_prices =\n {lines}\n", encoding="utf-8")
    tuned.run("test_app.py", "--llm-record=missing").assert_outcomes(passed=1)


def test_a_note_names_the_suite_too(tuned: Project) -> None:
    """Recorded interactions that are no longer used are removed from this recording alone."""
    rows = (tuned.pytester.path / "data.jsonl").read_text(encoding="utf-8").splitlines()
    (tuned.pytester.path / "data.jsonl").write_text("\n".join(rows[:-5]), encoding="utf-8")
    tuned.run("--llm-record=missing")
    tuned.run("--llm-accept")
    (tuned.pytester.path / "data.jsonl").write_text("\n".join(rows[:-8]), encoding="utf-8")
    result = tuned.run("--llm-accept")
    assert f"remove them: pytest --llm-record=missing {NODE}" in result.stdout.str()


def test_a_shard_does_not_stop_early(tuned: Project) -> None:
    """It does not know the others' rows."""
    result = tuned.run("--llm-live", "--llm-shard=1/2", "--llm-stop-early=0.05")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--llm-shard and --llm-stop-early cannot be combined" in result.stderr.str()


def test_the_only_suite_is_meant_where_there_is_one(project: Project) -> None:
    """With none, and with two, the message says so."""
    app = "def test_app(tuned_config):\n    pass\n"
    project.pytester.mkpydir("elsewhere").joinpath("test_app.py").write_text(app, encoding="utf-8")
    result = project.run("elsewhere")
    result.assert_outcomes(errors=1)
    assert "holds no lock file, and no suite is declared beside it" in result.stdout.str()
    path = project.pytester.path / "test_sums.py"
    second = path.read_text(encoding="utf-8").replace("test_sums", "test_more")
    path.with_name("test_more.py").write_text(second, encoding="utf-8")
    path.with_name("test_app.py").write_text(app, encoding="utf-8")
    result = project.run("test_app.py")
    result.assert_outcomes(errors=1)
    assert "there are several suites, more, sums; choose one: @pytest.mark.llm_suite(NAME)" in re.sub(
        r"\s+", " ", result.stdout.str()
    )
