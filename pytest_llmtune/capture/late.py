"""Patch libraries when the program imports them, instead of importing them to patch them."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


@contextmanager
def when_imported(actions: Mapping[str, Callable[[Any], None]]) -> Iterator[None]:
    """In this context, call each module's action: now if it is imported, else on import."""
    finder = _Finder({name: action for name, action in actions.items() if name not in sys.modules})
    if finder.actions:
        sys.meta_path.insert(0, finder)
    try:
        for name, action in actions.items():
            if name not in finder.actions:
                action(sys.modules[name])
        yield
    finally:
        finder.actions = {}
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds modules through the other finders, and runs an action after their execution."""

    def __init__(self, actions: Mapping[str, Callable[[Any], None]]) -> None:
        self.actions = actions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.actions:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if action := self.actions.get(fullname):
                action(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
