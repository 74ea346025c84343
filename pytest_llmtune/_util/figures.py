"""Figures as people read them: as many digits as tell two numbers apart, and no more."""

from __future__ import annotations

from decimal import Decimal

__all__ = ["apart", "counted", "dollars", "interval", "number"]


def number(value: float | Decimal, digits: int = 4) -> str:
    """``value`` with at most ``digits`` decimals; tiny values keep two digits that count."""
    value = float(value)
    if value and abs(value) < 10**-digits:
        return f"{value:.2g}"
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(amount: float | Decimal, digits: int = 4) -> str:
    """USD with at least cents and at most ``digits`` digits that count: ``$0.0003125``, ``$12.40``."""
    value = Decimal(str(amount))
    if not value:
        return "$0"
    places = max(2, digits - 1 - value.adjusted())
    whole, _, fraction = f"{value:.{places}f}".partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


def apart(first: float | Decimal, second: float | Decimal, *, money: bool = False) -> tuple[str, str]:
    """Both numbers with as many digits as it takes to see that they differ."""
    show = dollars if money else number
    for digits in (4, 6, 9, 12):
        shown = show(first, digits), show(second, digits)
        if shown[0] != shown[1] or float(first) == float(second):
            break
    return shown


def interval(low: float, high: float) -> str:
    """``0.58 to 0.92``."""
    return f"{number(low, 3)} to {number(high, 3)}"


def counted(count: int, noun: str) -> str:
    """``1 example``, ``2 examples``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
