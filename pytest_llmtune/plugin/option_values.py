"""From an option's text to its value; each raises ValueError with the valid values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["boolean", "dollars", "engine", "lines", "names", "number", "one_of", "part", "prices", "shard"]


_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def boolean(text: str) -> bool:
    if text.strip().lower() in _TRUE:
        return True
    if text.strip().lower() in _FALSE:
        return False
    raise ValueError(f"is {text!r}; valid: {', '.join(_TRUE)}, {', '.join(_FALSE[1:])}")


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is {text!r}; valid: {', '.join(choices)}")
        return text

    return parse


def number(kind: Callable[[str], Any], unit: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except (ValueError, ArithmeticError):
            value = None
        if value is None or not 0 < value < 1e12:
            raise ValueError(f"is {text!r}; valid: a number of {unit} above 0")
        return value

    return parse


def dollars(text: str) -> Any:
    from decimal import Decimal

    return number(Decimal, "USD")(text)


def part(text: str) -> Any:
    from decimal import Decimal

    found = number(Decimal, "parts")(text)
    if found > 1:
        raise ValueError(f"is {text!r}; valid: a number above 0, at most 1")
    return found


def shard(text: str) -> Any:
    from pytest_llmtune.guard.sharding import Shard

    return Shard.parse(text)


def engine(text: str) -> str | None:
    """The address of a Ray cluster, empty for Ray's own choice; None for this process."""
    kind, _, address = text.partition("://")
    if text == "local":
        return None
    if kind != "ray" or text.endswith("://"):
        raise ValueError(f"is {text!r}; valid: local, ray, ray://HOST:PORT")
    return address


def prices(lines: str) -> dict[str, dict[str, str]]:
    """One model a line: ``MODEL input=USD output=USD [cached_input=USD]``, per 1M tokens."""
    prices: dict[str, dict[str, str]] = {}
    for line in filter(None, (line.strip() for line in lines.splitlines())):
        model, *pairs = line.split()
        price = dict(pair.partition("=")[::2] for pair in pairs)
        if not {"input", "output"} <= price.keys() <= {"input", "output", "cached_input"}:
            raise ValueError(
                f"has the line {line!r}; valid: MODEL input=USD output=USD [cached_input=USD] per 1M tokens"
            )
        prices[model] = price
    return prices


def lines(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.splitlines())))


def names(text: str) -> tuple[str, ...]:
    return lines(text.replace(",", "\n"))
