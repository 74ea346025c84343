"""Read suites from YAML files, and check permission for code that they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.files import read_regular
from pytest_llmtune._util.functions import is_function_path
from pytest_llmtune._util.text import InvalidError, listed, shown
from pytest_llmtune._util.yaml import Document, YamlError, documents
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.keys import check_name
from pytest_llmtune.suite.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Collection


_TEMPLATES = ("prompt", "messages", "baselines")
_RUNS_CODE = "python"


def code_in(keys: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of everything in a YAML suite that would run code.

    Everything that looks like a function counts; if it is not one, its own key refuses it.
    """
    for key in ("dataset", "aggregate", "task"):
        if is_function_path(str(keys.get(key))):
            yield key, keys[key]
    for key in _TEMPLATES:
        for function in _callables(keys.get(key)):
            yield key, function
    graders = list(_flat(keys.get("grader")))
    for grader in graders:
        for name in grader if isinstance(grader, Mapping) else [grader]:
            if ":" in str(name) or name == _RUNS_CODE:
                yield "grader", str(name)
    for options in (options for grader in graders if isinstance(grader, Mapping) for options in grader.values()):
        for value in options.values() if isinstance(options, Mapping) else ():
            if isinstance(value, Mapping) and value.keys() == {"callable"}:  # such as the prompt of a judge
                yield "grader", value["callable"]
    cascade = keys.get("cascade")
    for step in cascade if isinstance(cascade, list) else [cascade]:
        accept = step.get("accept") if isinstance(step, Mapping) else None
        function = accept.get("function") if isinstance(accept, Mapping) else None
        if is_function_path(str(function)):
            yield "cascade", function


def isolation_in(grader: Any) -> Any:
    """The option ``isolation`` of a grader in YAML, or of one in a list; None if absent."""
    options = [one.get(_RUNS_CODE) for one in _flat(grader) if isinstance(one, Mapping)]
    found = (each.get("isolation") for each in options if isinstance(each, Mapping))
    return next((isolation for isolation in found if isolation is not None), None)


def _callables(data: Any) -> Iterator[Any]:
    if isinstance(data, Mapping):
        if "callable" in data:
            yield data["callable"]
        for value in data.values():
            yield from _callables(value)
    elif isinstance(data, list):
        for item in data:
            yield from _callables(item)


def _flat(data: Any) -> Iterator[Any]:
    """The items of a list and of lists within it; any other value is one item."""
    for item in data if isinstance(data, list) else [data]:
        yield from _flat(item) if isinstance(item, list) else [item]


_SUFFIXES = (".llmtune.yaml", ".llmtune.yml")
_MAX_BYTES = 4_000_000
_MAX_CHAIN = 10
_ROOT_MARKS = (".git", "pyproject.toml", "pytest.ini", "pytest.toml", ".pytest.ini", "tox.ini", "setup.cfg", "setup.py")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file being read, and those that extend it."""

    path: Path
    name: str
    """For messages."""
    root: Path
    allow_code: Collection[str] | None = None
    chain: tuple[Path, ...] = ()

    def problem(self, message: str, line: int = 1, column: int = 1) -> SuiteError:
        return SuiteError(f"{self.name}:{line}:{column}: {message}")


@dataclass(slots=True)
class _Keys:
    """The keys of a document, including those it extends."""

    data: dict[str, Any] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)

    def overlay(self, other: Mapping[str, Any], positions: Mapping[str, str]) -> None:
        """Override keys by the other's; mappings are replaced, not merged."""
        for key in other:
            inner = (f"{key}.", f"{key}[")
            self.positions = {
                path: position
                for path, position in self.positions.items()
                if path != key and not path.startswith(inner)
            }
        self.data |= other
        self.positions |= positions


def project_root(path: Path) -> Path:
    """The nearest parent directory that looks like a project's; else the file's own directory."""
    for directory in path.resolve().parents:
        if any((directory / mark).exists() for mark in _ROOT_MARKS):
            return directory
    return path.resolve().parent


@dataclass(frozen=True, slots=True)
class Declared:
    """One document of a file: a suite, or its problem."""

    name: str
    """The suite's name, else the document's line; unique in the file."""
    line: int
    """First line of the document, from 1."""
    suite: Suite | None
    problem: str = ""


def declared_suites(
    path: Path, *, shown_as: str | None = None, root: Path | None = None, allow_code: Collection[str] | None = None
) -> list[Declared]:
    """The suites of a file; an invalid one does not affect the others, and has its problem with file, line and column.

    Args:
        shown_as: the file's name for messages; default: its path.
        root: the project; data, code and YAML outside it are not used. Default: see ``project_root``.
        allow_code: names of the suites that may run code; None: all may.

    Raises:
        SuiteError: the file cannot be read, is not valid YAML, or has no suite.
    """
    source = _Source(path, shown_as or str(path), (root or project_root(path)).resolve(), allow_code)
    documents_found = _documents(source)
    if not documents_found:
        raise source.problem("has no suite; a suite needs dataset, prompt or messages, model and grader")
    found: list[Declared] = []
    lines: dict[str, int] = {}
    for document in documents_found:
        try:
            suite = _suite(document, source, alone=len(documents_found) == 1)
            if suite.name in lines:
                raise source.problem(
                    f"the suite {suite.name!r} is also declared on line {lines[suite.name]}", document.line
                )
        except SuiteError as error:
            alone = _stem(path) if len(documents_found) == 1 else None
            found.append(Declared(alone or f"line {document.line}", document.line, None, str(error)))
        else:
            lines[suite.name] = document.line
            found.append(Declared(suite.name, document.line, suite))
    return found


