"""A recording is open to any tool: stock vcrpy replays ours in a process of its own, and we read what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import openai
import pytest
import vcr
from support.exchanges import body_of, exchange
from support.llm_server import LLMServer

from pytest_llmtune._util.jsonhash import build
from pytest_llmtune.capture.client import client
from pytest_llmtune.capture.session import Replay
from pytest_llmtune.recording import Recording
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from pathlib import Path

STOCK = """
import json, sys
import openai, vcr
path, base_url, calls = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = openai.OpenAI(api_key="any", base_url=base_url, max_retries=0)
said = []
with vcr.VCR(serializer="json", record_mode="none", match_on=("method", "uri", "body")).use_cassette(path) as cassette:
    for route, parameters in calls:
        if route == "responses":
            said.append(client.responses.create(**parameters).output_text)
        elif parameters.get("stream"):
            chunks = client.chat.completions.create(**parameters)
            said.append("".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices))
        else:
            said.append([choice.message.content for choice in client.chat.completions.create(**parameters).choices])
    assert cassette.all_played
assert not [name for name in sys.modules if name.startswith(("pytest_llmtune", "pytest"))]
print(json.dumps(said))
"""


def stock(path: Path, base_url: str, calls: list[tuple[str, dict[str, object]]]) -> list[object]:
    """Replay calls with stock vcrpy and the stock openai client."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", "-c", STOCK, str(path), base_url, json.dumps(calls)],
        check=False,
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert isinstance(said, list)
    return said


def test_stock_vcrpy_replays_the_recording_of_a_suite(tmp_path: Path) -> None:
    """n answers, joined exchanges, any script, any line end: each is served by the stock cassette."""
    path = tmp_path / "suite.cassette.json"
    answers = ["서울입니다.", 'a\nb\r\n\u2028c \\boxed{4} "quoted" \x1b[31m']
    Recording.write(path, [exchange("수도는?", *answers), exchange("수도는?", "again", "x"), exchange("other", "b")])
    question = {**body_of("수도는?"), "n": 2}
    calls = [("chat", question), ("chat", {**body_of("other"), "n": 1}), ("chat", question)]
    assert stock(path, "https://api.example.com/v1", calls) == [answers, ["b"], ["again", "x"]]


def test_stock_vcrpy_replays_the_recording_of_client_code(tmp_path: Path) -> None:
    """Compressed, streamed and Responses API answers were decoded, and play in the stock client."""
    path = tmp_path / "app.cassette.json"
    chat: dict[str, object] = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
    with (
        LLMServer(answer="streamed in three words", gzip=True) as server,
        Replay(path, Mode.RECORD_ALL, "", Redactor.from_environment()) as replay,
        client(replay, base_url=server.base_url, api_key="any") as asking,
    ):
        base_url = server.base_url
        asking.chat.completions.create(**chat)  # type: ignore[call-overload]
        list(asking.chat.completions.create(**chat, stream=True))  # type: ignore[call-overload]
        asking.responses.create(model="m", input="q")
    calls: list[tuple[str, dict[str, object]]] = [
        ("chat", chat | {"stream": True}),
        ("responses", {"model": "m", "input": "q"}),
        ("chat", chat),
    ]
    text = "streamed in three words"
    assert stock(path, base_url, calls) == [text, text, [text]]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_cassette_of_stock_vcrpy_is_read(tmp_path: Path, compressed: bool) -> None:
    """What stock vcrpy recorded with its JSON serializer answers the evaluator."""
    path = tmp_path / "stock.cassette.json"
    recorder = vcr.VCR(serializer="json", decode_compressed_response=True)
    with (
        LLMServer(answer=["4", "five"], gzip=compressed) as server,
        recorder.use_cassette(str(path)),
        openai.OpenAI(api_key="any", base_url=server.base_url) as stock_client,
    ):
        stock_client.chat.completions.create(**body_of("2+2?"), n=2)  # type: ignore[call-overload]
    completion = Recording.load(path).lookup(build(body_of("2+2?"), 2))
    assert completion is not None
    assert [choice.text for choice in completion.choices] == ["4", "five"]
