"""Generate type annotations from the key table: ``python -m pytest_llmtune.suite.signature``.

The result is ``suite/typed.py``, for type checkers and editors; nothing imports it at run time.
"""

from __future__ import annotations

from pathlib import Path

from pytest_llmtune.suite.domains import LISTS, PARAMETERS, TEMPERATURE_OR_TOP_P, Bounds
from pytest_llmtune.suite.keys import KEYS, METRICS, REQUIRED, ROW_RATE

PATH = Path(__file__).with_name("typed.py")

_HEAD = '''"""Annotations of a suite's keys and of OpenAI's parameters. Generated: ``python -m pytest_llmtune.suite.signature``."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict

if TYPE_CHECKING:
    from pytest_llmtune.suite.domains import Domain
    from pytest_llmtune.suite.propose import Propose

Dollars = Decimal | float | str
Number = Decimal | float | str
Threshold = Number | Mapping[str, Number] | None
"""The guard fails where a metric is below its minimum or above its maximum; a mapping gives a limit per group."""


'''


def text() -> str:
    """The module's source text."""
    keys = []
    for key in KEYS:
        annotation = key.type or key.form.type
        keys.append(
            (key.name, f"Required[{annotation}]" if key.default is REQUIRED else f"{annotation} | None", key.doc)
        )
    parameters = [(TEMPERATURE_OR_TOP_P, "Any", "A choice of branches: a temperature or a top_p.")]
    parameters += [(name, _searched(name, bounds), _doc(bounds)) for name, bounds in PARAMETERS.items()]
    limits = [(f"{side}_{name}", "Threshold", "") for name in (*METRICS, ROW_RATE) for side in ("min", "max")]
    plain = [("model", "str", "The requested model.")]
    plain += [(name, _plain(name, bounds), _doc(bounds)) for name, bounds in PARAMETERS.items()]
    return "\n\n".join(
        [
            _HEAD.rstrip() + "\n",
            _typed_dict("SuiteKeys", "The keys of a suite.", [*keys, *parameters, *limits]),
            _typed_dict("Parameters", "OpenAI parameters of one request.", plain),
        ]
    )


def _typed_dict(name: str, doc: str, fields: list[tuple[str, str, str]]) -> str:
    lines = [f"class {name}(TypedDict, total=False):", f'    """{doc}"""', ""]
    for key, annotation, text in fields:
        lines += [f"    {key}: {annotation.replace('None | None', 'None')}", *([f'    """{text}"""'] if text else [])]
    return "\n".join([*lines, ""])


def _plain(name: str, bounds: Bounds | None) -> str:
    if bounds is None:
        return "Sequence[Any] | None" if name in LISTS else "Any"
    return "int | None" if bounds.whole else "float | None"


def _searched(name: str, bounds: Bounds | None) -> str:
    if bounds is None or name in LISTS:
        return "Any"
    number = "int" if bounds.whole else "float"
    return f"{number} | Domain | Mapping[str, Sequence[Any]] | Sequence[{number} | None] | None"


def _doc(bounds: Bounds | None) -> str:
    return "" if bounds is None else f"{str(bounds).capitalize()}."  # else OpenAI's documentation says it


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
