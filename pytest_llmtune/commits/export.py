"""Write a locked configuration for the app: as JSON, or as a module that needs the openai client only."""

from __future__ import annotations

import json
import re
from pprint import pformat
from typing import TYPE_CHECKING, Any

from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.guard.lockfile import Lock

__all__ = ["as_json", "as_python"]

_MODULE = '''\
"""The locked configuration of the suite {suite}. Written by `llmtune export`; do not edit.

    answers = complete(client, row)  # an openai.OpenAI client; a mapping from column to value
"""

CONFIG = {config}


def messages(row):
    """The chat messages for one row: a mapping from column to value."""
    template = CONFIG.get("messages") or [{{"role": "user", "content": CONFIG["prompt"]}}]
    return [{{**one, "content": _filled(one["content"], row)}} for one in template]


def _filled(content, row):
    return content.format_map(row) if isinstance(content, str) else content


def complete(client, row):
    """The n answers to one row, as texts."""
    parameters = {{name: value for name, value in CONFIG.items() if name not in ("prompt", "messages")}}
    found = client.chat.completions.create(messages=messages(row), **parameters)
    return [choice.message.content for choice in found.choices]
'''


def as_json(lock: Lock) -> str:
    """The configuration as in the lock file, with the suite's name and its baseline."""
    data = {
        "suite": lock.suite,
        "config": lock.config,
        "metrics": {name: figure.value for name, figure in sorted(lock.metrics.items())},
    }
    return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


def as_python(lock: Lock) -> str:
    """A module with ``CONFIG``, ``messages(row)`` and ``complete(client, row)``.

    Raises:
        LLMTuneError: the prompt is a function of the project, or the configuration is not one request.
    """
    config = dict(lock.config)
    if "cascade" in config:
        raise LLMTuneError(f"{lock.suite} is a cascade; export it with --to=json")
    _check(lock.suite, config)
    name = re.sub(r"[^\w.-]", "_", lock.suite)  # the file may come from a stranger: a name is no code
    text = _MODULE.format(suite=name, config=pformat(config, width=110, sort_dicts=False))
    compile(text, f"{lock.suite}.py", "exec")  # what is written can be imported
    return text


def _check(suite: str, config: Mapping[str, Any]) -> None:
    if not any(isinstance(config.get(name), (str, list)) for name in ("prompt", "messages")):
        raise LLMTuneError(f"{suite}: its prompt is a function of the project; import that function in the app instead")
