"""A project of a user in a temporary directory, a real server on loopback, and pytest run in it."""

from __future__ import annotations

import json
import re
import warnings
from typing import TYPE_CHECKING, Any

import openai
import pytest
from support.llm_server import LLMServer

from pytest_llmtune.guard import results_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

with warnings.catch_warnings():
    # pytester forgets what an inner run imported; numpy cannot be imported twice in one process, and a second
    # copy of an HTTP library does not catch the errors of the first
    warnings.simplefilter("ignore")
    import flaml  # noqa: F401
    import genai_prices.data_snapshot  # noqa: F401  # this and what follows: so that no inner run takes the time again
    import vcr.patch  # noqa: F401
    import yaml  # noqa: F401

    import pytest_llmtune.capture.patches
    import pytest_llmtune.grading.math
    import pytest_llmtune.plugin.init
    import pytest_llmtune.plugin.session
    import pytest_llmtune.plugin.yaml_items  # noqa: F401

    openai.OpenAI(api_key="unused").close()

QUESTIONS = [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(6) for b in range(5)]

SUITE = """
import pytest
from pytest_llmtune import uniform, randint

@pytest.mark.llmtune(
    dataset="data.jsonl",
    prompt={prompt!r},
    model=["good", "bad"],
    temperature=uniform(0, 1),
    n=randint(1, 4),
    max_tokens=20,
    grader="numeric",
    prices={{"good": {{"input": 1, "output": 2}}, "bad": {{"input": 1, "output": 2}}}},
    tune_size=12,
    num_samples=6,
    optimization_budget=1,
    {more}
)
def test_sums(llmtune):
    llmtune.check()
"""


def answer(body: dict[str, Any]) -> str:
    """The good model adds up; the bad one is always wrong."""
    text = body["messages"][-1]["content"]
    a, b = map(int, re.findall(r"\d+", text)[-2:])
    return f"The answer is {a + b if body['model'] == 'good' else 999}."


def valid_results(path: Path) -> None:
    """Every report of every run here is what the published schema says."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(json.loads(results_schema.PATH.read_text("utf-8")))
    validator.validate(json.loads(path.read_text("utf-8")))


class Project:
    """A user's project."""

    def __init__(self, pytester: pytest.Pytester, server: LLMServer) -> None:
        self.pytester, self.server = pytester, server
        self.write_data(QUESTIONS)
        self.write_suite()

    def write_data(self, rows: list[dict[str, str]]) -> None:
        text = "\n".join(json.dumps(row) for row in rows)
        (self.pytester.path / "data.jsonl").write_text(text, encoding="utf-8")

    def write_suite(self, prompt: str = "{question}", more: str = "min_success_vote=0.9, max_drop=0.05,") -> None:
        (self.pytester.path / "test_sums.py").write_text(SUITE.format(prompt=prompt, more=more), encoding="utf-8")

    def run(self, *args: str) -> pytest.RunResult:
        result = self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)
        for path in (
            self.pytester.path / arg.removeprefix("--llm-json=") for arg in args if arg.startswith("--llm-json=")
        ):
            if path.is_file():
                valid_results(path)
        return result

    @property
    def lock(self) -> str:
        return (self.pytester.path / "llmtune" / "sums.lock.yaml").read_text(encoding="utf-8")

    @property
    def recording(self) -> dict[str, Any]:
        path = self.pytester.path / "llmtune" / "sums.cassette.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


@pytest.fixture
def server() -> Iterator[LLMServer]:
    """A real server with two models."""
    with LLMServer(answer=answer, models=["good", "bad"], max_n=2) as running:
        yield running


@pytest.fixture
def project(pytester: pytest.Pytester, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose endpoint is the server; offline modes must not touch it."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret-0123456789")
    return Project(pytester, server)


@pytest.fixture(scope="session")
def files_of_a_search() -> dict[str, bytes]:
    """What one real ``pytest --llm-tune`` wrote, by path; it is run for the first test that asks."""
    return {}


@pytest.fixture
def tuned(project: Project, files_of_a_search: dict[str, bytes]) -> Project:
    """The project after ``pytest --llm-tune``, its lock file, recording and cache."""
    root = project.pytester.path
    if not files_of_a_search:
        project.run("--llm-tune").assert_outcomes(passed=1)
        written = [path for name in ("llmtune", ".llmtune") for path in (root / name).rglob("*") if path.is_file()]
        files_of_a_search |= {path.relative_to(root).as_posix(): path.read_bytes() for path in written}
    for name, content in files_of_a_search.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return project
