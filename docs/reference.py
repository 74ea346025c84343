"""Writes the pages of docs/reference that come from the code.

python docs/reference.py           writes them
python docs/reference.py --check   says which are out of date, and ends with 1 if any is
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path

from pytest_llmtune import plugin
from pytest_llmtune.completions.endpoint_files import FIELDS
from pytest_llmtune.plugin.options import MARKERS, OPTIONS
from pytest_llmtune.suite import keys
from pytest_llmtune.suite.keys import KEYS, PARAMETER_KEYS, REQUIRED

HERE = Path(__file__).parent / "reference"
SCHEMA = Path(keys.__file__).with_name("llmtune.schema.json")
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


PAGES = {"options.md": options, "suite-keys.md": suite_keys, "fixtures.md": fixtures}


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