def _documents(source: _Source) -> list[Document]:
    if source.path.is_symlink() and not source.path.resolve().is_relative_to(source.root):
        raise SuiteError(f"{source.name}: a symbolic link that leads out of the project {source.root}; remove it")
    try:
        content = read_regular(source.path, _MAX_BYTES)
        return documents(content.decode("utf-8-sig"))
    except OSError as error:
        raise SuiteError(f"{source.name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise source.problem(f"byte 0x{content[error.start]:02x} is not UTF-8", line) from None
    except YamlError as problem:
        raise source.problem(str(problem), problem.line, problem.column) from None


def _suite(document: Document, source: _Source, *, alone: bool) -> Suite:
    keys = _keys(document, source)
    default = _stem(source.path) if alone else None
    name = keys.data.get("name") or default
    if name is None:
        raise source.problem("a document among several needs a name, as in `name: algebra`", document.line)
    if source.allow_code is not None and name not in source.allow_code:
        # a data file must not run even the project's own code by itself
        for key, what in code_in(keys.data):
            raise SuiteError(
                f"{keys.positions.get(key, source.name)}: {key} is {shown(what)}, which runs code; a suite in YAML may do so if "
                f"pytest's ini file (or LLMTUNE_ALLOW_CODE) says llmtune_allow_code = {name}"
            )
    if (isolation := isolation_in(keys.data.get("grader"))) is not None:
        raise SuiteError(
            f"{keys.positions.get('grader', source.name)}: grader: isolation is {shown(isolation)}, which a suite in YAML cannot "
            "choose; leave it out, or declare the suite in Python"
        )
    return Suite.from_mapping(
        keys.data,
        where=f"{source.name}:{document.line} ({name if isinstance(name, str) else default})",
        base_dir=source.path.parent,
        default_name=default,
        root=source.root,
        positions=keys.positions,
    )


def _stem(path: Path) -> str | None:
    name = path.name
    for suffix in (*_SUFFIXES, path.suffix):
        name = name.removesuffix(suffix)
    try:
        return check_name(name)
    except InvalidError:
        return None


def _keys(document: Document, source: _Source) -> _Keys:
    """The document's own keys over those that it extends."""
    if not isinstance(document.data, dict):
        raise source.problem(f"a suite is a mapping of keys, got {shown(document.data)}", document.line)
    positions = {spot: f"{source.name}:{line}:{column}" for spot, (line, column) in document.positions.items() if spot}
    own = {key: value for key, value in document.data.items() if not str(key).startswith("x-")}  # ignored; for anchors
    extended = own.pop("extends", None)
    keys = _Keys()
    for parent in extended if isinstance(extended, list) else [] if extended is None else [extended]:
        line, column = document.positions["extends"]
        inherited = _extended(parent, source, line, column)
        keys.overlay(inherited.data, inherited.positions)
    keys.overlay(own, positions)
    return keys


def _extended(parent: Any, source: _Source, line: int, column: int) -> _Keys:
    if not isinstance(parent, str) or not parent.strip():
        raise source.problem(f"extends is {shown(parent)}; valid: another YAML file, or a list of them", line, column)
    path = (source.path.parent / parent).resolve()
    if not path.is_relative_to(source.root):
        raise source.problem(f"extends {shown(parent)} is outside the project {source.root}", line, column)
    chain = (*source.chain, source.path.resolve())
    if path in chain:
        raise source.problem(f"extends {shown(parent)}, which extends this file: a cycle", line, column)
    if len(chain) > _MAX_CHAIN:
        raise source.problem(
            f"extends {shown(parent)}: more than the limit of {_MAX_CHAIN} files in a chain", line, column
        )
    if not path.is_file():
        raise source.problem(f"extends {shown(parent)}: no file {path}", line, column)
    name = Path(relpath(path, Path(source.path.resolve()).parent)).as_posix()
    inner = _Source(path, name, source.root, source.allow_code, chain)
    found = _documents(inner)
    if len(found) != 1:
        names = listed([each.data.get("name") if isinstance(each.data, dict) else None for each in found])
        raise source.problem(
            f"extends {shown(parent)}, which has {len(found)} documents ({names}); it must have one", line, column
        )
    keys = _keys(found[0], inner)
    keys.data.pop("name", None)  # the name is not inherited
    for key in ("dataset", "endpoints"):  # relative to the file that gives them
        value = keys.data.get(key)
        if isinstance(value, str) and not value.startswith("hf:") and not is_function_path(value):
            keys.data[key] = Path(relpath(path.parent / value, source.path.parent.resolve())).as_posix()
    return keys
