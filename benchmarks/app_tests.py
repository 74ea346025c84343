"""What replaying costs in an app's own tests, beside the same tests over a mock and beside other recorders.

    python benchmarks/app_tests.py [--calls 50,200,800] [--tests 200] [--files 2000] [--cold] [--instructions]

Every figure is CPU seconds (user and system) of a whole pytest process, the least of several, taken by turns so that other
work on the machine falls on all of them. ``mock`` are the same tests over the client's ``MockTransport``; ``import`` is a
test that imports and makes the client, and calls nothing. pytest-recording and cassetter are measured where they are installed; each runs alone,
with the other plugins switched off.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from pathlib import Path

ANSWER = (
    b'{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"42"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,'
    b'"completion_tokens":2,"total_tokens":12}}'
)

COMMON = """
import openai, pytest

def ask(client, question):
    messages = [{"role": "user", "content": question}]
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert reply.choices[0].message.content == "42"
"""
CLIENT = {
    "import": """
MARK = pytest.mark.usefixtures()
def ask(client, question):
    pass
""",
    "mock": """
import httpx2 as httpx
transport = httpx.MockTransport(lambda request: httpx.Response(200, content=ANSWER, headers={"content-type": "application/json"}))
http = httpx.Client(transport=transport)
def client():
    return openai.OpenAI(base_url="URL", api_key="sk-any", http_client=http)
MARK = pytest.mark.usefixtures()
""",
    "llmtune": "MARK = pytest.mark.llm_replay\n",
    "recording": 'MARK = pytest.mark.vcr(match_on=["method", "path", "body"])\n',
    "cassetter": "MARK = pytest.mark.vcr\n",
}
OWN = """
shared = openai.OpenAI(base_url="URL", api_key="sk-any")
def client():
    return shared
"""
PLUGIN = {
    "import": (),
    "mock": (),
    "llmtune": ("-p", "pytest_llmtune.plugin"),
    "recording": ("-p", "pytest_recording.plugin"),
    "cassetter": ("-p", "cassetter.pytest_plugin"),
}
RECORD = {
    "import": (),
    "mock": (),
    "llmtune": ("--llm-record=all",),
    "recording": ("--record-mode=rewrite",),
    "cassetter": ("--record-mode=rewrite",),
}
SQUARE = 200  # calls in one test, past which stock vcrpy, whose time grows with their square, takes minutes
QUIET = ("-q", "-p", "no:cacheprovider", "--no-header")


class Handler(BaseHTTPRequestHandler):
    """A provider on loopback."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


def cost(directory: Path, *options: str, cold: bool, counted: bool = False) -> float:
    """CPU seconds of one run of pytest; ``counted``: thousands of millions of instructions, which no other work changes."""
    environment = dict(os.environ, OPENAI_API_KEY="sk-any-000000000000", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    if cold:
        environment |= {"PYTHONPYCACHEPREFIX": tempfile.mkdtemp(), "PYTHONDONTWRITEBYTECODE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(
        [*(VALGRIND if counted else ()), sys.executable, "-m", "pytest", *QUIET, *options],
        cwd=directory,
        env=environment,
        capture_output=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if found.returncode:
        raise SystemExit(found.stdout.decode()[-3000:] + found.stderr.decode()[-2000:])
    if counted:
        (number,) = re.findall(rb"I\s+refs:\s+([\d,]+)", found.stderr)
        return int(number.replace(b",", b"")) / 1e9
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def project(directory: Path, who: str, url: str, tests: int, calls: int) -> None:
    """Tests that each make some calls."""
    source = COMMON + CLIENT[who].replace("ANSWER", repr(ANSWER)).replace("URL", url)
    source += "" if who == "mock" else OWN.replace("URL", url)
    for number in range(tests):
        source += f"\n@MARK\ndef test_{number}():\n    for call in range({calls}):\n        ask(client(), f'{number} {{call}}')\n"
    (directory / "test_app.py").write_text(source, encoding="utf-8")
    (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")


def measure(
    everyone: list[str], url: str, tests: int, calls: int, *, files: int, cold: bool, times: int, counted: bool
) -> dict[str, float]:
    """What the replay costs, the least of so many times."""
    with tempfile.TemporaryDirectory() as name:
        taken: dict[str, list[float]] = {who: [] for who in everyone}
        for who in everyone:
            directory = Path(name) / who
            directory.mkdir()
            project(directory, who, url, tests, calls)
            cost(directory, *PLUGIN[who], *RECORD[who], cold=False)
            folder = directory / "llmtune"
            folder.mkdir(exist_ok=True)
            for number in range(files):
                empty = '{"version": 1, "interactions": [\n]}\n'
                (folder / f"other_{number}.cassette.json").write_text(empty, encoding="utf-8")
        for _ in range(times):
            for who, seconds in taken.items():
                seconds.append(cost(Path(name) / who, *PLUGIN[who], cold=cold, counted=counted))
    return {who: min(seconds) for who, seconds in taken.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", default="1,50,200,800")
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--times", type=int, default=3, help="how often each is run")
    parser.add_argument("--cold", action="store_true", help="without cached bytecode")
    parser.add_argument(
        "--instructions", action="store_true", help="count instructions with valgrind, in thousand millions"
    )
    arguments = parser.parse_args()
    there = {entry.name for entry in entry_points(group="pytest11")}
    everyone = [who for who in CLIENT if who in ("import", "mock") or who in there]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    print("| tests x calls | " + " | ".join(everyone) + " |\n|---|" + "---|" * len(everyone))
    shapes = [(1, int(calls), 0) for calls in arguments.calls.split(",") if calls]
    if arguments.tests:
        shapes += [(arguments.tests, 2, 0), (arguments.tests, 2, arguments.files)]
    for tests, calls, files in shapes:
        chosen = [who for who in everyone if who != "recording" or calls <= SQUARE]
        row = measure(
            chosen,
            url,
            tests,
            calls,
            files=files,
            cold=arguments.cold,
            times=arguments.times,
            counted=arguments.instructions,
        )
        beside = f", beside {files} files" if files else ""
        print(
            f"| {tests} x {calls}{beside} | "
            + " | ".join(f"{row[who]:.2f}" if who in row else "-" for who in everyone)
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
