"""How good and how fast the `math` grader is.

    python benchmarks/grading.py [--math500 FILE]

First table: pairs of reference and response from math-verify's and hendrycks/math's own tests (tests/grading/data), with and
without the extra `math`. Second: seconds for 10,000 rows of 5 short answers each. With ``--math500`` (a JSON Lines file with
a column ``answer``, such as the MATH-500 test set): each reference against itself and against its neighbour.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading.math import Math

PAIRS = Path(__file__).parents[1] / "tests" / "grading" / "data" / "published_pairs.jsonl"
ROWS, ANSWERS = 10_000, 5


def accepted(grader: Math, reference: str, response: str) -> bool:
    """A reference that cannot be used accepts nothing."""
    try:
        return grader.grade([response], {"answer": reference}).metrics["success_vote"] == 1
    except SuiteError:
        return False


def published() -> None:
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    print("| pairs from | grader | equal accepted | wrong accepted |\n|---|---|---|---|")
    for source in ("math-verify", "hendrycks/math"):
        for symbolic in (False, True):
            grader = Math(symbolic=symbolic)
            found = {True: [], False: []}
            for pair in pairs:
                if pair["source"].startswith(source):
                    found[pair["equal"]].append(accepted(grader, pair["reference"], pair["response"]))
            counts = [f"{sum(found[kind])} of {len(found[kind])}" for kind in (True, False)]
            print(f"| {source} | {'with' if symbolic else 'without'} the extra `math` | {counts[0]} | {counts[1]} |")


def speed() -> None:
    print("\n| grader | seconds of wall time | seconds of CPU |\n|---|---|---|")
    for symbolic in (False, True):
        grader, rows = Math(symbolic=symbolic), short_answers(seed=symbolic)  # no answer was read before
        begun, cpu = time.perf_counter(), time.process_time()
        for right, texts in rows:
            grader.grade(texts, {"answer": right})
        wall = time.perf_counter() - begun
        name = "with" if symbolic else "without"
        print(f"| {name} the extra `math` | {wall:.1f} | {time.process_time() - cpu:.1f} |")


def short_answers(seed: int) -> list[tuple[str, list[str]]]:
    """Integers, decimals, fractions, and roots; two thirds of the answers are right, some spelled otherwise."""
    draw = random.Random(seed)
    rows = []
    for _ in range(ROWS):
        value = draw.randrange(2, 10_000_000)
        kind = draw.randrange(4)
        right = [str(value), f"{value / 4}", rf"\frac{{{value}}}{{7}}", rf"{value}\sqrt{{3}}"][kind]
        other = [f"{value:,}", rf"\frac{{{value}}}{{4}}", f"{value}/7", rf"{value} \sqrt 3"][kind]
        texts = [rf"So it is $\boxed{{{draw.choice((right, other, str(value + 1)))}}}$." for _ in range(ANSWERS)]
        rows.append((right, texts))
    return rows


def neighbours(path: Path) -> None:
    references = [str(json.loads(line)["answer"]) for line in path.read_text(encoding="utf-8").splitlines()]
    grader = Math()
    boxed = [rf"\boxed{{{text}}}" for text in references]
    unequal = [text for text, box in zip(references, boxed, strict=True) if not accepted(grader, text, box)]
    pairs = zip(references, references[1:], boxed[1:], strict=False)
    equal = [(one, other) for one, other, box in pairs if accepted(grader, one, box)]
    print(f"\n{path.name}: {len(references)} references, {len(unequal)} not equal to themselves: {unequal}")
    print(f"neighbours that are accepted: {equal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--math500", type=Path)
    options = parser.parse_args()
    published()
    speed()
    if options.math500 and not options.math500.is_file():
        sys.exit(f"skipped: no file {options.math500}")
    if options.math500:
        neighbours(options.math500)


if __name__ == "__main__":
    main()
