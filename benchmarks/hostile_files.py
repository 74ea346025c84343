"""Memory and seconds of whole guards whose files are hostile: a small file that would become gigabytes, in each place.

    python benchmarks/hostile_files.py                 all of them (some five minutes), as docs/security.md has them
    python benchmarks/hostile_files.py rows.jsonl.gz   only these

Each figure is of a `pytest` (or `llmtune`) of its own, from its start to its verdict; no network, no API key. Ends with 1
where one took a gigabyte, crashed, or passed.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["LLMTUNE_BOMBS"] = "1"
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.llm_server import LLMServer  # noqa: E402
from test_bombs import BOMBS, CASSETTES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 1_000_000  # kB of a whole process
SUITE = """
name: sums
dataset: rows.jsonl
prompt: "{q}?"
model: small
temperature: 0
n: 2
max_tokens: 50
grader: numeric
prices: {small: {input: 1, output: 1}}
tune_size: 4
num_samples: 2
"""
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
Change = "Callable[[Path], list[str] | None]"
"""What makes a project hostile; gives the command, if it is not plain pytest."""


def data(name: str) -> Change:
    def change(project: Path) -> None:
        BOMBS[name](project / name)
        suite = project / "sums.llmtune.yaml"
        suite.write_text(suite.read_text().replace("rows.jsonl", name))

    return change


def text(name: str, make: Callable[[], str]) -> Change:
    return lambda project: (project / name).write_text(make()) and None


def cassette(name: str) -> Change:
    return text("llmtune/sums.cassette.json", lambda: CASSETTES[name][0])


def parts(project: Path) -> None:
    """Each within its limit, together more than one."""
    (project / "llmtune/sums.cassette.json").unlink()
    for number in range(1, 9):
        part = project / f"llmtune/sums.{number}-of-8.cassette.json"
        part.write_text('{"version": 1, "interactions": [\n"' + "x" * 60_000_000 + '"\n]}\n')


def packed(project: Path) -> None:
    import zstandard

    (project / "llmtune/sums.cassette.json").unlink()
    body = b'{"version": 1, "interactions": [\n' + b'"' + b" " * 10**9 + b'"\n]}\n'
    (project / "llmtune/sums.1-of-1.cassette.json.zst").write_bytes(zstandard.compress(body))


def zipped(project: Path) -> None:
    """An archive in an archive, and a member that says it is small."""
    with zipfile.ZipFile(project / "rows.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl.gz", gzip.compress(b'{"q": "' + b"x" * 10**9 + b'"}\n', 1))
    suite = project / "sums.llmtune.yaml"
    suite.write_text(suite.read_text().replace("rows.jsonl", "rows.zip"))


def aliases(project: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with (project / "sums.llmtune.yaml").open("a") as file:
        file.write("\n".join(lines) + "\n")


def merged(project: Path) -> list[str]:
    (project / "shards").mkdir()
    head = '{"format": "pytest-llmtune results", "version": 1, "suites": ['
    for number in range(4):
        (project / f"shards/{number}.json").write_text(head + "[]," * 20_000_000 + "[]]}")
    return [*PYTEST, "--llm-merge=shards"]


def committed(project: Path) -> list[str]:
    """A lock file of 100 MB that git has as 100 KB."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@y", *words],  # noqa: S607
            cwd=project,
            check=True,
            capture_output=True,
        )

    lock = project / "llmtune/sums.lock.yaml"
    whole = lock.read_text()
    git("init", "-q")
    for number in range(8):
        (project / f"{number}.lock.yaml").write_text(
            f"version: 1\nsuite: s{number}\nexamples:\n" + "- {}\n" * 20_000_000
        )
    git("add", "-A")
    git("commit", "-qm", "x")
    for number in range(8):
        (project / f"{number}.lock.yaml").unlink()
    lock.write_text(whole)
    return ["-m", "pytest_llmtune.cli", "compare", "HEAD"]


def paying(*words: str) -> list[str]:
    """The address is of nobody: what is read before anything is sent."""
    return [*PYTEST, "--llm-record=missing", *words]


def endpoint_list(project: Path) -> list[str]:
    (project / "e.json").write_text('[{"name": "a", "models": {' + '"x": [],' * 20_000_000 + '"y": []}}]')
    return paying("--llm-endpoints=e.json")


def dotenv(project: Path) -> list[str]:
    (project / ".env").write_text("A=" + "x" * 500_000_000)
    return paying()


