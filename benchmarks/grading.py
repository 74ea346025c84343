r"""How well and how fast the graders judge.

    python benchmarks/grading.py [--gsm8k FILE] [--math FILE ...] [--sst2 FILE] [--against CHECKOUT]

Published pairs: reference and response from math-verify's, hendrycks/math's and OlympiadBench's own tests, and samples of
references of college_math, OlympiadBench and Minerva (tests/grading/data).
``--gsm8k``, ``--sst2``: the public test sets; each answer is put into the shapes that today's models answer in, and graded
against its own reference (to be accepted) and its neighbour's (to be refused, where it is another one).
``--math``: JSON Lines with ``answer`` (and ``solution``), such as MATH-500, college_math, OlympiadBench, Minerva: references
against themselves and their neighbours, in both tiers.
Speed: 10,000 rows of 5 answers for each grader; ``--against`` runs the same in another checkout and gives the ratio.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from pytest_llmtune.grading.registry import resolve
except ImportError:  # a checkout from before the rooms
    from pytest_llmtune.grading.resolve import resolve  # type: ignore[import-not-found,no-redef]
import itertools

from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PAIRS = Path(__file__).parents[1] / "tests" / "grading" / "data" / "published_pairs.jsonl"
ROWS, ANSWERS = 10_000, 5
SHAPES = {
    "the answer alone": "{answer}",
    "a sentence": "{work}\n\nThe answer is {answer}.",
    "reasoning in tags": "<think>\nMaybe the answer is {other}. Hmm, no.\n</think>\n\n**Final answer:** {answer}",
    "`</think>` alone": "So the answer is {other}? Wait.\n</think>\n\nThe answer is {answer}.",
    "headings of level 4": "#### Step 1: read the question\n{work}\n#### Step 2\nThe answer is {answer}.",
    "a reason and a remark": "The answer is {answer}, because {other} cannot be. I hope this helps!",
    "a box": "{work}\nSo it is $\\boxed{{{answer}}}$.",
    "harmony channels": "<|channel|>analysis<|message|>{other}?<|end|><|start|>assistant<|channel|>final<|message|>The answer is {answer}.",
    "German": "Die richtige Antwort ist {answer}.",
    "Chinese": "因此，答案是{answer}。",
    "Korean": "따라서 정답은 {answer}입니다.",
}


def accepted(grader: Any, reference: str, response: str) -> bool:
    """A reference that cannot be used accepts nothing."""
    try:
        return bool(grader.grade([response], {"answer": reference}).metrics["success_vote"] == 1)
    except SuiteError:
        return False


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def table(title: str, counts: Iterable[tuple[str, int, int, int, int]]) -> None:
    print(f"\n| {title} | right accepted | wrong accepted |\n|---|---|---|")
    for name, right, of_right, wrong, of_wrong in counts:
        print(f"| {name} | {right:,} of {of_right:,} | {wrong} of {of_wrong:,} |")


def published() -> None:
    counts = []
    for source in ("math-verify", "hendrycks/math", "OlympiadBench"):
        pairs = [pair for pair in rows_of(PAIRS) if pair["source"].startswith(source)]
        for symbolic in (False, True):
            grader = resolve({"math": {"symbolic": symbolic}})
            found: dict[bool, list[bool]] = {True: [], False: []}
            for pair in pairs:
                found[pair["equal"]].append(accepted(grader, pair["reference"], pair["response"]))
            name = f"{source}, {'with' if symbolic else 'without'} the extra `math`"
            counts.append((name, sum(found[True]), len(found[True]), sum(found[False]), len(found[False])))
    table("published pairs", counts)


def in_shapes(
    title: str, grader: Any, answers: Sequence[str], works: Sequence[str], shown: Callable[[str], str]
) -> None:
    """Each answer in each shape, against its own reference and its neighbour's."""
    counts = []
    for name, shape in SHAPES.items():
        right = wrong = of_wrong = 0
        for place, answer in enumerate(answers):
            other = next(item for item in (*answers[place + 1 :], *answers[:place]) if item != answer)
            response = shape.format(answer=shown(answer), other=shown(other), work=works[place])
            right += accepted(grader, answer, response)
            of_wrong += 1
            wrong += accepted(grader, other, response)
        counts.append((name, right, len(answers), wrong, of_wrong))
    table(title, counts)


