"""Writes the pages of docs/reference that come from the code.

python docs/reference.py           writes them
python docs/reference.py --check   says which are out of date, and ends with 1 if any is
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest_llmtune
from pytest_llmtune import plugin
from pytest_llmtune.completions.endpoint_files import FIELDS
from pytest_llmtune.plugin.options import MARKERS, OPTIONS
from pytest_llmtune.suite import keys
from pytest_llmtune.suite.keys import KEYS, PARAMETER_KEYS, REQUIRED

HERE = Path(__file__).parent / "reference"
SCHEMA = Path(keys.__file__).with_name("llmtune.schema.json")
SPACE = ("uniform", "quniform", "loguniform", "randint", "lograndint", "choice", "models", "propose")
CALLS = ("tune", "evaluate", "complete", "grade", "usage", "mark")
SETTINGS = (
    *(
        "root",
        "base_url",
        "endpoints",
        "concurrency",
        "timeout",
        "deadline",
        "max_spend",
        "prices",
        "redact",
        "trust_hosts",
    ),
    *("max_data", "batch", "batch_price", "engine", "source"),
)
"""The fields that count without pytest."""
CLASSES: dict[str, tuple[str, ...]] = {
    "Suite": (),
    "Settings": SETTINGS,
    "Config": ("params", "model", "n", "steps", "to_lock", "from_lock"),
    "Completion": ("text", "texts", "choices", "usage", "paid", "served_model", "latency", "exchanges"),
    "Evaluation": ("metrics", "intervals", "inference_cost", "cost", "config", "results", "unknown", "frame"),
    "ExampleResult": ("example", "status", "grade", "responses", "usage", "cost", "latency", "error", "runs"),
    "ExampleGrade": ("metrics", "votes", "voted_answer", "answers"),
    "ModelUsage": ("usage", "cost"),
    "Usage": (
        *("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "units", "tier", "requests"),
        "estimated",
    ),
    "Outcome": ("text", "data"),
    "Grader": ("fingerprint", "reference", "grade", "metric_names"),
    "Proposer": ("prompt", "read"),
    "Failure": ("question", "expected", "answer"),
    "CompletionRequest": ("body", "n", "key", "sample_index"),
    "Exchange": ("method", "uri", "request", "response", "status", "latency", "headers", "recorded"),
}
"""Public classes, and what is public of each."""
FIXTURES = ("llmtune", "tuned_config", "llm_client", "async_llm_client")


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = (" | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) for row in rows)
    return "\n".join([f"| {head} |", "|" + "---|" * len(rows[0]), *(f"| {line} |" for line in body)])


def options() -> str:
    rows = [("option", "ini key", "environment", "what it does")]
    for option in OPTIONS:
        flag = option.flag if option.metavar is None else f"{option.flag}={option.metavar}"
        rows.append((f"`{flag}`", f"`{option.key}`", f"`{option.variable}`", option.help))
    fields = [("field", "meaning"), *((f"`{name}`", meaning) for name, meaning in FIELDS.items())]
    return f"""# Options

Command line > environment > marker or YAML > ini file > default. In an ini file several values are one per line, elsewhere separated by commas.

{_table(*rows)}

## Endpoints

An entry of the list that `--llm-endpoints` names:

{_table(*fields)}
"""


def suite_keys() -> str:
    rows = [("key", "default", "meaning")]
    for key in KEYS:
        default = "required" if key.default is REQUIRED else "" if key.default is None else f"`{key.default!r}`"
        rows.append((f"`{key.name}`", default, key.doc))
    known = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]
    parameters = [("key", "meaning"), *((f"`{name}`", known[name]["description"]) for name in PARAMETER_KEYS)]

    return f"""# Keys of a suite

The same in `@pytest.mark.llmtune(...)`, in `*.llmtune.yaml` and in `Suite(...)`.
Editors check YAML against `pytest_llmtune/suite/llmtune.schema.json`.

{_table(*rows)}

Any other key `min_METRIC` or `max_METRIC` is a gate on a metric that the grader gives:
a number, or a mapping of group to number where `group_by` is given.

In YAML, `extends` names another file, or a list of files, with keys that this file does not give. A file may declare several
suites, separated by `---`; then each needs a `name`.

## The search space

A plain value is a constant, a list a choice; in Python `uniform`, `quniform`, `loguniform`, `randint`, `lograndint` and `choice`,
in YAML `{{uniform: [0, 1]}}`. The upper bounds of `randint` and `lograndint` are excluded.

