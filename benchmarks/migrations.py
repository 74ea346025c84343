"""How often the verdict of ``--llm-migrate`` is wrong: simulated migrations, judged as the plugin judges them.

    python benchmarks/migrations.py [--runs=200]

Each migration is a table of outcomes: the old model is right on a row with probability 0.85; the new one loses a right row
and gains a wrong one at rates that make its true drop what the table says. ``max_drop`` is 0.05.
"""

from __future__ import annotations

import argparse
import random

from pytest_llmtune._util.stats import drop_bounds

MARGIN, RIGHT = 0.05, 0.85
KINDS = {
    "better by 0.05": (-0.05, 0.03),
    "equal, no flips": (0.0, 0.0),
    "equal, 6 % flips": (0.0, 0.03),
    "worse by 0.05, the margin": (0.05, 0.03),
    "worse by 0.10": (0.10, 0.03),
    "worse by 0.20": (0.20, 0.03),
}
"""True drop, and the rate of the rarer kind of flips."""


def verdict(drop: float, rare: float, rows: int, rng: random.Random) -> str:
    lost, gained = (rare + drop, rare) if drop >= 0 else (rare, rare - drop)
    before, now = [], []
    for _ in range(rows):
        draw = rng.random()
        old, new = (
            (1.0, 0.0) if draw < lost else (0.0, 1.0) if draw < lost + gained else (float(rng.random() < RIGHT),) * 2
        )
        before.append(old)
        now.append(new)
    bounds = drop_bounds(before, now)
    return "keeps quality" if bounds.high <= MARGIN else "worse" if bounds.low > MARGIN else "inconclusive"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    rng = random.Random(0)
    for kind, (drop, rare) in KINDS.items():
        for rows in (50, 200, 800):
            found = [verdict(drop, rare, rows, rng) for _ in range(runs)]
            shares = [f"{100 * found.count(word) / runs:.1f} %" for word in ("keeps quality", "worse", "inconclusive")]
            print(f"| {kind} | {rows} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
