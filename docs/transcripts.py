"""Runs the commands of example_project/README.md in a copy of the example, and writes what they print below them.

    python docs/transcripts.py              the blocks marked `offline`
    python docs/transcripts.py --live       those marked `live` too; they need the server of OPENAI_BASE_URL
    python docs/transcripts.py --check      exit code 1 if the page shows something else; writes nothing

A block is marked by a comment before it: `<!-- transcript: offline -->`, or `<!-- transcript: offline, 9 lines -->` where
only the first nine lines are shown. A search takes too long to be repeated for a page: `--said FILE` takes the output of
a live command, as `pytest --llm-tune ... > FILE` wrote it, from a file whose first line is `$ ` and the command.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "example_project" / "README.md"
BLOCK = re.compile(r"(<!-- transcript: (offline|live)(?:, (\d+) lines)? -->\n\n```console\n)(.*?)(```\n)", re.DOTALL)
FRAME = re.compile(
    r"=+( [^=]+ =+)?$|(platform|rootdir|configfile|testpaths|plugins|collected|collecting|cachedir)\b|[.FE]+ +\[|\S+ [.FE]+ +\["
    r"|oldest recorded answer|(\d+ (passed|failed),? ?)+in "
)
"""What pytest says about itself, and what depends on today's date."""
WIDTH = 118


def run(command: str, here: Path, environ: dict[str, str]) -> list[str]:
    """What a command prints, without pytest's own lines and without empty ones at both ends."""
    bash = ["bash", "-c", command]
    done = subprocess.run(bash, cwd=here, env=environ, capture_output=True, text=True, check=False)
    return shown(done.stdout + done.stderr)


def shown(output: str) -> list[str]:
    """The failures where there are some, else the summary."""
    before, found, after = output.partition("= llmtune =")
    failures = before.partition("= FAILURES =")[2].partition("\n")[2].partition("\n")[2]
    lines = [line.rstrip() for line in (failures or after.partition("\n")[2] if found else output).splitlines()]
    lines = [line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in lines if not FRAME.match(line)]
    return "\n".join(lines).strip("\n").splitlines()


def page(text: str, here: Path, *, live: bool, said: dict[str, str]) -> str:
    """The page with the blocks' output of today. The copy keeps what the commands did to it from block to block."""
    environ = {name: value for name, value in os.environ.items() if live or not name.startswith("OPENAI_")}
    environ = {name: value for name, value in environ.items() if not name.startswith(("LLMTUNE_", "PYTEST_"))}
    environ |= {
        "COLUMNS": str(WIDTH),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTEST_ADDOPTS": "-p no:cacheprovider --color=no",
        **{f"GIT_{who}_{what}": "example@invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    run("git init -q && git add -A && git commit -qm example", here, environ)

    def written(block: re.Match[str]) -> str:
        head, kind, most, body, end = block.groups()
        if kind == "live" and not live:
            return block.group()
        lines: list[str] = []
        for command in re.findall(r"^\$ (.*)$", body, re.MULTILINE):
            output = shown(said[command]) if command in said else run(command, here, environ)
            lines += [f"$ {command}", *(output if most is None else output[: int(most)])]
            lines += ["..."] if most is not None and len(output) > int(most) else []
        return head + "".join(f"{line}\n" for line in lines) + end

    return BLOCK.sub(written, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--said", action="append", default=[], type=Path, metavar="FILE")
    given = parser.parse_args()
    files = [path.read_text(encoding="utf-8").partition("\n") for path in given.said]
    before = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory) / "example_project"
        shutil.copytree(PAGE.parent, here, ignore=shutil.ignore_patterns(".llmtune", "__pycache__"))
        said = {first.removeprefix("$ "): rest for first, _, rest in files}
        after = page(before, here, live=given.live, said=said)
    if not given.check:
        PAGE.write_text(after, encoding="utf-8", newline="\n")
    elif after != before:
        raise SystemExit("example_project/README.md shows other output: python docs/transcripts.py writes today's")


if __name__ == "__main__":
    main()