{_table(*parameters)}
"""


def fixtures() -> str:
    parts = [
        f"## `{name}`\n\n{inspect.getdoc(getattr(plugin, name).__wrapped__)}\n".replace("``", "`") for name in FIXTURES
    ]
    markers = "\n".join(f"* `{text.partition(': ')[0]}`: {text.partition(': ')[2]}" for text in MARKERS)
    return "# Fixtures and markers\n\n" + "\n".join(parts) + f"\n## Markers\n\n{markers}\n"


def python() -> str:
    parts = [_call(name) for name in CALLS] + [_class(name, members) for name, members in CLASSES.items()]
    spaces = [("name", "meaning")]
    for name in SPACE:
        shown = ", ".join(inspect.signature(getattr(pytest_llmtune, name)).parameters)
        spaces.append((f"`{name}({shown})`".replace("(arguments)", "([...])"), _summary(getattr(pytest_llmtune, name))))
    errors = [("error", "kind of", "when")]
    for name in pytest_llmtune.__all__:
        one = getattr(pytest_llmtune, name)
        if isinstance(one, type) and issubclass(one, Exception):
            errors.append((f"`{name}`", f"`{one.__base__.__name__}`", _summary(one)))
    return f"""# Python

Everything that can be imported from `pytest_llmtune`; the public names are these. `Suite(...)` and `mark(...)` take the
[keys of a suite](suite-keys.md). The fields of `Settings` are those that count without pytest; pytest reads [options](options.md).

{"".join(parts)}## The search space

{_table(*spaces)}

## Errors

{_table(*errors)}
"""


def _plain(text: str) -> str:
    """A docstring's text as Markdown, in one line."""
    return re.sub(r"\s+", " ", text).strip().replace("``", "`")


def _summary(named: object) -> str:
    return _plain((inspect.getdoc(named) or "").partition("\n\n")[0])


def _call(name: str) -> str:
    function = getattr(pytest_llmtune, name)
    plain = [one.replace(annotation=one.empty) for one in inspect.signature(function).parameters.values()]
    shown = str(inspect.Signature(plain))
    text, sections = _sections(inspect.getdoc(function) or "")
    body = "\n\n".join(_plain(paragraph) for paragraph in text.split("\n\n") if ">>>" not in paragraph)
    found = f"## `{name}{shown}`\n\n{body}\n\n"
    if "Args" in sections:
        rows = [("argument", "meaning"), *((f"`{key}`", meaning) for key, meaning in _entries(sections["Args"]))]
        found += _table(*rows) + "\n\n"
    if "Returns" in sections:
        found += f"Returns {_plain(sections['Returns'])}\n\n"
    for key, meaning in _entries(sections.get("Raises", "")):
        found += f"* Raises `{key}`: {meaning}\n"
    return found.rstrip() + "\n\n"


def _sections(doc: str) -> tuple[str, dict[str, str]]:
    """A docstring's text, and its sections by heading (``Args``); text after a section belongs to the text."""
    text, sections = [], {}
    for paragraph in doc.split("\n\n"):
        head, _, rest = paragraph.partition(":\n")
        if head in ("Args", "Returns", "Raises"):
            sections[head] = textwrap.dedent(rest)
        else:
            text.append(paragraph)
    return "\n\n".join(text), sections


def _entries(section: str) -> list[tuple[str, str]]:
    """``name: meaning`` of each entry; its further lines are indented."""
    found = re.split(r"\n(?=\S)", section) if section else []
    return [(name, _plain(meaning)) for name, _, meaning in (entry.partition(": ") for entry in found)]


def _class(name: str, members: tuple[str, ...]) -> str:
    one = getattr(pytest_llmtune, name)
    docs = _members(one)
    rows = [("member", "meaning"), *((f"`{member}`", docs[member]) for member in members)]
    return f"## `{name}`\n\n{_summary(one)}\n\n" + (_table(*rows) + "\n\n" if members else "")


def _members(one: Any) -> dict[str, str]:
    """Fields, properties and methods of a class, and the first paragraph of each one's docstring."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(one))).body
    found, field = {}, ""
    for node in tree.body:  # type: ignore[attr-defined]
        match node:
            case ast.AnnAssign(target=ast.Name(id=field)):
                found[field] = ""
            case ast.Expr(value=ast.Constant(value=str(text))) if field:
                found[field], field = _plain(text.partition("\n\n")[0]), ""
            case ast.FunctionDef(name=method):
                found[method], field = _plain((ast.get_docstring(node) or "").partition("\n\n")[0]), ""
    return found


PAGES = {"options.md": options, "suite-keys.md": suite_keys, "fixtures.md": fixtures, "python.md": python}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        text = f"<!-- Written by docs/reference.py from the code; do not edit. -->\n{page()}"
        if check and (HERE / name).read_text(encoding="utf-8") != text:
            stale.append(name)
        elif not check:
            (HERE / name).write_text(text, encoding="utf-8", newline="\n")
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; write them: python docs/reference.py")


if __name__ == "__main__":
    main()
