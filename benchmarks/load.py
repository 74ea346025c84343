"""Under load: rows x n=5 against a loopback server with latency, many requests in flight; memory, losses, and Ctrl-C.

    python benchmarks/load.py [--rows 20000] [--latency-ms 50] [--concurrency 256]

A real ``pytest --llm-tune`` of a suite with one configuration, in a process of its own: it asks for every row, keeps every answer
in the cache, and writes the recording. The server, in another process, counts requests. Then the same again, with SIGINT in the middle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

SUITE = """
import pytest

@pytest.mark.llmtune(
    dataset="rows.jsonl", prompt="{q}", model="m", temperature=1.0, n=5, max_tokens=16, grader="numeric", tune_size=20,
    prices={"m": {"input": 1, "output": 1}}, optimization_budget=10, inference_budget=0.01,
)
def test_load(llmtune):
    llmtune.check()
"""


async def serve(port: int, latency: float) -> None:
    """The least of an HTTP/1.1 server that can answer thousands of requests a second."""
    asked: Counter[bytes] = Counter()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                body = await reader.readexactly(length)
                if head.startswith(b"GET /stats"):
                    reply = json.dumps([asked.total(), len(asked), max(asked.values(), default=0)]).encode()
                else:
                    asked[body] += 1
                    await asyncio.sleep(latency)
                    reply = completion(json.loads(body))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(reply)
                    + reply
                )
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


def completion(body: dict) -> bytes:
    number = body["messages"][-1]["content"].split()[-1]
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": f"It is {number}."}}
        for i in range(body.get("n", 1))
    ]
    usage = {"prompt_tokens": 8, "completion_tokens": 5 * len(choices), "total_tokens": 8 + 5 * len(choices)}
    whole = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}
    return json.dumps(whole).encode()


def run_server(port: int, latency: float) -> None:
    asyncio.run(serve(port, latency))


def resident(pid: int) -> float:
    """MiB; 0 where the process has ended."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def stats(port: int) -> list[int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as reply:
        return list(json.load(reply))


def start(root: Path, options: argparse.Namespace, port: int) -> subprocess.Popen[bytes]:
    rows = (json.dumps({"q": f"Say {i}", "answer": str(i)}) for i in range(options.rows + 20))
    (root / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (root / "test_load.py").write_text(SUITE, encoding="utf-8")
    environment = {**os.environ, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "pytest", "-q", "--llm-tune", f"--llm-concurrency={options.concurrency}"]
    command += ["-p", "no:hypothesispytest"]  # of our tests' environment: it imports itself at the end of every run
    log = (root / "out.txt").open("wb")
    return subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)


def whole(options: argparse.Namespace, port: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, begun, curve = Path(name), time.monotonic(), []
        process = start(root, options, port)
        while process.poll() is None:
            time.sleep(0.25)
            curve.append((stats(port)[0], resident(process.pid)))
        wall = time.monotonic() - begun
        asked, different, most = stats(port)
        recording = root.glob("llmtune/load*.cassette.json")
        kept = sum(path.read_text(encoding="utf-8").count('"request"') for path in recording)
        print((root / "out.txt").read_text(encoding="utf-8")[-600:])
        print(
            f"{options.rows} rows x 5: {wall:.0f} s, {asked / wall:.0f} requests a second, exit code {process.returncode}"
        )
        print(f"requests {asked}, different {different}, the most for one {most}, in the recording {kept}")
        for share in (0.1, 0.25, 0.5, 0.75, 1.0):
            seen = [size for count, size in curve if 0 < count <= share * asked and size]
            print(f"memory when {share:4.0%} was answered: {seen[-1] if seen else 0:.0f} MiB")
        print(f"memory at most: {max(size for _, size in curve):.0f} MiB")


def interrupted(options: argparse.Namespace, port: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, before = Path(name), stats(port)[0]
        process = start(root, options, port)
        while stats(port)[0] < before + options.rows / 4:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        process.wait(timeout=60)
        print(
            f"Ctrl-C after {stats(port)[0] - before} requests: gone after {time.monotonic() - begun:.2f} s, exit code {process.returncode}"
        )
        print((root / "out.txt").read_text(encoding="utf-8")[-300:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--port", type=int, default=8791)
    options = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it, and so their children
    server = multiprocessing.Process(target=run_server, args=(options.port, options.latency_ms / 1000), daemon=True)
    server.start()
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                stats(options.port)
                break
            time.sleep(0.1)
        whole(options, options.port)
        interrupted(options, options.port)
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
