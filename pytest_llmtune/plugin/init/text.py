"""The text of a starter suite, in YAML and in Python."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune._util.text import one_line

if TYPE_CHECKING:
    from pytest_llmtune.plugin.init.guess import Guess


MODELS = ("gpt-4o-mini", "gpt-4o")
_TUNED, _GUARDED = 20, 200
_DOMAINS = ("uniform", "randint", "lograndint")
_WIDTH = 88
_PLAIN = lazy_regex(r"(\.\./)*[A-Za-z][\w./-]*")
_MAGIC = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def keys(guess: Guess, dataset: str, rows: int, *, drop: bool = False) -> dict[str, Any]:
    """The suite's keys, common to both forms; ``dataset`` relative to the suite, ``drop``: whether to leave out duplicates."""
    tuned = min(_TUNED, max(1, rows // 2))
    question = "\n".join(f"{name}: {{{name}}}" for name in guess.fields)
    if len(guess.fields) == 1:
        question = f"{{{guess.fields[0]}}}"
    prompts = [f"{question}\n{ending}".strip() for ending in (guess.ending, f"Think step by step. {guess.ending}")]
    found: dict[str, Any] = {
        "dataset": dataset,
        "tune_size": tuned,
        "test_size": min(_GUARDED, max(1, rows - tuned)),
        "prompt": prompts,
        "model": list(MODELS),
        "temperature": {"uniform": [0, 1]},
        "n": {"randint": [1, 6]},
        "max_tokens": {"lograndint": [guess.longest // 10, guess.longest]},
        "grader": guess.grader,
        "inference_budget": 0.002,
        "optimization_budget": 1.0,
        "num_samples": 20,
        "max_drop": 0.05,
    }
    return found | ({"duplicates": "drop"} if drop else {})


def _comments(guess: Guess) -> dict[str, str]:
    """Comments above keys; keys with self-explanatory names have none."""
    return {
        "dataset": "Rows; a path from this file.",
        "tune_size": "Rows to search on, then rows that the guard replays in every run of pytest.",
        "duplicates": "Some rows ask the same: a row to guard on must not be one that was tuned on.",
        "prompt": "Templates over the columns of the data, to choose from; literal braces are doubled.",
        "model": "The search space: a list is a choice; the upper bounds of randint and lograndint are excluded.",
        "grader": f"The column {one_line(guess.reference, 80)!r} holds the right answers; {guess.why}.",
        "inference_budget": "USD per row at most, on average; and for the whole search.",
        "max_drop": (
            "The guard fails when success_vote falls by more than this below the baseline. Once the first search has\n"
            "shown what can be reached, add a floor as well: min_success_vote."
        ),
    }


def _above(key: str, comments: dict[str, str], indent: str = "") -> list[str]:
    """The lines above a key."""
    return ["", *(f"{indent}# {line}" for line in comments[key].splitlines())] if key in comments else []


def yaml_form(name: str, guess: Guess, found: dict[str, Any], *, twin: str) -> str:
    """``NAME.llmtune.yaml``, with plain scalars, and JSON, which is valid YAML, for everything else."""
    lines = [
        f"# Suite {name}, which pytest collects. {twin} is the same in Python: keep one of the two.",
        "# pytest --llm-tune-dry-run    what a search may cost at most; sends nothing",
        "# pytest --llm-tune            searches; writes the lock file and the recording: commit both",
        "# pytest                       guards it from then on, offline",
        "",
        f"name: {_yaml(name)}",
    ]
    for key, value in found.items():
        items = [f"  - {_yaml(one)}" for one in value] if isinstance(value, list) else []
        lines += [*_above(key, _comments(guess)), f"{key}:" if items else f"{key}: {_yaml(value)}", *items]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    match value:
        case dict():
            return f"{{{', '.join(f'{_yaml(key)}: {_yaml(one)}' for key, one in value.items())}}}"
        case list():
            return f"[{', '.join(map(_yaml, value))}]"
        case str() if _PLAIN.fullmatch(value) and value.lower() not in _MAGIC:
            return value
    return _json(value)


def python_form(test: str, guess: Guess, found: dict[str, Any], *, twin: str) -> str:
    """``test_NAME.py``: a marker with the same keys."""
    lines = [
        f'"""The same suite as {twin}, in Python: keep one of the two."""',
        "",
        "import pytest",
        f"from pytest_llmtune import {', '.join(sorted(_DOMAINS))}",
        "",
        "",
        "@pytest.mark.llmtune(",
    ]
    for key, value in found.items():
        above = _above(key, _comments(guess), "    ")
        lines += [*above[1:], f"    {key}={_python(value, 4, len(key) + 2)},"]
    return "\n".join([*lines, ")", f"def {test}(llmtune):", "    llmtune.check()"]) + "\n"


def _python(value: Any, indent: int = 0, taken: int = 0) -> str:
    """A value as formatted by code formatters: on one line, else one element per line."""
    if isinstance(value, str):
        return _json(value)
    if not isinstance(value, (list, dict)):
        return repr(value)
    if isinstance(value, dict) and (word := next(iter(value))) in _DOMAINS:
        return f"{word}({', '.join(map(repr, value[word]))})"
    if isinstance(value, dict):
        first, last, pairs = "{", "}", [(f"{_json(key)}: ", one) for key, one in value.items()]
    else:
        first, last, pairs = "[", "]", [("", one) for one in value]
    line = first + ", ".join(f"{key}{_python(one)}" for key, one in pairs) + last
    if "\n" not in line and indent + taken + len(line) <= _WIDTH:
        return line
    inside = "".join(f"\n{' ' * (indent + 4)}{key}{_python(one, indent + 4, len(key) + 1)}," for key, one in pairs)
    return f"{first}{inside}\n{' ' * indent}{last}"


def _json(value: Any) -> str:
    """A value in JSON: YAML reads it as it stands, and Python reads its texts. Nothing invisible is left in it."""
    text = json.dumps(value, ensure_ascii=False)
    for character in {*text}:
        if not character.isprintable():
            code = ord(character)
            text = text.replace(character, f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return text
