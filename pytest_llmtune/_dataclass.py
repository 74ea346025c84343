"""A ``dataclass`` like the standard library's, whose methods are generated on first use.

``dataclasses.dataclass`` compiles up to six methods of each class at import, half a millisecond; most runs make no
value of most classes. Here ``__init__`` is compiled on first use, and the other methods are shared.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError, field, replace
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass

__all__ = ["dataclass", "field", "replace"]


if not TYPE_CHECKING:

    def dataclass(*, frozen=False, slots=False, kw_only=False, init=True, repr=True, eq=True):  # noqa: A002
        """Like ``dataclasses.dataclass``, without ``order``."""

        def made(kind: type) -> type:
            parents = [getattr(base, "__dataclass_params__", None) for base in kind.__mro__[1:]]
            kind.__doc__ = kind.__doc__ or kind.__name__  # else the standard library spells its signature out
            of_frozen = any(parent is not None and parent.frozen for parent in parents)
            kind = dataclasses.dataclass(
                init=False, repr=False, eq=False, frozen=of_frozen, slots=slots, kw_only=kw_only
            )(kind)
            own = vars(kind)
            if init and "__init__" not in own:
                kind.__init__ = _Init(kind, frozen=frozen)
            if repr and "__repr__" not in own:
                kind.__repr__ = _repr
            if frozen and not of_frozen:
                kind.__dataclass_params__.frozen = True  # those who derive from it look it up
                kind.__setattr__, kind.__delattr__ = _refusing(kind)
                if slots and "__getstate__" not in own:
                    kind.__getstate__, kind.__setstate__ = _getstate, _setstate
            if eq:
                values = _values([item.name for item in dataclasses.fields(kind) if item.compare])
                if own.get("__hash__") is None:
                    kind.__hash__ = _hashing(values) if frozen else None
                if "__eq__" not in own:
                    kind.__eq__ = _equality(values)
            return kind

        return made


class _Factory:
    """Default of a field with a factory."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


class _Init:
    """Descriptor that generates ``__init__`` on first access, and is replaced by it."""

    def __init__(self, kind: type, *, frozen: bool) -> None:
        self._kind, self._frozen = kind, frozen

    def __get__(self, instance: object, owner: type) -> Any:
        written = _written(self._kind, frozen=self._frozen)
        if isinstance(vars(self._kind)["__init__"], _Init):
            self._kind.__init__ = written  # type: ignore[misc]
        return written.__get__(instance, owner)


def _written(kind: type, *, frozen: bool) -> Callable[..., None]:
    """``__init__`` of a dataclass: parameters in the order of fields, keyword-only ones last."""
    names: dict[str, Any] = {"_set": object.__setattr__, "_FACTORY": _FACTORY}
    plain, keyword, lines = ["self"], list[str](), list[str]()
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(kind)
    for item in fields:
        name, value, parameter = item.name, item.name, item.name
        if item.default_factory is not MISSING:
            names[f"_new_{name}"] = item.default_factory
            parameter = f"{name}=_FACTORY"
            value = f"_new_{name}() if {name} is _FACTORY else {name}" if item.init else f"_new_{name}()"
        elif item.default is not MISSING:
            names[f"_default_{name}"] = item.default
            parameter = f"{name}=_default_{name}"
            value = name if item.init else f"_default_{name}"
        elif not item.init:
            continue
        if item.init:
            (keyword if item.kw_only else plain).append(parameter)
        lines.append(f" _set(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
    if hasattr(kind, "__post_init__"):
        lines.append(" self.__post_init__()")
    parameters = ", ".join([*plain, *(["*", *keyword] if keyword else [])])
    exec("\n".join([f"def __init__({parameters}):", *(lines or [" pass"])]), names)  # noqa: S102  # names of fields
    written: Callable[..., None] = names["__init__"]
    written.__qualname__, written.__module__ = f"{kind.__qualname__}.__init__", kind.__module__
    written.__annotations__ = {item.name: item.type for item in fields if item.init} | {"return": None}
    return written


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{item.name}={getattr(self, item.name)!r}" for item in dataclasses.fields(self) if item.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _values(names: list[str]) -> Callable[[Any], Any]:
    """Function that returns the values to compare and hash."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _equality(values: Callable[[Any], Any]) -> Callable[[Any, object], Any]:
    def equal(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return equal


def _hashing(values: Callable[[Any], Any]) -> Callable[[Any], int]:
    return lambda self: hash(values(self))


def _refusing(kind: type) -> tuple[Callable[[Any, str, Any], None], Callable[[Any, str], None]]:
    """``__setattr__`` and ``__delattr__`` of a frozen class; subclasses may have additional attributes."""

    def frozen(self: Any, name: str) -> bool:
        return type(self) is kind or name in kind.__dataclass_fields__  # type: ignore[attr-defined]

    def setting(self: Any, name: str, value: Any) -> None:
        if frozen(self, name):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(kind, self).__setattr__(name, value)  # type: ignore[arg-type]

    def deleting(self: Any, name: str) -> None:
        if frozen(self, name):
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(kind, self).__delattr__(name)  # type: ignore[arg-type]

    return setting, deleting


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, item.name) for item in dataclasses.fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for item, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, item.name, value)
