"""Read lock files from git objects, without a checkout, and without running hooks or filters of the repository."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from pytest_llmtune._dataclass import dataclass, replace
from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_SUFFIX = ".lock.yaml"
# disable what an untrusted repository could run: hooks, a file-system monitor, a pager, credential helpers
_SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "--no-pager")
# the user's own settings of git log, with which commits would be left out or written otherwise
_PLAIN = (
    *("-c", "log.showRoot=true", "-c", "log.showSignature=false", "-c", "log.diffMerges=separate"),
    *("-c", "i18n.logOutputEncoding=UTF-8", "-c", "color.ui=false", "-c", "diff.relative=false"),
)


class GitError(LLMTuneError):
    """Git is not installed, not a repository, or an unknown revision."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that changed lock files."""

    hash: str
    date: str
    """Commit date, ISO 8601."""
    subject: str
    files: tuple[tuple[str, str, str], ...]
    """(path, blob, path before a rename or empty) of each changed lock file; a deleted one has a blob of zeros."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository, read only."""

    root: Path

    @classmethod
    def around(cls, directory: Path) -> Repository:
        """The repository of a directory; GitError if it is in none, or git is not installed."""
        top = _run(directory, "rev-parse", "--show-toplevel", what=f"{directory} is not in a git repository")
        return cls(Path(top.decode().strip()))

    def resolve(self, revision: str) -> str:
        """The full hash of a revision; GitError if it is unknown, as it may be in a shallow clone."""
        if revision.startswith("-"):
            raise GitError(f"{revision!r} is not a revision")
        hint = (
            "the clone is shallow, get the rest: git fetch --unshallow"
            if self.is_shallow
            else "list them: git log --oneline --all"
        )
        found = _run(
            self.root,
            *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"),
            what=f"{revision!r} is not a commit of {self.root}; {hint}",
        )
        return found.decode().strip()

    @property
    def is_shallow(self) -> bool:
        return _run(self.root, "rev-parse", "--is-shallow-repository", what="").strip() == b"true"

    def locks(self, revision: str, most: int) -> Iterator[tuple[str, bytes]]:
        """(relative path, content) of the lock files of a commit, contents as from ``blobs``; GitError if it is unknown."""
        listed = _run(
            self.root, "ls-tree", "-r", "-z", "--full-tree", self.resolve(revision), what="git ls-tree failed"
        )
        blobs = {}
        for entry in listed.decode("utf-8", "surrogateescape").split("\0"):
            kind, _, path = entry.partition("\t")
            if path.endswith(_SUFFIX) and kind.startswith("100"):  # a regular file, not a link or submodule
                blobs[path] = kind.split()[2]
        return zip(blobs, self.blobs(list(blobs.values()), most), strict=True)

    def blobs(self, hashes: Sequence[str], most: int) -> Iterator[bytes]:
        """The contents of blobs, in order, one in memory at a time; a larger one than ``most`` is cut off one byte later."""
        with tempfile.TemporaryFile() as names:
            names.write("".join(f"{each}\n" for each in hashes).encode())
            names.seek(0)
            command = _command(self.root, "cat-file", "--batch")
            with subprocess.Popen(command, stdin=names, stdout=subprocess.PIPE) as git:  # noqa: S603 - no shell
                out = cast("IO[bytes]", git.stdout)
                for _ in hashes:
                    head = out.readline().split()
                    if len(head) != 3:
                        missing = head[0].decode(errors="replace") if head else "of this commit"
                        raise GitError(f"git has no object {missing}; the clone is incomplete")
                    unread = int(head[2]) + 1
                    content = out.read(min(unread - 1, most + 1))
                    unread -= len(content)
                    while unread:
                        unread -= len(out.read(min(unread, 2**20))) or unread
                    yield content

    def history(self, revision: str = "HEAD", most: int | None = None) -> list[Commit]:
        """The commits that changed lock files, oldest first, along first parents: a merge counts as one change."""
        log = _run(
            self.root,
            *(*_PLAIN, "log", "--first-parent", "-m", "--raw", "--no-abbrev", "-M", "-z", "--reverse"),
            *([] if most is None else [f"--max-count={most}"]),
            *("--format=%x00%H%x00%cI%x00%s%x00", self.resolve(revision), "--", f"*{_SUFFIX}"),
            what="git log failed",
        )
        return _commits(log.decode("utf-8", "surrogateescape"))


def _commits(log: str) -> list[Commit]:
    """The commits of ``git log --raw -z``, in fields between zero bytes, which neither a subject nor a path can contain."""
    commits: list[Commit] = []
    fields = iter(log.split("\0"))
    for field in fields:
        if not field.strip("\n"):
            continue
        if not field.lstrip("\n").startswith(":"):
            commits.append(Commit(field.strip("\n"), next(fields), next(fields), ()))
            continue
        _, _, _, blob, status = field.split()
        before = next(fields)
        after = next(fields) if status[0] in "RC" else before
        if after.endswith(_SUFFIX):
            changed = after, blob, before if status[0] == "R" else ""
            commits[-1] = replace(commits[-1], files=(*commits[-1].files, changed))
    return commits


def _command(directory: Path, *arguments: str) -> list[str]:
    return ["git", *_SAFE, "-C", str(directory), *arguments]  # the one that the user has on the path


def _run(directory: Path, *arguments: str, what: str) -> bytes:
    try:
        done = subprocess.run(_command(directory, *arguments), capture_output=True, check=False)  # noqa: S603 - no shell; revisions are resolved first
    except OSError as error:
        raise GitError(f"git cannot be run ({error.strerror}); install it, or compare two --llm-json files") from None
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip().splitlines()
        reason = f" ({message[-1]})" if message else ""
        raise GitError(f"{what}{reason}")
    return done.stdout