def spending(project: Path) -> list[str]:
    (project / ".llmtune/spend").mkdir(parents=True)
    (project / ".llmtune/spend/1-a.log").write_text(" \n" + "1\n" * 100_000_000)
    (project / "llmtune/sums.cassette.json").unlink()
    return paying("--llm-max-spend=0.01")


def lock(examples: Callable[[], str]) -> Change:
    def change(project: Path) -> None:
        path = project / "llmtune/sums.lock.yaml"
        path.write_text(path.read_text().partition("\nexamples:")[0] + "\nexamples:\n" + examples())

    return change


def huge_number(project: Path) -> None:
    path = project / "llmtune/sums.lock.yaml"
    path.write_text(path.read_text().replace("max_tokens: 50", "max_tokens: " + "9" * 4_000_000))


FILES: dict[str, Change] = {
    **{f"data: {name}": data(name) for name in BOMBS if name != "wide.jsonl.gz"},
    "data: one text of 49 MB, made wide by an emoji": data("wide.jsonl.gz"),
    "data: 1 GB in a .gz in a .zip": zipped,
    **{f"recording: {name}": cassette(name) for name in CASSETTES if name not in ("facts", "latency")},
    "recording: 8 parts of 60 MB": parts,
    "recording: 1 GB in .zst": packed,
    "lock file: 600,000 examples": lock(lambda: "- {}\n" * 600_000),
    "lock file: 15 million lists in an example": lock(lambda: '- {"id": ' + "[" + "[]," * 15_000_000 + "[]]}\n"),
    "lock file: a number of 4 million digits": huge_number,
    "suite: aliases of aliases, 3 billion values": aliases,
    "suite: 100 MB": text("more.llmtune.yaml", lambda: "x: [" + "a," * 50_000_000 + "a]"),
    "suite: nested 1 million deep": text("more.llmtune.yaml", lambda: "[" * 1_000_000),
    "results to merge: 80 million lists": merged,
    "git: 8 lock files of 100 MB (llmtune compare)": committed,
    "endpoint list: 160 MB": endpoint_list,
    ".env: 500 MB": dotenv,
    "log of spending: 200 MB": spending,
}


def made(project: Path) -> None:
    """A project that was tuned once."""
    (project / "sums.llmtune.yaml").write_text(SUITE)
    (project / "rows.jsonl").write_text("".join(f'{{"q": "{a} plus 1", "answer": "{a + 1}"}}\n' for a in range(8)))
    with LLMServer(answer=lambda body: str(int(body["messages"][-1]["content"].split()[0]) + 1)) as server:
        env = os.environ | {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-test-0123456789"}
        subprocess.run([sys.executable, *PYTEST, "--llm-tune"], cwd=project, env=env, check=True, capture_output=True)
    shutil.rmtree(project / ".llmtune")


MEASURE = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, used = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss, used.ru_utime + used.ru_stime)
"""
"""In a small process of its own: Linux counts the memory of whoever starts a process as that of the process."""


def measured(project: Path, command: list[str]) -> tuple[int, int, float, str]:
    """Exit code, kB of the largest process, seconds of CPU, and what it said."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LLMTUNE")}
    env |= {"PYTHONPATH": str(ROOT), "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "sk-test-0123456789"}
    whole = [sys.executable, "-S", "-c", MEASURE, sys.executable, *command]
    done = subprocess.run(
        whole, cwd=project, env=env, capture_output=True, text=True, errors="replace", timeout=600, check=True
    )
    code, memory, seconds = done.stdout.split()[-3:]
    return int(code), int(memory), float(seconds), done.stderr


def main() -> int:
    chosen = [name for name in FILES if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        original = Path(directory) / "original"
        original.mkdir()
        made(original)
        print("| file | largest process | seconds of CPU | what it says |\n| --- | --- | --- | --- |", flush=True)
        for name in ("(none)", *chosen):
            project = Path(directory) / "hostile"
            shutil.copytree(original, project)
            command = (FILES[name](project) if name in FILES else None) or PYTEST
            code, memory, seconds, said = measured(project, command)
            shutil.rmtree(project)
            reasons = [
                line for line in said.splitlines() if "limit of" in line or "error" in line.lower() or "deeply" in line
            ]
            short = " ".join((reasons or said.strip().splitlines() or [""])[-1].split())[:110].replace("|", "/")
            bad = memory > MOST or code < 0 or "INTERNALERROR" in said or "Traceback" in said
            failed += bad
            print(f"| {name} | {memory // 1000} MB | {seconds:.1f} | {code}: {short}{' **BAD**' * bad} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
