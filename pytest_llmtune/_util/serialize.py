"""Convert dataclasses to JSON data and back, with strict type checks."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Literal, TypeVar, Union

from pytest_llmtune._util.text import parse_number, shown

T = TypeVar("T")
Where = str | None
"""Path of a value in the document; None: not needed, which saves building the paths in a large one."""
Reader = Callable[[Any, Where], Any]


def to_plain(value: Any) -> Any:
    """Convert a value to JSON data: dataclasses become mappings, tuples lists, ``Decimal`` strings.

    Anything that JSON cannot represent (dates, NaN, bytes, other objects), and every key, becomes its ``str``.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if names := _field_names(type(value)):  # type: ignore[arg-type]  # mypy: a type is no Hashable
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [to_plain(item) for item in value]
    return str(value)


def fields_of(value: Any, **options: Any) -> Any:
    """The fields of a dataclass, a pydantic model (``options`` are its ``model_dump``'s) or a named tuple; else the value."""
    if isinstance(value, type):
        return value
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(**options)
    return value._asdict() if callable(getattr(value, "_asdict", None)) else value


def strict_decoder(*, nan: bool = False) -> json.JSONDecoder:
    """A decoder that refuses duplicate keys, numbers that no float holds, and NaN and infinity unless ``nan``."""

    def finite(text: str) -> float:
        if math.isinf(value := float(text)):
            raise ValueError(f"{text} is too large for a number")
        return value

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"duplicate key {shown(next(name for name in names if names.count(name) > 1))}")
        return found

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    return json.JSONDecoder(parse_float=finite, object_pairs_hook=distinct, parse_constant=None if nan else refuse)


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    """Of a dataclass, but for those with the metadata ``plain: False``; of any other type none."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return tuple(field.name for field in fields if field.metadata.get("plain", True))


def from_plain(kind: type[T], data: Any, where: str = "") -> T:
    """Read a value of type ``kind`` from JSON data written by ``to_plain``.

    Raises:
        ValueError: the data have another shape; the message starts with the path, such as ``examples[3].votes``.
    """
    reader: Reader = _reader(kind)  # type: ignore[arg-type]  # mypy: a type is no Hashable
    value: T
    try:
        value = reader(data, None)
    except ValueError:
        value = reader(data, where)  # again, to name the path of the error
    return value


def _fail(where: Where, expected: str, data: Any) -> typing.NoReturn:
    shown = repr(data)
    raise ValueError(f"{where or 'the document'} is {shown[:80]}{'...' * (len(shown) > 80)}, not {expected}")


@cache
def _reader(kind: Any) -> Reader:
    if kind in _SCALARS:
        return _SCALARS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _literal(arguments)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin in (tuple, Sequence):
        return _tuple(arguments if origin is tuple else (*arguments, Ellipsis))
    if origin is Mapping:
        return _mapping(arguments[1])
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind)
    raise TypeError(f"no plain form for {kind!r}")


def _exactly(kind: type, expected: str) -> Reader:
    def read(data: Any, where: Where) -> Any:
        return data if type(data) is kind else _fail(where, expected, data)

    return read


def _float(data: Any, where: Where) -> float:
    if isinstance(data, bool) or not isinstance(data, (int, float, str)):
        _fail(where, "a number", data)
    try:
        return float(data)
    except (ValueError, OverflowError):
        _fail(where, "a number", data)


def _decimal(data: Any, where: Where) -> Decimal:
    amount = parse_number(data)
    return _fail(where, "an amount", data) if amount is None else amount


_SCALARS: dict[Any, Reader] = {
    Any: lambda data, _: data,
    str: _exactly(str, "text"),
    int: _exactly(int, "a whole number"),
    bool: _exactly(bool, "true or false"),
    float: _float,
    Decimal: _decimal,
}


def _literal(values: tuple[Any, ...]) -> Reader:
    def read(data: Any, where: Where) -> Any:
        return data if data in values else _fail(where, f"one of {', '.join(map(str, values))}", data)

    return read


def _union(kinds: tuple[Any, ...]) -> Reader:
    """``X | None``, the only supported union."""
    (kind,) = (kind for kind in kinds if kind is not type(None))
    inner = _reader(kind)

    def read(data: Any, where: Where) -> Any:
        return None if data is None else inner(data, where)

    return read


def _tuple(kinds: tuple[Any, ...]) -> Reader:
    readers = [_reader(kind) for kind in kinds if kind is not Ellipsis]
    fixed = Ellipsis not in kinds

    def read(data: Any, where: Where) -> tuple[Any, ...]:
        if not isinstance(data, list) or (fixed and len(data) != len(readers)):
            _fail(where, f"a list of {len(readers)}" if fixed else "a list", data)
        if where is None and not fixed:
            (reader,) = readers
            return tuple([reader(item, None) for item in data])
        each = readers if fixed else readers * len(data)
        return tuple(
            reader(item, None if where is None else f"{where}[{index}]")
            for index, (reader, item) in enumerate(zip(each, data, strict=True))
        )

    return read


def _mapping(kind: Any) -> Reader:
    inner = _reader(kind)

    def read(data: Any, where: Where) -> dict[str, Any]:
        if not isinstance(data, dict):
            _fail(where, "a mapping", data)
        if where is None:
            return {str(key): inner(item, None) for key, item in data.items()}
        return {str(key): inner(item, f"{where}.{key}".lstrip(".")) for key, item in data.items()}

    return read


def _dataclass(kind: type) -> Reader:
    hints = typing.get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind) if field.init}
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def read(data: Any, where: Where) -> Any:
        if not isinstance(data, dict):
            _fail(where, "a mapping", data)
        if not needed <= data.keys():
            raise ValueError(f"{where or 'the document'} lacks {', '.join(sorted(needed - data.keys()))}")
        if not data.keys() <= readers.keys():
            unknown = ", ".join(sorted(map(str, data.keys() - readers.keys())))
            raise ValueError(f"{where or 'the document'} has the unknown {unknown}")
        if where is None:
            return kind(**{name: readers[name](item, None) for name, item in data.items()})
        prefix = f"{where}." if where else ""
        return kind(**{name: readers[name](item, prefix + name) for name, item in data.items()})

    return read
