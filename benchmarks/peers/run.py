"""One common job in pytest-llmtune and in other tools: 200 rows, one model, at least 80 % right.

    python benchmarks/peers/run.py ENVIRONMENTS [--only NAME ...]

ENVIRONMENTS is a directory with a virtual environment `v-NAME` for each tool (`python -m venv v-inspect-ai`, then `pip install
inspect-ai pytest openai`; `langsmith[vcr]` and `evaltrack[pydantic-evals]` for these two), and `promptfoo/` with `npm install
promptfoo`. A tool that is not there is left out. LangSmith, Phoenix and Braintrust run without their services. The model is a loopback
server that is right in nine rows of ten. Each job runs once with the server, and once more without it:

* lines: of test and configuration, blank lines and comments left out;
* committed: bytes that the first run left and the second one needs;
* offline: whether the second run sends no request, or passes without the server;
* CPU: seconds of the second run, children included (with the server where it cannot do without).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
from support.llm_server import LLMServer  # noqa: E402

ROWS = [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in range(10, 21) for b in range(20)]
PYTEST = ["{python}", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
JOBS = {
    "pytest-llmtune": ([[*PYTEST, "--llm-tune"]], [PYTEST], "yes: per row, and any rise"),
    "pytest-recording": ([[*PYTEST, "--record-mode=once"]], [[*PYTEST, "--record-mode=none"]], "no"),
    "cassetter": ([[*PYTEST, "--record-mode=once"]], [[*PYTEST, "--record-mode=none"]], "no"),
    "inspect-ai": ([PYTEST], [PYTEST], "limits of a sample while it runs"),
    "promptfoo": ([["{promptfoo}", "eval", "--no-progress-bar", "--no-table"]],) * 2 + ("yes: per row",),
    "deepeval": ([PYTEST], [PYTEST], "no"),
    "pydantic-evals": ([PYTEST], [PYTEST], "no"),
    "evaltrack": ([PYTEST], [PYTEST], "no"),
    "langsmith": ([PYTEST], [PYTEST], "no"),
    "arize-phoenix-client": ([PYTEST], [PYTEST], "no"),
    "braintrust": ([PYTEST], [PYTEST], "no"),
    "pytest-evals": ([[*PYTEST, "--run-eval"], [*PYTEST, "--run-eval-analysis"]],) * 2 + ("no",),
}
OUTPUT = {
    "__pycache__",
    ".llmtune",
    ".deepeval",
    "logs",
    "test-out",
    ".pytest_cache",
    ".promptfoo",
    ".telemetry-opt-out",
    ".evaltrack",
}


def answer(body: dict[str, object]) -> str:
    question = str(body["messages"][-1]["content"])  # type: ignore[index]
    a, b = (int(word.strip("?")) for word in question.split() if word.strip("?").isdigit())
    return str(a + b if (a * 31 + b * 7) % 10 else a + b + 1)


def lines(directory: Path) -> int:
    texts = [path.read_text(encoding="utf-8") for path in directory.iterdir() if path.is_file()]
    every = [line.strip() for text in texts for line in text.splitlines()]
    return sum(bool(line) and not line.startswith("#") for line in every)


def committed(work: Path, given: set[str]) -> int:
    files = [path for path in work.rglob("*") if path.is_file() and not OUTPUT & set(path.relative_to(work).parts)]
    return sum(path.stat().st_size for path in files if path.relative_to(work).as_posix() not in given)


def commands(
    all_: list[list[str]], work: Path, environ: dict[str, str], tools: dict[str, str]
) -> tuple[bool, float, str]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said, passed = "", True
    for command in all_:
        done = subprocess.run(
            [part.format(**tools) for part in command],
            cwd=work,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        said, passed = said + done.stdout + done.stderr, passed and done.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, said


def measure(name: str, environments: Path) -> str:
    first, again, cost = JOBS[name]
    own = name == "pytest-llmtune"
    python = Path(sys.executable) if own else environments / f"v-{name}" / "bin" / "python"
    promptfoo = environments / "promptfoo" / "node_modules" / ".bin" / "promptfoo"
    if not (promptfoo if name == "promptfoo" else python).exists():
        return f"| {name} | not installed |"
    tools = {"python": str(python), "promptfoo": str(promptfoo)}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        shutil.copytree(HERE / name, work, dirs_exist_ok=True)
        (work / "data.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
        with (work / "data.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"])
            writer.writeheader()
            writer.writerows(ROWS[:200])
        given = {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()}
        with LLMServer(answer) as server:
            environ = {key: value for key, value in os.environ.items() if not key.startswith(("LLMTUNE_", "OPENAI_"))}
            environ |= {
                "OPENAI_BASE_URL": server.base_url,
                "OPENAI_API_KEY": "sk-test",
                "PYTHONDONTWRITEBYTECODE": "",
                "INSPECT_CACHE_DIR": str(work / "cache"),
                "DEEPEVAL_TELEMETRY_OPT_OUT": "YES",
                "LANGSMITH_TEST_TRACKING": "false",
                "PHOENIX_TEST_TRACKING": "false",
                "PROMPTFOO_DISABLE_TELEMETRY": "1",
                "PROMPTFOO_DISABLE_UPDATE": "1",
                "PROMPTFOO_CACHE_PATH": str(work / "cache"),
                "PROMPTFOO_CONFIG_DIR": str(work / ".promptfoo"),
                "PROMPTFOO_PASS_RATE_THRESHOLD": "80",
            }
            passed, _, said = commands(first, work, environ, tools)
            if not passed:
                return f"| {name} | the first run failed: {said[-600:]} |"
            asked = server.count
            size = committed(work, given)
            online, seconds, said = commands(again, work, environ, tools)
            again_asked = server.count - asked
        offline, without, said = commands(again, work, environ, tools)
        offline = offline or (online and not again_asked)  # a tool may fail at something else
        used = without if offline else seconds
        state = "yes" if offline else f"no: {again_asked} requests in every run" if online else f"fails: {said[-300:]}"
        return f"| {name} | {lines(HERE / name)} | {used:.1f} s | {size / 1000:,.0f} kB | {state} | {cost} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", type=Path)
    parser.add_argument("--only", nargs="*", default=list(JOBS))
    given = parser.parse_args()
    print("| tool | lines | CPU of a re-run | committed | offline | cost gate |\n|---|---|---|---|---|---|")
    for name in given.only:
        print(measure(name, given.environments.absolute()), flush=True)


if __name__ == "__main__":
    main()
