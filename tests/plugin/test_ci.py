"""What CI systems get: workflows whose commands run as they stand, exit codes, summaries, annotations, JUnit."""

from __future__ import annotations

import json
import re
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import openai
import pytest
import yaml
from support.locks import Git

from pytest_llmtune._util.text import COMMENT_MARK
from pytest_llmtune.plugin.options import OPTIONS

if TYPE_CHECKING:
    from conftest import Project

DOCS = Path(__file__).parents[2] / "docs"
GITHUB = yaml.safe_load((DOCS / "ci" / "github-actions.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((DOCS / "ci" / "gitlab-ci.yml").read_text(encoding="utf-8"))


def _commands(job: dict[str, Any]) -> list[str]:
    lines = job.get("script") or [step["run"] for step in job["steps"] if "run" in step]
    return [line for line in lines if line.startswith("python -m pytest ")]


JOBS = {
    "github guard": _commands(GITHUB["jobs"]["guard"]),
    "github drift": _commands(GITHUB["jobs"]["drift"]),
    "gitlab guard": _commands(GITLAB["llm-guard"]),
    "gitlab drift": _commands(GITLAB["llm-drift"]),
}


@pytest.mark.parametrize("job", JOBS)
def test_the_workflows_run_as_they_stand(tuned: Project, job: str) -> None:
    """Each job's command passes in a project, the guard without a request, and leaves what is kept as artifact."""
    [command] = JOBS[job]
    before, files = tuned.server.count, (tuned.lock, tuned.recording)
    result = tuned.run(*shlex.split(command)[3:])
    result.assert_outcomes(passed=1)
    assert (tuned.server.count > before) is ("drift" in job)
    assert (tuned.lock, tuned.recording) == files
    written = {path.name for path in (tuned.pytester.path / "llm-report").iterdir()}
    assert {"index.html", "results.json"} <= written <= {"index.html", "results.json", "junit.xml", "comment.md"}
    assert ("comment.md" in written) is ("--llm-comment" in command)


def test_the_guard_runs_on_every_push_and_the_drift_at_night() -> None:
    """Only the nightly job has a key, asks live, and has a cap; both keep their report though they fail."""
    triggers = GITHUB[True]  # YAML 1.1 reads the key "on" as a truth
    assert {"push", "pull_request", "schedule"} <= triggers.keys()
    guard, drift = GITHUB["jobs"]["guard"], GITHUB["jobs"]["drift"]
    assert "secrets." not in str(guard)
    assert (guard["if"], "schedule'" in drift["if"]) == ("github.event_name != 'schedule'", True)
    for name, [command] in JOBS.items():
        assert ("--llm-live" in command and "--llm-max-spend=" in command) is ("drift" in name)
    for job in (guard, drift):
        [kept] = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
        assert (kept["if"], kept["with"]["path"]) == ("always()", "llm-report")
    assert GITLAB["llm-guard"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE != "schedule"'}]
    assert GITLAB["llm-drift"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}]
    assert GITLAB[".llm"]["artifacts"]["when"] == "always"


@pytest.mark.parametrize("environment", [GITHUB["jobs"]["guard"].get("env"), GITLAB["llm-guard"]["variables"]])
def test_an_app_creates_its_client_in_the_guard(
    environment: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which openai's client refuses without a key, and with an empty one."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in (environment or {}).items():
        monkeypatch.setenv(name, value)
    assert openai.OpenAI().api_key == "none"


def test_every_option_in_a_message_exists() -> None:
    """In the page on CI and in the workflows."""
    texts = [path.read_text(encoding="utf-8") for path in (DOCS / "ci.md", *(DOCS / "ci").iterdir())]
    told = set(re.findall(r"--llm-[a-z-]*[a-z]", "".join(texts)))
    assert told <= {option.flag for option in OPTIONS}


STALE = "Please: {question}"


@pytest.mark.parametrize(
    ("arguments", "prompt", "code"),
    [
        ([], "{question}", 0),
        ([], STALE, 1),
        (["--llm-tune", "--llm-live"], "{question}", 4),
        (["--llm-max-spend=none"], "{question}", 4),
        ([], "{qestion}", 4),
        (["--llm-json=taken/x.json"], "{question}", 4),
        (["--llm-json=taken/x.json"], STALE, 1),
        (["-k", "nothing"], "{question}", 5),
    ],
)
def test_exit_codes(tuned: Project, arguments: list[str], prompt: str, code: int) -> None:
    """As docs/ci.md tells them; misuse is never an internal error."""
    (tuned.pytester.path / "taken").write_text("", encoding="utf-8")
    tuned.write_suite(prompt=prompt)
    result = tuned.run(*arguments)
    assert result.ret == code
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert f"| {code} |" in (DOCS / "ci.md").read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_hides_no_other(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table and the other reports are there; the summary names what is not."""
    (tuned.pytester.path / "taken").write_text("", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tuned.pytester.path / "step.md"))
    result = tuned.run("--llm-json=taken/x.json", "--llm-report=page.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(
        ["sums *passed", "ERROR: *taken/x.json: the results cannot be written: *", "*1 passed*"]
    )
    assert (tuned.pytester.path / "page.html").exists()
    assert "1 passed" in (tuned.pytester.path / "step.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["jinja2", "plotly"])
def test_a_missing_extra_is_reported_before_anything_is_paid(project: Project, name: str) -> None:
    """A search whose page could not be written does not begin."""
    (project.pytester.path / "conftest.py").write_text(f"import sys\nsys.modules[{name!r}] = None\n", encoding="utf-8")
    result = project.run("--llm-tune", "--llm-report=page.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: the HTML report needs {name}*pip install 'pytest-llmtune*report*'"])
    assert project.server.count == 0


def test_reports_go_where_pytest_was_called(tuned: Project) -> None:
    """A test that changes the directory does not carry the files away."""
    (tuned.pytester.path / "elsewhere").mkdir()
    (tuned.pytester.path / "test_zz.py").write_text(
        "import os\ndef test_cd(): os.chdir('elsewhere')\n", encoding="utf-8"
    )
    tuned.run("--llm-json=results.json")
    assert json.loads((tuned.pytester.path / "results.json").read_text(encoding="utf-8"))["verdicts"] == {"passed": 1}


def test_a_failing_suite_in_ci(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub's summary and annotation, and JUnit's properties, tell the same verdict."""
    step = tuned.pytester.path / "step.md"
    step.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    tuned.write_suite(more="max_inference_cost=0.0000001,")
    result = tuned.run("--junitxml=out.xml")
    result.assert_outcomes(failed=1)
    line = (tuned.pytester.path / "test_sums.py").read_text(encoding="utf-8").splitlines().index(
        "@pytest.mark.llmtune("
    ) + 1
    [annotation] = [one for one in result.outlines if one.startswith("::error")]
    assert annotation.startswith(f"::error file=test_sums.py,line={line},title=llmtune%3A sums failed::inference_cost")
    assert step.read_text(encoding="utf-8").startswith("before\n## LLM suites: 1 of 1 failed\n")
    xml = ElementTree.parse(tuned.pytester.path / "out.xml")  # noqa: S314 - our own file
    properties = {one.get("name"): one.get("value") or "" for one in xml.iter("property")}
    expected = {
        "llmtune.suite": "sums",
        "llmtune.verdict": "failed",
        "llmtune.metric": "success_vote",
        "llmtune.baseline": "1",
    }
    assert expected.items() <= properties.items()
    assert float(properties["llmtune.inference_cost"]) > 0.0000001


def test_annotations_are_relative_to_the_repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a monorepo the project's directory is part of the path; a suite in YAML is annotated at its document."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    app = pytester.path / "packages" / "app"
    (app / "tests").mkdir(parents=True)
    (app / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (app / "tests" / "data.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n', encoding="utf-8")
    keys = "dataset: data.jsonl\nprompt: '{question}'\nmodel: gpt-4o\ngrader: numeric\n"
    (app / "tests" / "sums.llmtune.yaml").write_text(
        f"# two suites\nname: a\n{keys}---\nname: b\n{keys}", encoding="utf-8"
    )
    (app / "tests" / "llmtune").mkdir()
    for name in "ab":
        lock = (DOCS.parent / "example_project" / "tests" / "llmtune" / "till.lock.yaml").read_text(encoding="utf-8")
        (app / "tests" / "llmtune" / f"{name}.lock.yaml").write_text(lock, encoding="utf-8")
    monkeypatch.chdir(app)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--rootdir", str(app))
    result.assert_outcomes(failed=2)
    places = [line.partition(",title")[0] for line in result.outlines if line.startswith("::error")]
    assert places == [f"::error file=packages/app/tests/sums.llmtune.yaml,line={line}" for line in (2, 8)]


@pytest.mark.parametrize("spread", [[], ["-n", "2"]])
def test_a_suite_that_could_not_be_judged_is_reported_too(
    project: Project, monkeypatch: pytest.MonkeyPatch, spread: list[str]
) -> None:
    """Without a lock file there is no verdict; every report says so all the same, and why."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.pytester.path / "step.md"))
    run = project.pytester.runpytest_subprocess if spread else project.pytester.runpytest_inprocess
    files = ("--llm-json=out.json", "--llm-report=page.html", "--junitxml=out.xml")
    result = run("-p", "no:cacheprovider", *files, *spread)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["sums * error", "::error file=test_sums.py,line=5,title=llmtune%3A sums error::*no lock file*"]
    )
    said = json.loads((project.pytester.path / "out.json").read_text(encoding="utf-8"))
    assert said["verdicts"] == {"error": 1}
    for name in ("step.md", "page.html", "out.xml"):
        text = (project.pytester.path / name).read_text(encoding="utf-8")
        assert "no lock file" in text.replace("\\", ""), name
    xml = ElementTree.parse(project.pytester.path / "out.xml")  # noqa: S314 - our own file
    properties = {one.get("name"): one.get("value") or "" for one in xml.iter("property")}
    assert properties["llmtune.verdict"] == "error"
    assert "no lock file" in properties["llmtune.problem"]


def test_the_page_has_the_history_of_a_git_checkout(tuned: Project) -> None:
    """Two states of the lock file are a chart; outside of git there is none, and the page is written all the same."""
    pytest.importorskip("plotly")
    root, page = tuned.pytester.path, tuned.pytester.path / "page.html"
    tuned.run("--llm-report=page.html").assert_outcomes(passed=1)
    assert 'id="history"' not in page.read_text("utf-8")
    git = Git(root)
    git("init", "-q")
    path, now = root / "llmtune" / "sums.lock.yaml", tuned.lock
    for subject, text in (("first", now.replace("value: 1.0", "value: 0.5")), ("second", now)):
        path.write_text(text, encoding="utf-8")
        git("add", "llmtune")
        git("commit", "-q", "-m", subject)
    tuned.run("--llm-report=page.html").assert_outcomes(passed=1)
    assert 'id="history"' in page.read_text("utf-8")
    assert "second" in page.read_text("utf-8")


def test_gitlab_posts_one_note_and_updates_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step of docs/ci/gitlab-ci.yml, run as it stands against a server with a list of notes."""
    notes: list[dict[str, Any]] = [{"id": 1, "body": "a person's"}]

    class GitLab(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            self.answer(notes)

        def do_POST(self) -> None:
            notes.append({"id": len(notes) + 1, "body": self.body()})
            self.answer(notes[-1])

        def do_PUT(self) -> None:
            notes[int(self.path.rpartition("/")[2]) - 1]["body"] = self.body()
            self.answer({})

        def body(self) -> Any:
            assert self.headers["private-token"] == "glpat-x"
            return json.loads(self.rfile.read(int(self.headers["content-length"])))["body"]

        def answer(self, data: Any) -> None:
            text = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    job = yaml.safe_load((DOCS / "ci" / "gitlab-ci.yml").read_text("utf-8"))["llm-note"]
    assert job["variables"]["GIT_STRATEGY"] == "none"
    [script] = job["script"]
    code = script.partition("<<'END'\n")[2].rpartition("END")[0]
    (tmp_path / "llm-report").mkdir()
    monkeypatch.chdir(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), GitLab) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        given = {"CI_API_V4_URL": f"http://127.0.0.1:{server.server_address[1]}/api/v4", "LLM_NOTE_TOKEN": "glpat-x"}
        for name, value in {**given, "CI_PROJECT_ID": "7", "CI_MERGE_REQUEST_IID": "3"}.items():
            monkeypatch.setenv(name, value)
        for text in ("first", "second"):
            (tmp_path / "llm-report" / "comment.md").write_text(f"{COMMENT_MARK}\n{text}", encoding="utf-8")
            exec(compile(code, "step", "exec"), {})  # noqa: S102 - what the documentation tells people to run
        server.shutdown()
    assert [note["body"] for note in notes] == ["a person's", f"{COMMENT_MARK}\nsecond"]
