"""Load functions by ``module:name`` and fingerprint their source."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import did_you_mean
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


_PATH = lazy_regex(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_function_path(text: str) -> bool:
    """Whether a text has the form ``module:function``."""
    return _PATH.fullmatch(text) is not None


def qualified_name(function: Callable[..., Any]) -> str:
    """``module:qualname`` of a function, or of the class of a callable object."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def source_of(function: Callable[..., Any]) -> str:
    """A function's source; without one (a REPL), a hash of its bytecode; for a builtin, the empty string."""
    named = function if hasattr(function, "__qualname__") else type(function)
    try:
        return inspect.getsource(named)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest() if code else ""


@contextmanager
def never_skipped(where: str) -> Iterator[None]:
    """Turn what would skip, xfail or end a test into a SuiteError: a function of a suite's must not switch its guard off.

    ``pytest.skip`` (thus ``pytest.importorskip``), ``pytest.xfail`` and ``sys.exit`` raise exceptions that are no ``Exception``;
    pytest takes unittest's ``SkipTest`` for a skip, too.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        kind = type(error).__name__
        if (isinstance(error, Exception) and kind != "SkipTest") or kind == "Failed":  # these fail the test as they are
            raise
        raise SuiteError(
            f"{where}: the suite's own code raised {kind}: {error}; a guard cannot be skipped from within: "
            "mark its test (@pytest.mark.skipif), or make what is missing available"
        ) from error


def load_function(path: str, base_dir: Path, root: Path | None = None) -> Callable[..., Any]:
    """Load ``"module:function"`` from a file in ``base_dir``, else from an importable module.

    Args:
        root: if given, only modules in this directory are imported: a YAML suite may be untrusted, and must not reach
            ``os:system``.

    Raises:
        SuiteError: no such module or function, it is outside ``root``, or its import fails.
    """
    if not is_function_path(path):
        raise SuiteError(f"{path!r} does not have the form 'module:function'")
    module_name, _, names = path.partition(":")
    found: Any = _module(module_name, base_dir, root)
    module = found
    for part in names.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        functions = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise SuiteError(
            f"{module_name} has no function {names!r}{did_you_mean(names, functions)}; it has: {', '.join(functions):.200}"
        )
    return found  # type: ignore[no-any-return]


def _module(name: str, base_dir: Path, root: Path | None) -> ModuleType:
    file = base_dir.joinpath(*name.split(".")).with_suffix(".py")
    try:
        if file.is_file():
            _inside(file, root, name)
            return importlib.import_module(name) if _is_found(name, file, base_dir) else _from_file(name, file)
        if root is not None:
            _inside(_file_of(name), root, name)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise SuiteError(f"no module {name!r}: it cannot be imported, and there is no file {file}") from None
        raise SuiteError(f"importing {name!r} failed: {error}") from error
    except SuiteError:
        raise
    except Exception as error:
        raise SuiteError(f"importing {name!r} failed: {type(error).__name__}: {error}") from error


def _is_found(name: str, file: Path, base_dir: Path) -> bool:
    """Whether ``import name`` gives this very file, so that the app's other modules share the same module."""
    try:
        top = _file_of(name)
        if top is None or not top.resolve().is_relative_to(base_dir.resolve()):
            return False
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file.resolve()


def _file_of(name: str) -> Path | None:
    """Location of a module's top-level package, found without running any of its code."""
    top = name.partition(".")[0]
    known = sys.modules.get(top)
    spec = known.__spec__ if known is not None else importlib.util.find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    paths = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return Path(paths[0]) if paths and paths[0] else None


def _inside(file: Path | None, root: Path | None, name: str) -> None:
    if root is not None and (file is None or not file.resolve().is_relative_to(root.resolve())):
        raise SuiteError(
            f"the module {name!r} is outside the project {root}; a YAML suite may only run the project's own code"
        )


def _from_file(name: str, file: Path) -> ModuleType:
    """Import this very file, even if another module of the same name is imported (two suites' ``graders.py``)."""
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) and Path(str(known.__file__)).resolve() == file.resolve():
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{file} cannot be imported", name=name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
