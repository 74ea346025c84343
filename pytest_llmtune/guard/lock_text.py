"""The head of a lock file as YAML for people: blocks where one reads, one line where one compares."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["head"]


class _Line(dict[str, Any]):
    """A mapping written on one line."""


def head(data: Mapping[str, Any]) -> str:
    """YAML of everything but the examples."""
    import yaml

    study = data.get("study")
    shown = {
        **data,
        "metrics": {name: _filled(figure) for name, figure in data["metrics"].items()},
        "prices": {model: _Line(_numbers(price)) for model, price in data["prices"].items()},
        "study": study and _study(study),
    }
    text: str = yaml.dump(shown, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=100_000)
    return text


def _filled(figure: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if figure is None else _Line({name: value for name, value in figure.items() if value is not None})


def _numbers(price: Mapping[str, str]) -> dict[str, Any]:
    return {name: _Number(amount) for name, amount in price.items()}


def _study(study: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not known; the trials last, one a line."""
    known = {name: value for name, value in study.items() if value is not None and name != "trials"}
    figures: dict[str, Any] = {name: _filled(known[name]) for name in ("tuning", "heldout") if name in known}
    money = {name: _Number(known[name]) for name in _MONEY & known.keys()}
    return {**known, **money, **figures, "trials": [_trial(trial) for trial in study["trials"]]}


def _trial(trial: Mapping[str, Any]) -> _Line:
    money = {name: _Number(trial[name]) for name in _MONEY & trial.keys() if trial[name] is not None}
    return _Line({**trial, **money, "config": _Line(trial["config"]), "score": _filled(trial["score"])})


_MONEY = {"spent", "optimization_budget", "inference_budget", "inference_cost"}


class _Number(str):
    """An amount written in digits, without quotes; the text of a finite ``Decimal``."""

    __slots__ = ()


@cache
def _dumper() -> Any:
    """A safe dumper with our two styles; made on first use, because yaml must not be imported before."""
    import yaml

    class HeadDumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml names it
            return True  # equal values are written twice: a lock file holds no aliases

    def line(dumper: yaml.SafeDumper, data: _Line) -> yaml.Node:
        return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)

    def number(dumper: yaml.SafeDumper, data: _Number) -> yaml.Node:
        digits = format(Decimal(data), "f")
        digits = digits.rstrip("0").rstrip(".") if "." in digits else digits  # 0.10 and 0.1 are the same amount
        if Decimal(digits) != Decimal(repr(float(digits))):  # a YAML reader would lose digits: text keeps them
            return dumper.represent_scalar("tag:yaml.org,2002:str", digits)
        return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in digits else 'int'}", digits)

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
        odd = any(character in data for character in "\x85\u2028\u2029\ufeff")  # line ends that other styles swallow
        style = '"' if odd else "|" if "\n" in data.strip() else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    HeadDumper.add_representer(_Line, line)
    HeadDumper.add_representer(_Number, number)
    HeadDumper.add_representer(str, text)
    return HeadDumper
