"""Faults injected and survived: every kind of fault, many times, by a real server on loopback.

    python benchmarks/reliability.py [--requests 300] [--rate 0.3]

Each line: so many different requests with n=2, of which each is met by the fault with that probability, again when it is
tried again. *Lost* are requests without an answer in the end, or with a wrong one; *doubled* those that were answered twice.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.live import Live, request
from support.llm_server import Fault, LLMServer

FAULTS = {
    "429 with Retry-After": Fault.busy(retry_after_ms="20"),
    "429 without": Fault.busy(),
    "408": Fault.http(408),
    "409": Fault.http(409),
    "500": Fault.http(500),
    "502": Fault.http(502),
    "503": Fault.http(503),
    "connection reset": Fault("reset"),
    "reset in mid-body": Fault("reset_mid_body"),
    "truncated JSON": Fault("truncated"),
    "no JSON": Fault("not_json"),
    "empty choices": Fault("empty_choices"),
    "no answer (read timeout)": Fault("stall", seconds=2.0),
    "missing usage": Fault("no_usage"),
}


def run(fault: Fault, number: int, rate: float) -> tuple[int, int, int, int]:
    """Injected, survived, lost, doubled."""
    chance, injected = random.Random(1), [0]

    def maybe(_: dict) -> Fault | None:
        if chance.random() >= rate:
            return None
        injected[0] += 1
        return fault

    with (
        tempfile.TemporaryDirectory() as name,
        LLMServer(lambda body: body["messages"][0]["content"], fault=maybe) as server,
    ):
        live = Live(Path(name))
        source = live.source(server, concurrency=32, timeout=1.0, attempts=20)
        found = live.results(source, *(request(f"question {place}", 2) for place in range(number)))
        live.close()
        texts = [None if isinstance(done, Exception) else [choice.text for choice in done.choices] for done in found]
        lost = sum(text != [f"question {place}"] * 2 for place, text in enumerate(texts))
        answered = Counter(body["messages"][0]["content"] for body in server.answered)
    return injected[0], injected[0] if not lost else 0, lost, sum(count > 1 for count in answered.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.3)
    options = parser.parse_args()
    print("| fault | injected | survived | requests lost | requests doubled |\n|---|---|---|---|---|")
    for name, fault in FAULTS.items():
        injected, survived, lost, doubled = run(fault, options.requests, options.rate)
        print(f"| {name} | {injected} | {survived} | {lost} | {doubled} |", flush=True)


if __name__ == "__main__":
    main()
