"""Inputs that a coverage-guided fuzzer found worth keeping, and small changes of them, through every reader."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz.targets import SEEDS, TARGETS, run

CORPUS = Path(__file__).with_name("corpus")


def test_every_target_has_seeds() -> None:
    """A reader without an input to begin with is hardly fuzzed."""
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """Only our own errors; `.ci/fuzz --keep` adds what it finds."""
    kept = sorted(CORPUS.glob(f"{name}/*"))
    for data in (*SEEDS[name], b"", *(path.read_bytes() for path in kept)):
        run(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_seeds(name: str) -> None:
    """Bytes replaced, doubled, left out: what a minute of fuzzing finds first."""
    pick = random.Random(name)
    pool = [*SEEDS[name], *(path.read_bytes() for path in sorted(CORPUS.glob(f"{name}/*")))]
    for _ in range(6 if name == "parquet" else 60):  # each takes a process of its own
        data = bytearray(pick.choice(pool))
        for _ in range(pick.randint(1, 4)):
            place = pick.randrange(len(data) + 1)
            piece = pick.choice(
                [b"", b"\x00", b"\xff", b"{", b"]", b'"', b"\n", b"9" * 30, b"-", b"e", bytes([pick.randrange(256)])]
            )
            data[place : place + pick.choice([0, 1, 1, 5])] = piece
        run(name, bytes(data))
