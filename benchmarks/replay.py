"""How fast a recording replays: ours against stock vcrpy with the stock openai client, on the same answers, in one run.

    python benchmarks/replay.py                    both tables (some minutes: stock vcrpy needs a square of time)
    python benchmarks/replay.py --stock 100 200    only these sizes for stock vcrpy
    python benchmarks/replay.py --whole 800        a whole pytest run of so many requests: stock vcrpy's and a guard's

The answers come from an HTTP server that this file starts: n=5 chat completions with the headers that OpenAI sends. They
are asked for once, by the stock client; stock vcrpy's file and ours are written from those same responses. Every figure
is taken in a process of its own: seconds of CPU for reading the file and for answering every request once; imports are
not counted.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import resource
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

N = 5
WORDS_EACH = 50  # as GSM8K's own solutions have
LARGE = 10_000
ENGLISH = "so the total number of apples is then we find that each box holds twice as many which gives".split()  # noqa: SIM905
KOREAN = "그러므로 사과의 수는 모두 상자마다 두 배가 되고 따라서 남은 것을 더하면 답을 얻는다".split()  # noqa: SIM905
SYSTEM = "Reason step by step and put the final answer in \\boxed{}."
HEADERS = {
    "access-control-expose-headers": "X-Request-ID",
    "openai-organization": "user-q7ab3c9d1e",
    "openai-processing-ms": "1342",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "10000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "9999891",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "0s",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "cf-cache-status": "DYNAMIC",
    "x-content-type-options": "nosniff",
    "server": "cloudflare",
    "alt-svc": 'h3=":443"; ma=86400',
}


def question(index: int) -> str:
    """The problem of one example."""
    kinds, sizes = index % 17 + 2, index % 5 + 3
    return f"Problem {index}: a shop sells {kinds} kinds of fruit, each in {sizes} sizes. How many fruits are that?"


def body_of(index: int) -> dict[str, Any]:
    """The request for one example, as the stock client sends it."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question(index)}]
    return {"model": "gpt-4o-mini", "messages": messages, "temperature": 0.7, "max_tokens": 300, "n": N}


def handler(words: int, vocabulary: list[str]) -> type[BaseHTTPRequestHandler]:
    """Answers as OpenAI does; the same question gets the same answers of so many words."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            data = json.dumps(completion(body, words, vocabulary), indent=2, ensure_ascii=False).encode()
            cookie = f"__cf_bm={secrets.token_urlsafe(96)}; path=/; HttpOnly; Secure"
            own = {"x-request-id": f"req_{secrets.token_hex(16)}", "cf-ray": secrets.token_hex(8), "set-cookie": cookie}
            self.send_response(200)
            for name, value in (HEADERS | own).items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


def completion(body: dict[str, Any], words: int, vocabulary: list[str]) -> dict[str, Any]:
    """The response's JSON, field by field as OpenAI's."""
    draw = random.Random(body["messages"][-1]["content"])
    texts = [" ".join(draw.choices(vocabulary, k=words)) + f" \\boxed{{{draw.randrange(9)}}}" for _ in range(N)]
    audio = {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
    return {
        "id": f"chatcmpl-{secrets.token_hex(14)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
            for index, text in enumerate(texts)
        ],
        "usage": {
            "prompt_tokens": 61,
            "completion_tokens": 70 * N,
            "total_tokens": 61 + 70 * N,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": audio,
        },
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
    }


def record(directory: Path, sizes: list[int], words: int = WORDS_EACH, vocabulary: list[str] = ENGLISH) -> None:
    """Ask the server once, and write stock vcrpy's YAML and our recording for every size."""
    import openai
    from vcr.persisters.filesystem import FilesystemPersister
    from vcr.request import Request
    from vcr.serializers import yamlserializer

    from pytest_llmtune.recording import Recording
    from pytest_llmtune.types import Exchange

    taken: list[tuple[Any, dict[str, Any]]] = []
    exchanges: list[Exchange] = []

    def keep(response: httpx2.Response) -> None:
        response.read()
        request = response.request
        headers: dict[str, list[str]] = {}
        for name, value in response.headers.multi_items():
            headers.setdefault(name, []).append(value)
        status = {"code": response.status_code, "message": response.reason_phrase}
        recorded = {"status": status, "headers": headers, "body": {"string": response.content}}
        taken.append((Request(request.method, str(request.url), request.content, request.headers), recorded))
        sent, got, latency = json.loads(request.content), response.json(), response.elapsed.total_seconds()
        exchanges.append(Exchange("POST", str(request.url), sent, got, latency=latency, headers=dict(response.headers)))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler(words, vocabulary)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (directory / "url").write_text(f"http://127.0.0.1:{server.server_port}/v1")
        http = openai.DefaultHttpxClient(event_hooks={"response": [keep]})
        with openai.OpenAI(api_key="sk-any", base_url=(directory / "url").read_text(), http_client=http) as client:
            for index in range(max(sizes)):
                client.chat.completions.create(**body_of(index))
        server.shutdown()
    for size in sizes:
        if size < LARGE:  # what stock vcrpy would have written, by its own serializer
            requests, responses = zip(*taken[:size], strict=True)
            cassette = {"requests": list(requests), "responses": list(responses)}
            FilesystemPersister.save_cassette(directory / f"{size}.yaml", cassette, yamlserializer)
        Recording.write(directory / f"{size}.cassette.json", exchanges[:size])


