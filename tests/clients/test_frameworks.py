"""The desk of docs/how-to/frameworks.md with real agent frameworks: recorded, replayed offline, judged by its trace."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import Answer, LLMServer

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "frameworks.md"
FRAMEWORKS = {"pydantic-ai": "pydantic_ai", "LangChain": "langchain_openai", "The OpenAI Agents SDK": "agents"}
PRICES = "\nllmtune_prices =\n    small input=1 output=2\n    big input=1 output=2\n"
ROWS = [{"question": f"Where is order {order}?", "answer": where, "order": order} for order, where in
        [("17", "shipped"), ("18", "lost")] * 2]  # fmt: skip


class Desk(LLMServer):
    """Asks for the tool where it is offered, and says what it found; the small model looks up the wrong order."""

    def completion(self, body: dict[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
        reply = super().completion(body, answers)
        messages = body["messages"]
        asked = str(next(message for message in messages if message["role"] == "user")["content"])
        results = [str(message["content"]) for message in messages if message["role"] == "tool"]
        if not body.get("tools"):
            reply["choices"][0]["message"]["content"] = "order"
        elif results:
            reply["choices"][0]["message"]["content"] = f"Your order is {results[-1]}."
        else:
            [order] = re.findall(r"\d+", asked)
            arguments = json.dumps({"order": order if body["model"] == "big" else "0"})
            call = {"id": f"call_{self.count}", "type": "function"}
            call["function"] = {"name": "look_up_order", "arguments": arguments}  # type: ignore[assignment]
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            reply["choices"][0] = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return reply


def blocks(heading: str) -> list[str]:
    """The Python code under a heading of the page."""
    part = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    [text] = [each for each in part if each.startswith(heading)]
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_desk_of_the_page(name: str, tmp_path: Path) -> None:
    """Tuned: the model that asks for the right order; replayed, on two workers too: the same verdict, and no request."""
    if find_spec(FRAMEWORKS[name]) is None:
        pytest.skip(f"{FRAMEWORKS[name]} is not installed: pip install 'pytest-llmtune[clients]'")
    (tmp_path / "data").mkdir()
    rows = [{**row, "question": f"{row['question']} (ticket {number})"} for number, row in enumerate(ROWS)]
    rows = [
        {**row, "question": str(row["question"]).partition(" (")[0] + "?" * number} for number, row in enumerate(rows)
    ]
    (tmp_path / "data" / "tickets.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "desk.py").write_text(blocks(name)[0], encoding="utf-8")
    (tmp_path / "test_desk.py").write_text(blocks("# Test an agent")[0], encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = .{PRICES}", encoding="utf-8")

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        keys = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-test-secret-0123456789"}
        ended = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **keys}, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    with Desk(models=["small", "big"]) as server:
        run("--llm-tune", "--llm-json=tuned.json")
        asked = server.count
        run("--llm-json=replayed.json")
        if find_spec("xdist") is not None:
            run("-n", "2")
        assert server.count == asked
    assert "model: big" in (tmp_path / "llmtune" / "desk.lock.yaml").read_text(encoding="utf-8")
    recorded = json.loads((tmp_path / "llmtune" / "desk.cassette.json").read_text(encoding="utf-8"))["interactions"]
    assert {each["llmtune"]["call"] for each in recorded} == {1, 2, 3}
    assert "sk-test-secret" not in str(recorded)
    tuned, replayed = (
        json.loads((tmp_path / f"{which}.json").read_text(encoding="utf-8"))["suites"][0]["evaluation"]
        for which in ("tuned", "replayed")
    )
    assert (tuned["metrics"]["tools_success_vote"], tuned["inference_cost"]) == (1.0, replayed["inference_cost"])
    assert replayed["metrics"] == pytest.approx(tuned["metrics"], abs=1e-3)