def gsm8k(path: Path) -> None:
    rows = rows_of(path)
    answers = [row["answer"].rsplit("####", 1)[1].strip().replace(",", "") for row in rows]
    works = [row["answer"].rsplit("####", 1)[0].strip() for row in rows]
    grader = resolve("numeric")
    alone = [(answer, row["answer"]) for answer, row in zip(answers, rows, strict=True)]
    right = sum(accepted(grader, answer, text) for answer, text in alone)
    pairs = [(one[0], other[1]) for one, other in itertools.pairwise(alone) if one[0] != other[0]]
    wrong = sum(accepted(grader, *pair) for pair in pairs)
    table("GSM8K test, `numeric`", [("the published solutions", right, len(alone), wrong, len(pairs))])
    in_shapes("GSM8K test, `numeric`", grader, answers, works, str)
    in_shapes("GSM8K test, `math`", resolve({"math": {"symbolic": False}}), answers, works, str)


def sst2(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        cells = [
            row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row and row[-1] in ("0", "1")
        ]
    names = {"0": "negative", "1": "positive"}
    answers = [names[row[-1]] for row in cells]
    grader = resolve({"choice": {"labels": ["positive", "negative", "neutral"]}})
    in_shapes("SST-2 dev, `choice` with words", grader, answers, ["" for _ in cells], str)
    letters = ["ABCD"[(place * 7 + len(row[0])) % 4] for place, row in enumerate(cells)]
    in_shapes(
        "letters, `choice`", resolve({"choice": {"labels": list("ABCD")}}), letters, ["Let us see." for _ in cells], str
    )


def references(title: str, rows: Sequence[dict[str, Any]]) -> None:
    answers = [str(row.get("answer", row.get("gt"))) for row in rows]
    counts = []
    for symbolic in (False, True):
        grader = resolve({"math": {"symbolic": symbolic}})
        tier = f"{'with' if symbolic else 'without'} the extra `math`"
        boxed = [f"So it is $\\boxed{{{answer.strip('$')}}}$." for answer in answers]
        pairs = [(one, box) for one, other, box in zip(answers, answers[1:], boxed[1:], strict=False) if one != other]
        right = sum(map(accepted, [grader] * len(answers), answers, boxed))
        wrong = [pair for pair in pairs if accepted(grader, *pair)]
        counts.append((f"references, {tier}", right, len(answers), len(wrong), len(pairs)))
        solved = [(answer, row["solution"]) for answer, row in zip(answers, rows, strict=True) if row.get("solution")]
        if solved:
            pairs = [(one[0], other[1]) for one, other in itertools.pairwise(solved) if one[0] != other[0]]
            right = sum(accepted(grader, *pair) for pair in solved)
            false = [pair for pair in pairs if accepted(grader, *pair)]
            counts.append((f"published solutions, {tier}", right, len(solved), len(false), len(pairs)))
        for reference, response in wrong:
            print(f"accepted beside its neighbour: {reference} | {response}", file=sys.stderr)
    table(f"{title}, `math`", counts)


def workloads(seed: int) -> dict[str, tuple[Any, list[tuple[str, list[str]]]]]:
    """Answers that no grader has read before; two thirds of them are right, some spelled otherwise."""
    draw = random.Random(seed)
    boxed = []
    for _ in range(ROWS):
        value = draw.randrange(2, 10_000_000)
        kind = draw.randrange(4)
        right = [str(value), f"{value / 4}", rf"\frac{{{value}}}{{7}}", rf"{value}\sqrt{{3}}"][kind]
        other = [f"{value:,}", rf"\frac{{{value}}}{{4}}", f"{value}/7", rf"{value} \sqrt 3"][kind]
        texts = [rf"So it is $\boxed{{{draw.choice((right, other, str(value + 1)))}}}$." for _ in range(ANSWERS)]
        boxed.append((right, texts))
    sums = [
        (
            str(value),
            [
                f"He has {draw.randrange(99)} and buys more. The answer is {value + draw.randrange(2)}."
                for _ in range(ANSWERS)
            ],
        )
        for value in (draw.randrange(10**6) for _ in range(ROWS))
    ]
    letters = [
        (
            "A",
            [
                f"Option {draw.choice('ABCD')} has {draw.randrange(10**6)}. The answer is {draw.choice('ABCD')}."
                for _ in range(ANSWERS)
            ],
        )
        for _ in range(ROWS)
    ]
    objects = [
        ('{"a": 1}', [f'Here it is: {{"a": {draw.randrange(10**6)}}}' for _ in range(ANSWERS)]) for _ in range(ROWS)
    ]
    names = [
        (
            f"Guest {value}",
            [f"Guest {value}" if draw.random() < 2 / 3 else f"It is guest {value + 1}." for _ in range(ANSWERS)],
        )
        for value in (draw.randrange(10**6) for _ in range(ROWS))
    ]
    return {
        "math": ({"math": {"symbolic": False}}, boxed),
        "numeric": ("numeric", sums),
        "choice": ({"choice": {"labels": list("ABCD")}}, letters),
        "json": ("json", objects),
        "exact": ("exact", names),
        "contains": ("contains", names),
        "regex": ({"regex": {"pattern": r"Guest \d+"}}, names),
    }


def seconds(seed: int) -> dict[str, float]:
    """CPU seconds of this process for each grader."""
    took = {}
    for name, (spec, rows) in workloads(seed).items():
        grader = resolve(spec)
        begun = time.process_time()
        for right, texts in rows:
            grader.grade(texts, {"answer": right})
        took[name] = time.process_time() - begun
    return took


def speed(against: Path | None) -> None:
    """In turns, each in a process of its own, so that a busy machine slows both."""
    here: dict[str, list[float]] = {}
    there: dict[str, list[float]] = {}
    for seed in range(3 if against else 1):
        for root, found in ((Path(__file__).parents[1], here), (against, there)):
            if root is not None:
                command = [sys.executable, __file__, "--seconds", str(seed)]
                environment = os.environ | {"PYTHONPATH": str(root)}
                said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                for name, took in json.loads(said).items():
                    found.setdefault(name, []).append(took)
    print(
        f"\n| {ROWS:,} rows of {ANSWERS} answers | seconds of CPU |{' ratio to the other checkout |' if there else ''}"
    )
    print("|---|---|" + ("---|" if there else ""))
    for name, took in here.items():
        ratio = f" {sum(took) / sum(there[name]):.2f} |" if there else ""
        print(f"| `{name}` | {min(took):.1f} |{ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--math", type=Path, nargs="+", default=[])
    parser.add_argument("--sst2", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seconds is not None:
        print(json.dumps(seconds(options.seconds)))
        return
    for path in (options.gsm8k, *options.math, options.sst2):
        if path is not None and not path.is_file():
            sys.exit(f"no file {path}")
    published()
    sampled = rows_of(PAIRS.with_name("references.jsonl"))
    for name in dict.fromkeys(row["set"] for row in sampled):
        references(f"{name}, a sample", [row for row in sampled if row["set"] == name])
    if options.gsm8k:
        gsm8k(options.gsm8k)
    for path in options.math:
        references(path.stem, rows_of(path))
    if options.sst2:
        sst2(options.sst2)
    speed(options.against)


if __name__ == "__main__":
    main()
