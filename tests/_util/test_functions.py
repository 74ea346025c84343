"""Functions by name: found beside the suite or installed, kept within the project where asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_llmtune._util.functions import is_function_path, load_function, qualified_name, source_of
from pytest_llmtune.errors import SuiteError


class Callable_:  # noqa: N801
    def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("module:function", True),
        ("package.module:Class.method", True),
        ("모듈:함수", True),
        ("a/b.py:f", False),
        ("C:\\data\\x.csv", False),
        ("data.csv", False),
        ("hf:name/x", False),
        ("module:", False),
        (":f", False),
        ("a:b:c", False),
        ("1a:b", False),
        ("a-b:c", False),
    ],
)
def test_form(text: str, result: bool) -> None:
    """A path is no function, not even on Windows."""
    assert is_function_path(text) is result


def test_beside_the_suite_and_installed(tmp_path: Path) -> None:
    """A file in the suite's directory comes first; then what can be imported."""
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "tools.py").write_text("class A:\n    @staticmethod\n    def f():\n        return 'mine'\n")
    (tmp_path / "json.py").write_text("def dumps():\n    return 'shadow'\n")
    assert load_function("pack.tools:A.f", tmp_path)() == "mine"
    assert load_function("json:dumps", tmp_path)() == "shadow"
    assert load_function("json:dumps", tmp_path / "pack")([]) == "[]"


def test_two_files_of_one_name(tmp_path: Path) -> None:
    """Each suite gets its own; neither is left in sys.modules."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "graders_of_two.py").write_text(f"def f():\n    return {name!r}\n")
    assert [load_function("graders_of_two:f", tmp_path / name)() for name in "abab"] == ["a", "b", "a", "b"]
    assert "graders_of_two" not in sys.modules


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nothing", "'nothing' does not have the form 'module:function'"),
        ("no_such_module:f", "no module 'no_such_module': it cannot be imported, and there is no file"),
        ("no_such_package.inner:f", "no module 'no_such_package.inner'"),
        ("good:missing", "good has no function 'missing'; it has: thing"),
        ("good:thinc", "(did you mean 'thing'?)"),
        ("good:VALUE", "good has no function 'VALUE'"),
        ("good:thing.x.y", "has no function 'thing.x.y'"),
        ("bad:f", "importing 'bad' failed: ZeroDivisionError"),
        ("needs:f", "importing 'needs' failed: No module named 'something_else'"),
        ("syntax:f", "importing 'syntax' failed: SyntaxError"),
    ],
)
def test_what_cannot_be_found(tmp_path: Path, path: str, says: str) -> None:
    """In one sentence, whatever the module does."""
    (tmp_path / "good.py").write_text("VALUE = 5\ndef thing():\n    pass\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    (tmp_path / "needs.py").write_text("import something_else\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    with pytest.raises(SuiteError) as caught:
        load_function(path, tmp_path)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "path", ["os:system", "os.path:join", "json:dumps", "subprocess:run", "sys:exit", "builtins:exec"]
)
def test_a_root_keeps_out_what_is_installed(tmp_path: Path, path: str) -> None:
    """A stranger's YAML cannot reach the standard library, nor anything installed."""
    with pytest.raises(SuiteError, match="is outside the project"):
        load_function(path, tmp_path, tmp_path)


def test_a_root_runs_no_code_to_find_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package outside of the project is refused before its first line runs."""
    outside, project = tmp_path / "outside", tmp_path / "project"
    (outside / "evil_package").mkdir(parents=True)
    (outside / "evil_package" / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (outside / "evil_package" / "inner.py").write_text("def f(): pass\n")
    project.mkdir()
    monkeypatch.syspath_prepend(outside)
    with pytest.raises(SuiteError, match="is outside the project"):
        load_function("evil_package.inner:f", project, project)
    assert not (tmp_path / "ran").exists()


def test_a_root_and_a_module_that_is_not_there(tmp_path: Path) -> None:
    """Absent is absent, also with a root."""
    with pytest.raises(SuiteError, match="no module 'no_such_module': it cannot be imported, and there is no file"):
        load_function("no_such_module:f", tmp_path, tmp_path)


def test_a_root_lets_the_projects_own_code_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the suite, or importable from elsewhere in the project; links lead where they lead."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "tests" / "near.py").write_text("def f():\n    return 'near'\n")
    (tmp_path / "src" / "own_far.py").write_text("def f():\n    return 'far'\n")
    monkeypatch.syspath_prepend(tmp_path / "src")
    assert load_function("near:f", tmp_path / "tests", tmp_path)() == "near"
    assert load_function("own_far:f", tmp_path / "tests", tmp_path)() == "far"
    (tmp_path / "tests" / "link.py").symlink_to(Path(__file__))
    with pytest.raises(SuiteError, match="is outside the project"):
        load_function("link:test_form", tmp_path / "tests", tmp_path)


def test_names_and_sources() -> None:
    """A callable object counts as its class; a builtin has no source."""
    assert qualified_name(test_form) == f"{__name__}:test_form"
    assert qualified_name(Callable_()) == f"{__name__}:Callable_"
    assert "return 1" in source_of(Callable_())
    assert source_of(len) == ""


def test_functions_without_source_differ_by_code() -> None:
    """As typed into a REPL: the byte code tells them apart."""
    space: dict[str, object] = {}
    exec("def f():\n    return 1\ndef g():\n    return 2\n", space)  # noqa: S102
    sources = {source_of(space[name]) for name in "fg"}  # type: ignore[arg-type]
    assert len(sources) == 2
    assert "" not in sources
