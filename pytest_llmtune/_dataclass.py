"""A ``dataclass`` like the standard library's that costs little at import and nothing until it is used.

``dataclasses.dataclass`` compiles up to six methods of each class, half a millisecond, and takes another tenth of one to
find out that annotations in quotes are no ``ClassVar``. Here ``__init__`` is compiled once a class has several values, and
the other methods are shared. Annotations must be strings (``from __future__ import annotations``).
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import MISSING, Field, FrozenInstanceError, field, replace
from functools import partial
from operator import attrgetter
from reprlib import recursive_repr
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from dataclasses import dataclass

__all__ = ["dataclass", "field", "replace"]


if not TYPE_CHECKING:

    def dataclass(*, frozen=False, slots=False, kw_only=False, init=True, repr=True, eq=True):  # noqa: A002
        """Like ``dataclasses.dataclass``, without ``order``."""

        def decorate(kind: type) -> type:
            inherited = [getattr(base, "__dataclass_fields__", {}) for base in kind.__mro__[-1:0:-1]]
            found = {
                name: item
                for fields in (*inherited, _own_fields(kind, kw_only=kw_only))
                for name, item in fields.items()
            }
            if slots:
                kind = _with_slots(kind, found)
            kind.__dataclass_fields__, kind.__dataclass_params__ = found, _PARAMS[frozen]
            own = vars(kind)
            if "__match_args__" not in own:
                kind.__match_args__ = tuple(item.name for item in found.values() if item.init and not item.kw_only)
            if init and "__init__" not in own:
                kind.__init__ = _Init(kind, frozen=frozen)
            if repr and "__repr__" not in own:
                kind.__repr__ = _repr
            if frozen:
                kind.__setattr__, kind.__delattr__ = _refusing(kind)
            if frozen and slots and "__getstate__" not in own:
                kind.__getstate__, kind.__setstate__ = _getstate, _setstate
            if eq:
                values = _values([item.name for item in found.values() if item.compare])
                if own.get("__hash__") is None:
                    kind.__hash__ = _hashing(values) if frozen else None
                if "__eq__" not in own:
                    kind.__eq__ = _equality(values)
            return kind

        return decorate


_STANDARD: Any = dataclasses.make_dataclass(
    "Standard", ["only"], namespace={"__doc__": "One."}, init=False, repr=False, eq=False
)
_PARAMS = {frozen: copy.copy(_STANDARD.__dataclass_params__) for frozen in (False, True)}
"""What the standard library looks up in a class that another one derives from."""
_PARAMS[True].frozen = True


def _own_fields(kind: type, *, kw_only: bool) -> dict[str, Field[Any]]:
    """The fields that the class itself declares; defaults become attributes of the class."""
    found: dict[str, Field[Any]] = {}
    for name, text in kind.__annotations__.items():
        if text.startswith("ClassVar"):
            continue
        default: Any = getattr(kind, name, MISSING)
        item: Any = default
        if not isinstance(default, Field):
            item = field(default=MISSING if isinstance(default, MemberDescriptorType) else default)
        elif default.default is MISSING:
            delattr(kind, name)
        else:
            setattr(kind, name, default.default)
        item.name, item.type = name, text
        item.kw_only = kw_only if item.kw_only is MISSING else item.kw_only
        item._field_type = _STANDARD.__dataclass_fields__["only"]._field_type  # noqa: SLF001
        found[name] = item
    return found


def _with_slots(kind: type, names: Iterable[str]) -> type:
    """The class again: slots cannot be added to one."""
    inherited = {slot for base in kind.__mro__[1:] for slot in getattr(base, "__slots__", ())}
    content = {key: value for key, value in vars(kind).items() if key not in {*names, "__dict__", "__weakref__"}}
    content["__slots__"] = tuple(name for name in names if name not in inherited)
    created = type(kind)(kind.__name__, kind.__bases__, content)
    created.__qualname__ = kind.__qualname__
    return created


class _Factory:
    """Default of a field with a factory."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


class _Init:
    """Descriptor in place of ``__init__``: assigns the first values one by one, and then compiles one that replaces it."""

    few = 8
    """Values that are created faster than a function is compiled."""

    def __init__(self, kind: type, *, frozen: bool) -> None:
        self._kind, self._frozen, self._made = kind, frozen, 0

    def __get__(self, instance: object, owner: type) -> Any:
        self._made += 1
        if isinstance(instance, self._kind) and self._made <= self.few:  # inspect asks for it with the class
            return partial(self._assign, instance)
        return self._compiled().__get__(instance, owner)

    def _compiled(self) -> Callable[..., None]:
        written = _written(self._kind, frozen=self._frozen)
        if isinstance(vars(self._kind)["__init__"], _Init):
            self._kind.__init__ = written  # type: ignore[misc]
        return written

    def _assign(self, instance: Any, /, *arguments: Any, **named: Any) -> None:
        items = [item for item in dataclasses.fields(self._kind) if item.init]
        plain = [item.name for item in items if not item.kw_only]
        values = {**dict(zip(plain, arguments, strict=False)), **named}
        needed = {item.name for item in items if item.default is MISSING and item.default_factory is MISSING}
        if len(values) < len(arguments) + len(named) or not needed <= values.keys() <= {item.name for item in items}:
            self._compiled()(instance, *arguments, **named)  # raises, as Python does
            return
        for item in dataclasses.fields(self._kind):
            if item.name in values:
                value = values[item.name]
            elif item.default_factory is not MISSING:
                value = item.default_factory()
            elif item.default is not MISSING:
                value = item.default
            else:
                continue
            object.__setattr__(instance, item.name, value)
        if hasattr(instance, "__post_init__"):
            instance.__post_init__()


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
