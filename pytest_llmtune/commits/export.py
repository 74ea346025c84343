"""Write a locked configuration for the app: as JSON, or as a module that needs the openai client only."""

from __future__ import annotations

import inspect
import json
import re
from pprint import pformat
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.text import one_line
from pytest_llmtune.errors import LLMTuneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmtune.guard.lockfile import Lock


_PROMPTS = ("prompt", "messages")
_MESSAGES = '''\
def messages({arguments}):
    """The chat messages for one row: a mapping from column to value."""
    template = {source}.get("messages") or [{{"role": "user", "content": {source}["prompt"]}}]
    if isinstance(template, str):  # "{{column}}": the column has them, or their JSON
        found = row[template.strip("{{}}")]
        return json.loads(found) if isinstance(found, str) else found
    return [{{**one, "content": _filled(one["content"], row)}} for one in template]


def _filled(content, row):
    """The content with the row's values: a text, or parts that have texts."""
    if isinstance(content, list):
        return [_filled(part, row) for part in content]
    if isinstance(content, dict):
        return {{name: _filled(part, row) for name, part in content.items()}}
    return content.format_map(row) if isinstance(content, str) else content
'''


_MODULE = '''\
"""The locked configuration of the suite {suite}. Written by `llmtune export`; do not edit.

    answers = complete(client, row)  # an openai.OpenAI client; a mapping from column to value
"""

import json

CONFIG = {config}


{messages}

def complete(client, row):
    """The n answers to one row, as texts."""
    parameters = {{name: value for name, value in CONFIG.items() if name not in ("prompt", "messages")}}
    found = client.chat.completions.create(messages=messages(row), **parameters)
    return [choice.message.content for choice in found.choices]
'''


_CASCADE = '''\
"""The locked cascade of the suite {suite}. Written by `llmtune export`; do not edit.

    answers = complete(client, row{read})  # an openai.OpenAI client; a mapping from column to value
"""

import json
import re
from collections import Counter

STEPS = {config}


{messages}

def complete(client, row, {signature}):
    """The answers of the first step whose vote is clear, as texts, else those of the last.

    ``read`` gives what of an answer is voted on, None where it cannot be read; the suite's grader is {grader}.
    """
    for step in STEPS:
        parameters = {{name: value for name, value in step.items() if name not in ("prompt", "messages", "accept")}}
        found = client.chat.completions.create(messages=messages(step, row), **parameters)
        answers = [choice.message.content or "" for choice in found.choices]
        if "accept" not in step or _accepts(step["accept"], answers, read):
            return answers


def _accepts(rule, answers, read):
    votes = Counter(key for key in map(read, answers) if key is not None).most_common(2)
    lead = votes[0][1] - (votes[1][1] if len(votes) > 1 else 0) if votes else -1
    fits = all(re.search(rule["regex"], answer) for answer in answers) if "regex" in rule else True
    return lead >= rule.get("margin", 0) * len(answers) - 1e-9 and fits
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
    """A module with ``CONFIG``, ``messages(row)`` and ``complete(client, row)``; of a cascade ``complete(client, row, read)``.

    Raises:
        LLMTuneError: the suite has a task, the prompt is a function of the project, or a schema or function decides a cascade.
    """
    steps = lock.config.get("cascade", [lock.config])
    for step in steps:
        if "task" in step:
            raise LLMTuneError(
                f"{lock.suite}: its unit is the task {one_line(str(step['task']), 100)}; read its configuration: "
                f"llmtune export {lock.suite} --to=json"
            )
        if not any(isinstance(step.get(each), (str, list)) for each in _PROMPTS) or '"callable"' in json.dumps(step):
            raise LLMTuneError(
                f"{lock.suite}: its prompt is a function of the project; import that function in the app instead"
            )
    name = re.sub(r"[^\w.-]", "_", lock.suite)  # the file may be untrusted: a name must not become code
    if "cascade" in lock.config:
        text = _cascade(lock.suite, name, [_arguments(step) for step in steps])
    else:
        config = pformat(_arguments(lock.config), width=110, sort_dicts=False)
        text = _MODULE.format(suite=name, config=config, messages=_MESSAGES.format(arguments="row", source="CONFIG"))
    compile(text, f"{lock.suite}.py", "exec")  # what is written can be imported
    return text


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as arguments of the openai client: what it does not know is sent as it is, and None is not sent."""
    from openai.resources.chat.completions import Completions

    known = {*inspect.signature(Completions.create).parameters, *_PROMPTS, "accept"}
    sent = {name: value for name, value in config.items() if value is not None}
    others = {name: sent.pop(name) for name in config.keys() - known if name in sent}
    return sent | ({"extra_body": {**sent.get("extra_body", {}), **dict(sorted(others.items()))}} if others else {})


def _cascade(suite: str, name: str, steps: Sequence[Mapping[str, Any]]) -> str:
    rules = [step["accept"] for step in steps[:-1]]
    if any({"schema", "function"} & rule.keys() for rule in rules):
        raise LLMTuneError(f"{suite} is a cascade that a schema or a function decides; export it with --to=json")
    grader = next((rule["grader"] for rule in rules if rule.get("grader")), None)
    standalone = grader is None  # else only the app can read what is voted on
    shown = [{**step, "accept": {k: v for k, v in step["accept"].items() if k != "grader"}} for step in steps[:-1]]
    return _CASCADE.format(
        suite=name,
        config=pformat([*shown, steps[-1]], width=110, sort_dicts=False),
        messages=_MESSAGES.format(arguments="step, row", source="step"),
        read="" if standalone else ", read",
        signature="read=lambda answer: answer.strip() or None" if standalone else "read",
        grader=re.sub(r"[^\w.:{}\[\]', -]", "_", str(grader)),
    )
