"""Lock files for tests, and a git repository to commit them in."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pytest_llmtune.guard.lockfile import Lock, LockedExample, Measured

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"model": "small", "temperature": 0.5, "n": 3, "prompt": "Answer briefly: {question}"}


def example(index: int, right: float = 1.0, asked: str = "", **more: Any) -> LockedExample:
    votes = (("4", 3),) if right else (("5", 3),)
    return LockedExample(
        f"{index:016x}", index, "ok", {"success_vote": right}, 3, votes, votes[0][0], asked or f"q{index}", **more
    )


def lock(name: str = "sums", wrong: int = 2, rows: int = 20, cost: float = 5e-5, **changes: Any) -> Lock:
    score = (rows - wrong) / rows
    metrics = {"success_vote": Measured(score, score - 0.1, min(1.0, score + 0.1)), "inference_cost": Measured(cost)}
    made = Lock(
        name,
        CONFIG,
        metrics,
        {"small": {"input": Decimal("0.1"), "output": Decimal("0.4")}},
        {"dataset": "d", "grader": "g"},
        None,
        tuple(example(index, float(index >= wrong)) for index in range(rows)),
    )
    return replace(made, **changes)


@dataclass(frozen=True)
class Git:
    root: Path

    def __call__(self, *arguments: str) -> str:
        who = {
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        done = subprocess.run(
            ["git", "-C", str(self.root), "-c", "init.defaultBranch=main", *arguments],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        )
        return done.stdout.strip()

    def commit(self, subject: str, **locks: Lock | None) -> str:
        """Write lock files and commit them; None removes one."""
        for name, made in locks.items():
            path = self.root / "tests" / "llmtune" / f"{name}.lock.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            if made is None:
                path.unlink()
            else:
                made.write(path)
        self("add", "-A")
        self("commit", "-q", "--allow-empty", "-m", subject)
        return self("rev-parse", "HEAD")
