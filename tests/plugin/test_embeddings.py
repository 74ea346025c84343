"""The grader ``similarity`` with embeddings of an endpoint's model: recorded, replayed, priced, and never guessed."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer

from pytest_llmtune import Suite, evaluate
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Project

SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="data.jsonl", prompt="{question}", model="writer", n=2, max_tokens=20, tune_size=2,
    grader={"similarity": {"model": "text-embedding-3-small", "threshold": 0.8}},
    prices={"writer": {"input": 1, "output": 2}}, min_success_vote=0.9, min_similarity=0.9,
)
def test_sums(llmtune):
    llmtune.check()
"""
ROWS = [{"question": f"Comfort guest {n}.", "answer": ["Cheer up!", f"I feel with you, guest {n}."]} for n in range(6)]


def embed(body: dict[str, Any]) -> list[Any]:
    """Sympathy in one direction, everything else in the other."""
    return [0.6, 0.8, 0] if "feel" in body["input"] else [-0.8, 0.6, 1e-9]


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer("I feel so sorry.", embed=embed) as running:
        yield running


@pytest.fixture
def suite(project: Project) -> Project:
    project.write_data(ROWS)  # type: ignore[arg-type]
    (project.pytester.path / "test_sums.py").write_text(SUITE, encoding="utf-8")
    return project


def embedded(server: LLMServer) -> list[str]:
    return [body["input"] for body in server.requests if "input" in body]


def test_embeddings_are_recorded_and_replayed(suite: Project) -> None:
    """Each text is embedded once, whatever the number of rows it is in; a changed reference is a miss, by name."""
    suite.run("--llm-tune", "--llm-json=results.json").assert_outcomes(passed=1)
    asked = embedded(suite.server)
    assert sorted(set(asked)) == sorted(asked)
    assert {"I feel so sorry.", "Cheer up!"} < set(asked)
    assert "/v1/embeddings" in suite.server.paths
    assert "text-embedding-3-small:" in suite.lock
    sent = suite.server.count
    suite.run("--llm-json=results.json").assert_outcomes(passed=1)
    assert suite.server.count == sent
    found = json.loads((suite.pytester.path / "results.json").read_text("utf-8"))["suites"][0]
    assert found["evaluation"]["metrics"]["similarity"] == pytest.approx(1)

    for row in (changed := [dict(row) for row in ROWS]):
        row["answer"] = "I feel like you."
    suite.write_data(changed)
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*--llm-record=missing*"])
    assert suite.server.count == sent
    suite.run("--llm-record=missing").assert_outcomes(passed=1)
    assert embedded(suite.server)[len(asked) :] == ["I feel like you."]
    sent = suite.server.count
    suite.run().assert_outcomes(passed=1)
    assert suite.server.count == sent


def test_a_miss_names_the_embedding(suite: Project) -> None:
    """An embedding that is gone from the cassette is no zero."""
    suite.run("--llm-tune").assert_outcomes(passed=1)
    path = suite.pytester.path / "llmtune" / "sums.cassette.json"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "Cheer up!" not in line), "utf-8")
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no recording in*text-embedding-3-small*--llm-record=missing*"])


def graded(server: LLMServer, root: Path, **keys: Any) -> Any:
    grader = {"similarity": {"threshold": 0.8, **keys.pop("options", {"model": "embedder"})}}
    suite = Suite(
        **{
            "name": "s", "dataset": ROWS, "prompt": "{question}", "model": "writer", "n": 1, "max_tokens": 20, "temperature": 0, "tune_size": 0,
            "grader": grader, "prices": {"writer": {"input": 0, "output": 0}, "embedder": {"input": 10, "output": 0}}, **keys,
        }
    )  # fmt: skip
    config = {"model": "writer", "prompt": "{question}", "n": 1, "max_tokens": 20, "temperature": 0}
    return evaluate(suite, config, settings=Settings(root=root, base_url=server.base_url))


def test_they_are_paid_for(server: LLMServer, tmp_path: Path) -> None:
    """Input tokens alone, as reported, else estimated; the best of several references counts, and an opposite is 0."""
    found = graded(server, tmp_path)
    assert found.success_vote == 1
    texts = ["I feel so sorry.", *ROWS[0]["answer"]]
    assert found.inference_cost == Decimal(10 * sum(-(-len(text) // 4) for text in texts)) / 10**6
    server.answer, server.usage = "Whatever.", "none"
    other = graded(server, tmp_path / "2")
    assert other.metrics["similarity"] == 1, "the nearest of the references"
    assert other.inference_cost > 0
    server.embed = lambda body: [1, 0] if body["input"] == "Whatever." else [-1, 0]
    assert graded(server, tmp_path / "3").metrics["similarity"] == 0
    server.embed = lambda body: [1] * body["dimensions"]
    assert (
        graded(server, tmp_path / "4", options={"model": "embedder", "parameters": {"dimensions": 4}}).success_vote == 1
    )


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (lambda body: [1] * (2 + ("feel" in body["input"])), "embeddings of 2 and 3 numbers"),
        (lambda _: [1.0, float("nan")], "not a JSON object"),
        (lambda _: [1.0, None], "no embedding of finite numbers"),
        (lambda _: [0.0, 0.0], "no embedding of finite numbers"),
        (lambda _: [], "no embedding of finite numbers"),
        (lambda _: [10**400, 1.0], "no embedding of finite numbers"),
        (lambda _: [True, 1.0], "no embedding of finite numbers"),
    ],
)
def test_a_malformed_embedding_is_an_error(
    server: LLMServer, tmp_path: Path, vector: Callable[[dict[str, Any]], list[Any]], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every row is unknown, and none is wrong."""
    monkeypatch.setattr("pytest_llmtune.completions.requester.backoff", lambda *_: 0.001)
    server.embed = vector
    found = graded(server, tmp_path)
    assert len(found.unknown) == len(ROWS)
    assert all(said in str(result.error) for result in found.unknown)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"prices": {"writer": {"input": 1, "output": 1}}}, "the price of model 'embedder' is unknown"),
        ({"options": {"measure": "embedding"}}, "embeddings, and only these, need a model"),
        ({"options": {"measure": "chrf", "model": "embedder"}}, "embeddings, and only these, need a model"),
        ({"options": {"model": "embedder", "parameters": {"input": "x"}}}, "without model, input, encoding_format"),
    ],
)
def test_mistakes_are_reported_before_anything_is_sent(
    server: LLMServer, tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    """An unknown price, and contradicting options."""
    with pytest.raises(LLMTuneError, match=said):
        graded(server, tmp_path, **keys)
    assert not embedded(server)


def test_they_are_reserved_in_the_budget(suite: Project) -> None:
    """Nothing is sent that the budget does not pay for."""
    text = SUITE.replace("prices={", "prices={'text-embedding-3-small': {'input': 10**6, 'output': 0}, ")
    (suite.pytester.path / "test_sums.py").write_text(text, encoding="utf-8")
    suite.run("--llm-live", "--llm-max-spend=0.5").assert_outcomes(failed=1)
    assert not embedded(suite.server)