def stock(directory: Path, size: int) -> None:
    """Stock vcrpy and the stock openai client."""
    import openai
    import vcr

    on = ("method", "scheme", "host", "port", "path", "query", "body")
    client = openai.OpenAI(api_key="any", base_url=(directory / "url").read_text())
    with vcr.VCR(record_mode="none", match_on=on).use_cassette(str(directory / f"{size}.yaml")):
        for index in range(size):
            assert len(client.chat.completions.create(**body_of(index)).choices) == N


def recording_of(directory: Path, size: int) -> Any:
    from pytest_llmtune.recording import Recording
    from pytest_llmtune.redaction.redactor import Redactor

    return Recording.load(directory / f"{size}.cassette.json", Redactor.from_environment())


def ours(directory: Path, size: int) -> None:
    """The evaluator's own replay."""
    from pytest_llmtune._util.jsonhash import build

    recording = recording_of(directory, size)
    for index in range(size):
        completion = recording.lookup(build(body_of(index), N))
        assert completion is not None
        assert len(completion.choices) == N


def verdict(directory: Path, size: int) -> None:
    """From the recording to the verdict: rows, prompts, replay, grading by ``math``, votes, costs, intervals, gates."""
    from pytest_llmtune._util.aio import run_async
    from pytest_llmtune.completions.source import ReplaySource
    from pytest_llmtune.grading import check, resolve
    from pytest_llmtune.guard.evaluation import evaluate
    from pytest_llmtune.guard.gates import judge
    from pytest_llmtune.guard.verdict import criteria_of
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.suite import Config, Suite, Template

    rows = [{"problem": question(index), "answer": f"\\boxed{{{index % 9}}}"} for index in range(size)]
    system = SYSTEM.replace("{", "{{").replace("}", "}}")
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "{problem}"}]
    suite = Suite(
        name="benchmark", dataset=rows, messages=messages, model="gpt-4o-mini", grader="math", tune_size=1,
        min_success_vote=0, max_inference_cost=1,
    )  # fmt: skip
    split = suite.load()
    grader = resolve(suite.grader)
    examples = split.test if split.reused else (*split.tune, *split.test)
    check(grader, examples)
    parameters = {name: value for name, value in body_of(0).items() if name != "messages"}
    job = evaluate(
        Config(parameters, Template.messages(messages)),
        examples,
        grader=grader,
        source=ReplaySource(recording_of(directory, size)),
        prices=PriceBook({}),
    )
    result = judge(run_async(job, loop=False), criteria_of(suite, reused=False))
    assert result.passed or size == 1, result  # the one row of the warm-up is wrong


def _replay(directory: Path, size: int) -> Any:
    from pytest_llmtune.capture.session import Replay
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.settings import Mode

    return Replay(directory / f"{size}.cassette.json", Mode.REPLAY, "pytest", Redactor.from_environment())


def fixture(directory: Path, size: int) -> None:
    """An app's own calls through the fixture ``llm_client``."""
    from pytest_llmtune.capture.client import client

    with _replay(directory, size) as replay, client(replay, base_url=(directory / "url").read_text()) as asking:
        for index in range(size):
            assert len(asking.chat.completions.create(**body_of(index)).choices) == N


def marker(directory: Path, size: int) -> None:
    """An app's own openai client under the marker ``llm_replay``."""
    import openai

    from pytest_llmtune.capture.patches import recorded

    with recorded(_replay(directory, size)):
        asking = openai.OpenAI(api_key="any", base_url=(directory / "url").read_text())
        for index in range(size):
            assert len(asking.chat.completions.create(**body_of(index)).choices) == N


WAYS = {way.__name__: way for way in (stock, ours, verdict, fixture, marker)}


def measured(way: str, directory: Path, size: int) -> tuple[float, float]:
    """(seconds of CPU, MiB at most) of one way in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--way", way, "--size", str(size), "--directory", str(directory)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def run_one(way: str, directory: Path, size: int) -> None:
    """In the child: do it once with one request, for the imports, and then take the time."""
    WAYS[way](directory, 1)
    start = time.process_time()
    WAYS[way](directory, size)
    spent = time.process_time() - start
    print(spent, peak())


def peak() -> float:
    """MiB of memory at most; ``ru_maxrss`` would be the parent's where that was larger."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speed(stock_sizes: list[int], directory: Path) -> list[list[str]]:
    """Seconds by number of requests."""
    record(directory, [1, *stock_sizes, LARGE])
    head = [
        "requests, n=5",
        "stock vcrpy + openai",
        "ours",
        "ratio",
        "ours, to the verdict",
        "llm_client",
        "llm_replay",
    ]
    rows = [head, ["---"] * len(head)]
    for size in [*stock_sizes, LARGE]:
        theirs = measured("stock", directory, size)[0] if size in stock_sizes else None
        mine, whole = measured("ours", directory, size), measured("verdict", directory, size)
        clients = [f"{measured(way, directory, size)[0]:.2f} s" for way in ("fixture", "marker")]
        ratio = ["-", f"{mine[0]:.3f} s", "-"]
        if theirs is not None:
            ratio = [f"{theirs:.2f} s", f"{mine[0]:.3f} s", f"{theirs / mine[0]:.0f} x"]
        rows.append([f"{size:,}", *ratio, f"{whole[0]:.2f} s, {whole[1]:.0f} MiB", *clients])
        print("...", *rows[-1], sep=" | ", file=sys.stderr, flush=True)
    return rows


