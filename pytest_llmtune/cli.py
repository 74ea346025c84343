"""The command ``llmtune``, for tasks that need no test run."""

from __future__ import annotations

import argparse
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import LLMTuneError, LockError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_llmtune.commits.compare import State, SuiteChange
    from pytest_llmtune.guard.lockfile import Lock


_OK, _FAILED, _USAGE = 0, 1, 2

_HELP = """exit codes: 0 success; 1 the answer is no (grade: wrong; compare --fail-on-drop: a score fell);
2 an error, with a message that says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 the answer is no, 2 it could not be done.
    """
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except (LLMTuneError, OSError) as error:
        sys.stderr.write(f"llmtune: {error}\n")
        return _USAGE
    except UnicodeEncodeError as error:
        what = f"the output cannot be written as {error.encoding}"
        sys.stderr.write(f"llmtune: {what}; run again with the environment variable PYTHONUTF8=1\n")
        return _USAGE
    return code


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="llmtune",
        description="Compare, inspect and export tuned suites, without a test run.",
        epilog=_HELP,
        formatter_class=formatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=text, epilog=f"example:\n  {example}", formatter_class=formatter
        )
        added.set_defaults(run=run)
        return added

    compare = command(
        "compare", _compare, "compare the suites of two commits", "llmtune compare main --format=markdown"
    )
    compare.add_argument("base", metavar="BASE", help="a git revision, or a file that --llm-json wrote")
    compare.add_argument("head", metavar="HEAD", nargs="?", help="the same (default: the working tree)")
    compare.add_argument("--format", choices=["text", "markdown", "json", "html"], default="text")
    compare.add_argument("--fail-on-drop", action="store_true", help="exit 1 if a score fell, or cannot be compared")
    history = command(
        "history", _history, "show how the suites changed, commit by commit", "llmtune history mood --format=csv"
    )
    history.add_argument("suites", metavar="SUITE", nargs="*", help="default: all")
    history.add_argument("--revision", default="HEAD", help="the newest commit to show (default HEAD)")
    history.add_argument("--format", choices=["text", "json", "csv", "html"], default="text")
    show = command("show", _show, "show a suite's chosen configuration and its baseline", "llmtune show mood")
    show.add_argument("suite", metavar="SUITE")
    text = "print a suite's chosen configuration for your app"
    export = command("export", _export, text, "llmtune export mood --to=python > mood.py")
    export.add_argument("suite", metavar="SUITE")
    export.add_argument("--to", choices=["json", "python"], default="json")
    grade = command(
        "grade", _grade, "grade a response by hand", "llmtune grade math '\\boxed{4}' --row '{\"answer\": \"4\"}'"
    )
    grade.add_argument("grader", metavar="GRADER", help="a name, module:function, or JSON such as '{\"exact\": {}}'")
    text = "one for each of the n responses; - reads one from standard input"
    grade.add_argument("responses", metavar="RESPONSE", nargs="+", help=text)
    text = "the row, with the column that holds the right answer"
    grade.add_argument("--row", default="{}", metavar="JSON", help=text)
    schema = command("schema", _schema, "print the JSON Schema of suite files", "llmtune schema > llmtune.schema.json")
    schema.add_argument("--report", action="store_true", help="print the schema of what --llm-json writes")
    init = command("init", _init, "write a starter suite for a data file", "llmtune init algebra data/algebra.jsonl")
    init.add_argument("name", metavar="NAME", nargs="?")
    init.add_argument("file", metavar="FILE", nargs="?")
    init.add_argument("--demo", action="store_true", help="write a small project that needs no key")
    return parser


def _write(text: str) -> int:
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())  # a path or subject need not be UTF-8
    return _OK


def _compare(arguments: argparse.Namespace) -> int:
    from pytest_llmtune.commits import render
    from pytest_llmtune.commits.compare import changes

    base, head = _state(arguments.base), _state(arguments.head)
    found = changes(base, head)
    form = {"text": render.as_text, "markdown": render.as_markdown, "json": render.as_json, "html": render.as_html}
    _write(form[arguments.format](found, base.name, head.name))
    return _FAILED if arguments.fail_on_drop and any(map(_worse, found)) else _OK


def _worse(change: SuiteChange) -> bool:
    """Whether a suite's score is lower or not comparable: the suite was removed, or a side has no score, or NaN."""
    if change.before is None:
        return False
    old, new = change.score("before"), change.score("now")
    return old is None or new is None or not new.value >= old.value


def _state(name: str | None) -> State:
    from pytest_llmtune.commits.compare import State, state_of_results
    from pytest_llmtune.commits.git import GitError, Repository

    if name is None:
        try:
            return State.of_directory(Repository.around(Path.cwd()).root)
        except GitError:
            return State.of_directory(Path.cwd())
    if name.endswith(".json") and Path(name).is_file():
        return state_of_results(Path(name))
    return State.of_revision(Repository.around(Path.cwd()), name)


