"""Our ``dataclass`` against the standard library's, on the same classes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any, ClassVar

import pytest

from pytest_llmtune import _dataclass
from pytest_llmtune._dataclass import dataclass, field, replace


def classes(decorator: Any) -> tuple[type, ...]:
    """The kinds of classes that the package has, made by this decorator."""

    @decorator(frozen=True, slots=True)
    class Plain:
        """Doc."""

        kind: ClassVar[str] = "plain"
        first: int
        second: str = "b"
        items: list[int] = field(default_factory=list)
        hidden: float = field(default=0.5, compare=False, repr=False)

    @decorator(frozen=True, slots=True)
    class One:
        only: int

    @decorator(slots=True)
    class Mutable:
        value: int
        made: dict[str, int] = field(init=False, default_factory=dict)
        given: int = field(init=False)

        def __post_init__(self) -> None:
            self.given = self.value + 1

    @decorator(frozen=True, kw_only=True)
    class Base:
        reference: str = "answer"

        def __post_init__(self) -> None:
            if self.reference == "wrong":
                raise ValueError("wrong")

    @decorator(frozen=True, kw_only=True)
    class Derived(Base):
        options: tuple[str, ...] = ()
        more: int = 3

    @decorator(slots=True, eq=False)
    class ByIdentity:
        value: int

    @decorator(frozen=True, slots=True, init=False, repr=False)
    class Own:
        value: int

        def __init__(self) -> None:
            object.__setattr__(self, "value", 7)

        def __repr__(self) -> str:
            return "Own!"

    return Plain, One, Mutable, Base, Derived, ByIdentity, Own


@pytest.fixture(scope="module")
def twins() -> list[tuple[type, type]]:
    return list(zip(classes(dataclass), classes(dataclasses.dataclass), strict=True))


CALLS: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "Plain": [((1,), {}), ((1, "c", [2]), {}), ((), {"first": 3, "hidden": 1.5}), ((), {}), ((1,), {"third": 2})],
    "One": [((1,), {}), ((2,), {}), ((), {"only": 1})],
    "Mutable": [((1,), {}), ((2,), {}), ((1, 2), {})],
    "Base": [((), {}), ((), {"reference": "wrong"}), (("answer",), {})],
    "Derived": [((), {}), ((), {"options": ("a",), "reference": "x"}), ((), {"reference": "wrong"})],
    "ByIdentity": [((1,), {}), ((1,), {})],
    "Own": [((), {}), ((1,), {})],
}


def said(kind: type, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """A value, or the error that making it raised."""
    try:
        return kind(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        return type(error), str(error)


def test_what_is_made_is_the_same(twins: list[tuple[type, type]]) -> None:
    for ours, theirs in twins:
        made = [(said(ours, *call), said(theirs, *call)) for call in CALLS[ours.__name__]]
        for mine, other in made:
            assert (mine if isinstance(mine, tuple) else dataclasses.asdict(mine)) == (
                other if isinstance(other, tuple) else dataclasses.asdict(other)
            )
            assert isinstance(mine, tuple) or ours.__name__ == "ByIdentity" or repr(mine) == repr(other)
        values = [(mine, other) for mine, other in made if not isinstance(mine, tuple)]
        for mine, other in values:
            assert [mine == again for again, _ in values] == [other == again for _, again in values], ours
            assert mine != other
            assert copy.copy(mine) == mine or ours.__name__ == "ByIdentity"
        names = ("__match_args__", "__module__")
        assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
        assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
        assert hasattr(ours, "__slots__") == hasattr(theirs, "__slots__")
        assert (ours.__hash__ is None) == (theirs.__hash__ is None)
        assert hash(ours) == hash(ours)


def test_frozen_values_stay_and_hash_by_what_they_compare(twins: list[tuple[type, type]]) -> None:
    plain, derived = twins[0][0], twins[4][0]
    one = plain(1, items=())
    assert hash(one) == hash(replace(one, hidden=9.0))
    assert replace(one, second="z").second == "z"
    for value in (one, derived()):
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field"):
            setattr(value, dataclasses.fields(value)[0].name, 2)
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field"):
            delattr(value, dataclasses.fields(value)[0].name)

    class Loose(derived):
        """Not a dataclass itself."""

    loose = Loose()
    loose.extra = 1
    assert loose.extra == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        loose.more = 2

    @dataclasses.dataclass(frozen=True)
    class Users(derived):
        own: int = 1

    assert Users(own=2, more=4) == Users(own=2, more=4)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a worker is sent."""

    value: int
    also: str = ""


def test_values_are_sent_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(Sent(1, "a"))) == Sent(1, "a")  # noqa: S301
    assert copy.deepcopy(Sent(2)) == Sent(2)


def test_a_class_with_few_values_costs_no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[type] = []
    real = _dataclass._written
    monkeypatch.setattr(_dataclass, "_written", lambda kind, **rest: written.append(kind) or real(kind, **rest))

    @dataclass(frozen=True, slots=True)
    class Rare:
        value: int

    assert [Rare(1), Rare(2)] == [Rare(1), Rare(2)]
    assert written == []
    assert {Rare(value) for value in range(20)} == {Rare(value) for value in range(20)}
    assert written == [Rare]


@pytest.mark.parametrize("few", [0, 1_000])
def test_values_are_the_same_compiled_or_not(
    few: int, twins: list[tuple[type, type]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dataclass._Init, "few", few)
    test_what_is_made_is_the_same([(ours, theirs) for ours, (_, theirs) in zip(classes(dataclass), twins, strict=True)])