STOCK_TEST = """
import json, openai, vcr

def test_stock():
    bodies = json.load(open("bodies.json"))
    client = openai.OpenAI(api_key="any", base_url=open("url").read())
    on = ("method", "scheme", "host", "port", "path", "query", "body")
    with vcr.VCR(record_mode="none", match_on=on).use_cassette("SIZE.yaml"):
        for body in bodies:
            assert len(client.chat.completions.create(**body).choices) == body["n"]
"""
PLUGIN = ("-p", "pytest_llmtune.plugin")
GUARD_TEST = """
import pytest

@pytest.mark.llmtune(
    dataset=ROWS, messages=MESSAGES, model="gpt-4o-mini", temperature=0.7, max_tokens=300, n=N, grader="math", tune_size=1,
    min_success_vote=0, max_inference_cost=1, optimization_budget=1000, allow_vacuous=True, prices=PRICES,
)
def test_NAME(llmtune):
    llmtune.check()
"""


def whole(size: int, directory: Path) -> None:
    """CPU seconds of a whole pytest of so many requests: by stock vcrpy with the openai client, and by a guard with its verdict.

    The guard takes prices from genai-prices, whose import takes 0.15 s, and from the suite.
    """
    record(directory, [size])
    (directory / "bodies.json").write_text(json.dumps([body_of(index) for index in range(size)]))
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "test_stock.py").write_text(STOCK_TEST.replace("SIZE", str(size)))
    rows = [{"problem": question(index), "answer": f"\\boxed{{{index % 9}}}"} for index in range(size + 1)]
    messages = [{"role": "system", "content": SYSTEM.replace("{", "{{").replace("}", "}}")}]
    messages.append({"role": "user", "content": "{problem}"})
    prices = {"listed": "{}", "own": repr({"gpt-4o-mini": {"input": 0.15, "output": 0.6}})}
    for name, given in prices.items():
        parts = {"ROWS": repr(rows), "MESSAGES": repr(messages), "n=N": f"n={N}", "NAME": name, "PRICES": given}
        text = functools.reduce(lambda text, part: text.replace(*part), parts.items(), GUARD_TEST)
        (directory / f"test_{name}.py").write_text(text)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(WORDS_EACH, ENGLISH)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        for name in prices:
            _pytest(directory, *PLUGIN, f"test_{name}.py", "--llm-tune", f"--llm-base-url={url}")
        server.shutdown()
    mine = {name: min(_pytest(directory, *PLUGIN, f"test_{name}.py") for _ in range(5)) for name in prices}
    theirs = _pytest(directory, "test_stock.py")
    print(f"whole pytest, {size} requests, n={N}: stock vcrpy {theirs:.2f} s")
    for name, seconds in mine.items():
        print(f"guard with {name} prices {seconds:.2f} s, {theirs / seconds:.0f} x")


def _pytest(directory: Path, *options: str) -> float:
    environment = dict(os.environ, OPENAI_API_KEY="sk-any-000000000000", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-2000:])
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def sizes(size: int = 100) -> list[list[str]]:
    """Bytes of a request by length of its answers."""
    head = ["five answers of", "stock YAML", "ours", "share"]
    rows = [head, ["---"] * len(head)]
    for words, vocabulary, name in ((3, ENGLISH, ""), (20, ENGLISH, ""), (50, ENGLISH, ""), (50, KOREAN, " Korean")):
        with tempfile.TemporaryDirectory() as directory:
            record(Path(directory), [size], words, vocabulary)
            theirs = (Path(directory) / f"{size}.yaml").stat().st_size / size
            mine = (Path(directory) / f"{size}.cassette.json").stat().st_size / size
        rows.append([f"{words}{name} words", f"{theirs:,.0f} bytes", f"{mine:,.0f} bytes", f"{mine / theirs:.0%}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", type=int, nargs="+", default=[100, 200, 400, 800], metavar="SIZE")
    parser.add_argument("--whole", type=int, metavar="SIZE")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        run_one(given.way, given.directory, given.size)
        return
    with tempfile.TemporaryDirectory() as name:
        if given.whole:
            whole(given.whole, Path(name))
            return
        tables = [speed(given.stock, Path(name)), sizes()]
    for table in tables:
        print("\n".join(f"| {' | '.join(row)} |" for row in table), end="\n\n")


if __name__ == "__main__":
    main()