def _history(arguments: argparse.Namespace) -> int:
    from pytest_llmtune._util.serialize import to_plain
    from pytest_llmtune.commits import render
    from pytest_llmtune.commits.git import Repository
    from pytest_llmtune.commits.history import history

    repository = Repository.around(Path.cwd())
    entries = history(repository, arguments.suites, arguments.revision)
    if repository.is_shallow:
        sys.stderr.write(
            "llmtune: the clone is shallow, so the history is cut off; get the rest: git fetch --unshallow\n"
        )
    if not entries:
        named = f" of {', '.join(arguments.suites)}" if arguments.suites else ""
        raise LLMTuneError(f"no commit has a lock file{named}; lock files are called SUITE.lock.yaml")
    if arguments.format == "json":
        return _write(json.dumps({"version": 1, "entries": to_plain(entries)}, ensure_ascii=False, indent=1) + "\n")
    form = {"csv": render.history_csv, "html": render.history_html, "text": render.history_text}
    return _write(form[arguments.format](entries))


def _lock(suite: str) -> tuple[Path, Lock]:
    """Find a suite's lock file below the working directory."""
    from pytest_llmtune._util.text import did_you_mean
    from pytest_llmtune.commits.compare import State

    directory = Path.cwd()
    found = State.of_directory(directory).locks
    chosen = [(directory / path, lock) for path, lock in found.items() if suite in (lock.suite, path)]
    if len(chosen) == 1:
        return chosen[0]
    names = sorted(lock.suite for lock in found.values())
    if chosen:
        files = sorted(path.relative_to(directory).as_posix() for path, _ in chosen)
        raise LockError(f"several suites are called {suite!r}; name the file: {', '.join(files)}")
    known = f"; there are {', '.join(names)}" if names else "; there is no lock file below this directory"
    raise LockError(f"no suite {suite!r}{did_you_mean(suite, names)}{known}")


def _per_thousand(cost: float) -> str:
    from pytest_llmtune._util.text import dollars

    return dollars(1000 * Decimal(str(cost)))


def _show(arguments: argparse.Namespace) -> int:
    from pytest_llmtune._util.text import clean, dollars, number, one_line
    from pytest_llmtune.commits.compare import prompt_of

    path, lock = _lock(arguments.suite)
    lines = [f"{lock.suite} ({path.relative_to(Path.cwd()).as_posix()})", "", "configuration"]
    plain = {name: value for name, value in lock.config.items() if name not in ("prompt", "messages")}
    lines += [f"  {name}: {one_line(str(value), 200)}" for name, value in plain.items()]
    if prompt := prompt_of(lock.config):
        lines += ["", "prompt", *(f"  {line}" for line in prompt.splitlines())]
    lines += ["", "baseline"]
    for name, figure in sorted(lock.metrics.items()):
        is_cost, bounds = name == "inference_cost", figure.interval
        show: Callable[[float], str] = _per_thousand if is_cost else number
        per = " per 1,000 instances" if is_cost else ""
        sure = f"  (95 %: {show(bounds.low)} to {show(bounds.high)})" if bounds else ""
        lines.append(f"  {name}: {show(figure.value)}{per}{sure}")
    if (study := lock.study) is not None:
        lines += ["", f"search: {len(study.trials)} trials, {dollars(study.spent)} spent, ended by {study.stopped_by}"]
    lines += ["", f"examples ({len(lock.examples)})"]
    for example in sorted(lock.examples, key=lambda one: one.index)[:3]:
        answer = one_line(example.voted_answer or "no answer", 100)
        metrics = ", ".join(f"{name} {value:g}" for name, value in example.metrics.items())
        lines.append(f"  row {example.index}: {answer} ({metrics})")
    return _write(clean("\n".join(lines)) + "\n")


def _export(arguments: argparse.Namespace) -> int:
    from pytest_llmtune.commits.export import as_json, as_python

    _, lock = _lock(arguments.suite)
    return _write(as_json(lock) if arguments.to == "json" else as_python(lock))


def _grade(arguments: argparse.Namespace) -> int:
    from pytest_llmtune.api import grade

    try:
        row = json.loads(arguments.row)
        grader = json.loads(arguments.grader) if arguments.grader.lstrip().startswith(("{", "[")) else arguments.grader
    except ValueError as error:
        raise LLMTuneError(f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise LLMTuneError(f'--row takes a JSON object, such as \'{{"answer": "4"}}\', not {arguments.row!r:.60}')
    texts = [sys.stdin.read() if text == "-" else text for text in arguments.responses]
    found = grade(grader, texts, row)
    _write("".join(f"{name}: {value:g}\n" for name, value in sorted(found.metrics.items())))
    if found.voted_answer is not None:
        _write(f"voted answer: {found.voted_answer}\n")
    return _OK if found.metrics.get("success_vote", found.metrics.get("success", 0.0)) > 0 else _FAILED


def _schema(arguments: argparse.Namespace) -> int:
    from pytest_llmtune.guard import results_schema
    from pytest_llmtune.suite import schema

    return _write(results_schema.text() if arguments.report else schema.text())


def _init(arguments: argparse.Namespace) -> int:
    import subprocess

    if arguments.demo and arguments.name is not None:
        raise LLMTuneError("init: --demo takes no name and no file: llmtune init --demo, or llmtune init NAME FILE")
    name = "demo" if arguments.demo else arguments.name
    if name is None:
        raise LLMTuneError("init: which suite? llmtune init NAME FILE; without data and a key: llmtune init --demo")
    command = [sys.executable, "-m", "pytest", f"--llm-init={name}", *([arguments.file] if arguments.file else [])]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - pytest finds the project and its tests


if __name__ == "__main__":
    sys.exit(main())
