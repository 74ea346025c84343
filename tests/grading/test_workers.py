"""Worker processes: each answer within its limit, the same answers from any number of them."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pytest_llmtune.grading import resolve
from pytest_llmtune.grading.math.equality import Algebra, Finding
from pytest_llmtune.grading.workers import PATIENCE, WorkerPool, workers_each

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORK = """
import os, time

def answer(request):
    what = request["do"]
    if what == "spin":
        while True:
            pass
    if what == "sleep":
        time.sleep(request["seconds"])
    if what == "fill":
        return {"size": len(bytearray(8 * 2**30))}
    if what == "leave":
        os._exit(3)
    if what == "chat":
        print("this is no answer")
    return {"pid": os.getpid(), "key": os.environ.get("OPENAI_API_KEY"), "said": what}
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[WorkerPool]:
    """One worker that does what it is told."""
    script = tmp_path / "work.py"
    script.write_text(WORK, encoding="utf-8")
    made = WorkerPool("answer", size=1, script=script)
    yield made
    made.close()


def test_an_answer_that_hangs_is_stopped_and_the_next_is_served(pool: WorkerPool) -> None:
    """It ends soon after its limit, its process with it, and a new worker answers what comes next."""
    first = pool.call({"do": "greet"}, 5)
    assert first is not None
    start = time.perf_counter()
    assert pool.call({"do": "spin"}, 0.3) is None
    assert time.perf_counter() - start < 0.3 * PATIENCE + 5
    with pytest.raises(ProcessLookupError):
        os.kill(first["pid"], 0)
    again = pool.call({"do": "greet"}, 5)
    assert again is not None
    assert again["pid"] != first["pid"]


def test_the_limit_is_of_cpu_time(pool: WorkerPool) -> None:
    """Waiting for a busy machine is not counted; sleeping has an end all the same."""
    assert pool.call({"do": "sleep", "seconds": 0.5}, 0.25) is not None
    assert pool.call({"do": "sleep", "seconds": 60}, 0.25) is None


@pytest.mark.parametrize("what", ["fill", "leave"])
def test_a_worker_that_dies_answers_nothing_and_is_replaced(pool: WorkerPool, what: str) -> None:
    """An answer that takes all memory, or ends the process, is no answer."""
    assert pool.call({"do": what}, 20) is None
    assert pool.call({"do": "greet"}, 5) is not None


def test_workers_see_no_key_and_nothing_they_print_is_an_answer(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is almost empty, and standard output is the pool's alone."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    answer = pool.call({"do": "chat"}, 5)
    assert answer is not None
    assert (answer["key"], answer["said"]) == (None, "chat")


def test_a_script_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    """The message names the script."""
    script = tmp_path / "broken.py"
    script.write_text("import nothing_of_this_name", encoding="utf-8")
    with pytest.raises(OSError, match=r"broken\.py did not start"):
        WorkerPool("answer", size=1, script=script).call({}, 5)


def test_a_pool_that_is_gone_leaves_no_process(tmp_path: Path) -> None:
    """Nobody needs to close a pool."""
    script = tmp_path / "work.py"
    script.write_text(WORK, encoding="utf-8")
    pool = WorkerPool("answer", size=1, script=script)
    answer = pool.call({"do": "greet"}, 5)
    assert answer is not None
    del pool
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(answer["pid"], 0)


def test_workers_of_xdist_divide_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers with a pool each do not start more processes than one has alone, and each has at least one."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "1")
    alone = workers_each(64)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    assert workers_each(64) == max(1, alone // 2)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "1000")
    assert workers_each(64) == 1


PAIRS = [
    (reference, answer)
    for reference in (r"x^2+2x+1", r"\frac{\sqrt{3}}{2}", r"2\cos(x)\sin(x)")
    for answer in (r"(x+1)^2", r"x^2+1", r"\sin(60^\circ)", r"\sin(2x)", r"\sqrt{\frac{3}{4}}", r"1+x(x+2)")
]
ENDLESS = ("x", "9^{9^{9^{9}}}")


def findings(workers: int, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Finding]:
    """What so many workers say of the pairs, asked from four threads at once."""
    algebra = Algebra(1, workers)
    try:
        with ThreadPoolExecutor(4) as threads:
            return dict(zip(pairs, threads.map(lambda pair: algebra.compare(*pair), pairs), strict=True))
    finally:
        algebra.close()


def test_two_workers_find_what_one_finds() -> None:
    """The findings of an algebra system do not depend on who is asked, nor in which order."""
    pytest.importorskip("math_verify")
    pairs = [*PAIRS[:4], ENDLESS, *PAIRS[4:]]
    one, two = findings(1, pairs), findings(2, pairs[::-1])
    assert one == two
    equal = {pair for pair, finding in one.items() if finding.equal}
    assert {PAIRS[0], PAIRS[5]} <= equal
    assert ENDLESS not in equal


def test_code_that_spins_is_stopped_while_others_are_graded() -> None:
    """The `python` grader's limit holds for each answer, and leaves the loop to other examples."""
    grader = resolve({"python": {"allow_code_execution": True, "time_limit": 1}})
    row = {"tests": "assert f(2) == 4"}
    texts = ["```python\nwhile True: pass\n```", "```python\ndef f(x): return x + x\n```"]

    async def both() -> list[str]:
        graded = await asyncio.gather(*(grader.agrade([text], row, None) for text in texts))  # type: ignore[attr-defined]
        return [answer.text for grade in graded for answer in grade.answers]

    spun, passed = asyncio.run(both())
    assert passed == "passes"
    assert spun.startswith("stopped")
