"""``--llm-init``: write a starter suite for a data file."""

from __future__ import annotations

import os
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.data.dataset import load
from pytest_llmtune.data.readers import FORMATS, format_of
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import check, grader_of
from pytest_llmtune.plugin.init.guess import Guess, guess, question_columns, reference_column
from pytest_llmtune.plugin.init.text import keys, python_form, yaml_form
from pytest_llmtune.suite import Suite
from pytest_llmtune.suite.keys import check_name

if TYPE_CHECKING:
    from collections.abc import Sequence

DEMO = "demo"

_ENDING = lazy_regex(rf"(\.llmtune)?\.({'|'.join(FORMATS)}|py)(\.gz)?$", re.IGNORECASE)
"""Suffix of a data file, or of the files to write."""
_PLACES = (".", "data", "tests", "tests/data")


def write_starter(name: str, arguments: Sequence[str], *, cwd: Path, tests: Path, root: Path) -> tuple[Path, ...]:
    """Write ``NAME.llmtune.yaml`` and ``test_NAME.py`` for a data file; returns both paths.

    Args:
        name: the suite's name, optionally with a directory; or the data file itself.
        arguments: the data file, if it is not the name.
        cwd: the current directory, base of relative paths.
        tests: default directory for suites.
        root: the project's root, which a YAML suite must not leave.

    Raises:
        SuiteError: no data file, an unusable one, or an existing file.
    """
    data = _data_file(name, arguments, cwd)
    named = Path(name if arguments or format_of(name) is None else data.name)
    stem = check_name(_ENDING.sub("", named.name).removeprefix("test_"))
    directory = (cwd / named.parent) if named.parent != Path() else tests
    slug = re.sub(r"\W+", "_", stem).strip("_").lower() or "suite"
    yaml_path, python_path = directory / f"{stem}.llmtune.yaml", directory / f"test_{slug}.py"
    _refuse_existing(yaml_path, python_path)
    found, known = _suite(stem, data, directory, root)
    texts = {
        yaml_path: yaml_form(stem, known, found, twin=python_path.name),
        python_path: python_form(f"test_{slug}_in_python", known, found, twin=yaml_path.name),
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    return tuple(texts)


def _data_file(name: str, arguments: Sequence[str], cwd: Path) -> Path:
    """The data file: the argument, the name itself, or ``NAME.jsonl`` and the like in the usual directories."""
    if len(arguments) > 1:
        raise SuiteError(f"--llm-init {name}: one data file, not {len(arguments)}: {', '.join(arguments)}")
    if arguments or format_of(name):
        path = cwd / (arguments[0] if arguments else name)
        if not path.is_file():
            raise SuiteError(f"--llm-init {name}: {arguments[0] if arguments else name}: there is no such file")
        return path
    same, nearby = _nearby(cwd, name)
    if len(same) == 1:
        return same[0]
    names = ", ".join(path.relative_to(cwd).as_posix() for path in (same or nearby)[:5])
    raise SuiteError(
        f"--llm-init {name}: which data? pytest --llm-init {name} FILE, ending in {', '.join(FORMATS)}"
        + (f"; there is {names}" if names else "; to try it without data and without a key: pytest --llm-init demo")
    )


def _nearby(cwd: Path, name: str) -> tuple[list[Path], list[Path]]:
    """Data files with this name in the usual directories, and all data files there."""
    files = [path for folder in _PLACES for path in sorted((cwd / folder).glob("*")) if format_of(path.name)]
    nearby = [path for path in files if ".llmtune." not in path.name]
    return [path for path in nearby if path.name.partition(".")[0] == name], nearby


def write_demo(directory: Path) -> None:
    """Write the demo project: an app, its suite, and a `conftest.py` that starts a fake model server; only where there is none."""
    _refuse_existing(directory)
    directory.mkdir(parents=True)
    for file in files("pytest_llmtune.demo").joinpath("project").iterdir():
        if file.is_file():
            (directory / file.name.replace("gitignore", ".gitignore")).write_bytes(file.read_bytes())


def _refuse_existing(*paths: Path) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        raise SuiteError(
            f"--llm-init overwrites nothing: {' and '.join(existing)} {'are' if len(existing) > 1 else 'is'} there already; "
            "choose another name, or remove what you no longer need"
        )


def _suite(name: str, data: Path, directory: Path, root: Path) -> tuple[dict[str, Any], Guess]:
    """The suite's keys, validated: it loads, and its grader can use every row."""
    rows = load(str(data), base_dir=directory, root=root)
    answer = reference_column(rows)
    fields = question_columns(rows, answer)
    rows = load(str(data), base_dir=directory, root=root, needed=(*fields, answer))  # as the suite will load it
    known = guess(rows, fields, answer)
    dataset = Path(os.path.relpath(data.resolve(), directory.resolve())).as_posix()
    found = keys(known, dataset, len(rows.examples))
    try:
        _prove(name, found | {"dataset": str(data.resolve())}, directory, root)
    except SuiteError:  # usually duplicate rows
        found = keys(known, dataset, len(rows.examples), drop=True)
        _prove(name, found | {"dataset": str(data.resolve())}, directory, root)
    return found, known


def _prove(name: str, found: dict[str, Any], directory: Path, root: Path) -> None:
    where = f"--llm-init {name}"
    suite = Suite.from_mapping(found, where=where, base_dir=directory, root=root, default_name=name)
    split = suite.load(offline=True)
    check(grader_of(suite), (*split.tune, *split.test), where=where)


def start(config: Any, name: str) -> None:
    """Write a starter suite, and print the next command; LLMTuneError or OSError if it cannot be written."""
    cwd = config.invocation_params.dir
    arguments = config.args if config.args_source.name == "ARGS" else []
    if name == DEMO and not arguments and not _nearby(cwd, DEMO)[0]:
        write_demo(cwd / DEMO)
        sys.stdout.write(
            f"wrote {DEMO}/: an app, its suite, and a stand-in for a model that runs on this machine\n"
            f"next: cd {DEMO} && pytest --llm-tune\n"
        )
        return
    folders = [config.rootpath / folder for folder in config.getini("testpaths")] or [cwd / "tests"]
    tests = next((folder for folder in folders if folder.is_dir()), cwd)
    written = write_starter(name, arguments, cwd=cwd, tests=tests, root=config.rootpath)
    shown = [Path(os.path.relpath(path, cwd)).as_posix() for path in written]
    lines = [f"wrote {path}" for path in shown] + ["both files declare the same suite: keep one, delete the other"]
    sys.stdout.write("\n".join([*lines, f"next: pytest --llm-tune-dry-run {shown[0]}", ""]))
