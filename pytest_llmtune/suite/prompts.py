"""Prompt templates, and the requests for runs of a task, which take the place of a prompt's."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.functions import load_function, qualified_name, source_of
from pytest_llmtune._util.jsonhash import canonical_json, digest, text_digest, without_n
from pytest_llmtune._util.text import InvalidError, did_you_mean, listed, shown
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.suite.domains import Choice
from pytest_llmtune.suite.task import Task
from pytest_llmtune.types import CompletionRequest

if TYPE_CHECKING:
    from pytest_llmtune.suite.declaration import Declaration, Problems
    from pytest_llmtune.types import Example, Row


_MAX_WIDTH = 1_000
_MAX_FILLED = 16_000_000
"""Limit for width and precision, which could otherwise exhaust memory."""

Part = tuple[str, str | None, str, str]
"""Literal text, then a column, its format spec and its conversion."""


@lru_cache(maxsize=1024)
def _parts(text: str) -> tuple[Part, ...]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise InvalidError(f"{shown(text, 60)}: {error}; literal braces are written {{{{ }}}}") from None
    parts: list[Part] = []
    for literal, name, spec, how in parsed:
        if spec and ("{" in spec or any(int(number) > _MAX_WIDTH for number in re.findall(r"\d+", spec))):
            raise InvalidError(
                f"the field {{{name}:{spec}}}: a format spec must not have braces, or a width above {_MAX_WIDTH}"
            )
        if how not in (None, "s", "r", "a"):
            raise InvalidError(f"the field {{{name}!{how}}}: valid conversions are !s, !r and !a")
        if name is not None and (not name or name.isdecimal()):
            raise InvalidError(
                f"{shown(text, 60)}: the field {{{name}}} names no column; "
                "a field is {column}, literal braces are written {{ }}"
            )
        if name is not None and re.search(r"[.\[\]]", name):
            raise InvalidError(
                f"the field {{{name}}} reaches into a value; "
                "a field is a column's name alone (for more, use a function of the row)"
            )
        column = None if name is None else unicodedata.normalize("NFC", name)  # like the columns of the data
        parts.append((literal, column, spec or "", how or ""))
    return tuple(parts)


def format_fields(text: str) -> frozenset[str]:
    """The columns that a format string names.

    Raises:
        SuiteError: it is malformed, or accesses more than columns.
    """
    return frozenset(name for _, name, _, _ in _parts(text) if name is not None)


def fill(text: str, row: Row) -> str:
    """Fill in a row's values.

    Raises:
        SuiteError: the row lacks a column, a value does not fit its format, or the text gets too long: a template may name
            a column of megabytes a million times.
    """
    parts, length = [], 0
    for literal, name, spec, how in _parts(text):
        part = literal + (_value(name, spec, how, row) if name is not None else "")
        if (length := length + len(part)) > _MAX_FILLED:
            raise SuiteError(f"the prompt {shown(text, 60)} gets longer than the limit of {_MAX_FILLED:,} characters")
        parts.append(part)
    return "".join(parts)


def _value(name: str, spec: str, how: str, row: Row) -> str:
    if name not in row:
        raise SuiteError(f"the prompt names {{{name}}}{did_you_mean(name, row)}, but the row has {listed(row)}")
    value = row[name]
    try:
        converted = repr(value) if how == "r" else ascii(value) if how == "a" else str(value) if how == "s" else value
        return format(converted, spec)
    except (ValueError, TypeError) as error:
        raise SuiteError(
            f"the prompt's field {{{name}:{spec}}} does not fit the value {shown(value)}: {error}"
        ) from None


def escape(text: str) -> str:
    """Escape a text as a format string."""
    return text.replace("{", "{{").replace("}", "}}")


ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True)
class Template:
    """A prompt, or a list of chat messages, to fill in with a row."""

    kind: Literal["prompt", "messages", "task"]
    source: Any
    """``prompt``: a format string or a function. ``messages``: a tuple of mappings, or a function. ``task``: its name."""

    @classmethod
    def prompt(
        cls, raw: Any, *, system: str | None = None, base_dir: Path | None = None, root: Path | None = None
    ) -> Template:
        """A format string, a function, or ``{"callable": "module:function"}``; ``system`` is sent unchanged.

        Raises:
            SuiteError: none of these, or a format string that accesses more than columns.
        """
        source = _source(raw, base_dir, root)
        if system is None:
            return cls("prompt", source)
        first = {"role": "system", "content": escape(system)}
        return cls("messages", (first, {"role": "user", "content": source}))

    @classmethod
    def messages(cls, raw: Any, *, base_dir: Path | None = None, root: Path | None = None) -> Template:
        """A list of messages whose contents are format strings, functions or lists of parts; or a column, ``"{history}"``."""
        if _is_function(raw):
            return cls("messages", _source(raw, base_dir, root))
        if isinstance(raw, str) and _only_field(raw):
            return cls("messages", raw)
        if not isinstance(raw, (list, tuple)) or not raw:
            raise InvalidError(
                f"is {shown(raw)}; valid: a list of {{'role': ..., 'content': ...}}, or '{{history}}', a column with such lists"
            )
        return cls("messages", tuple(_message(item, index, base_dir, root) for index, item in enumerate(raw)))

    @property
    def is_function(self) -> bool:
        """Whether it has a function, so that the columns it needs are unknown before it runs."""
        return any(not isinstance(leaf, str) for leaf in _leaves(self.source))

    @cached_property
    def fields(self) -> frozenset[str]:
        """The columns that its format strings name."""
        texts = [leaf for leaf in _leaves(self.source) if isinstance(leaf, str)]
        return frozenset(name for text in texts for name in format_fields(text))

    def render(self, row: Row) -> tuple[dict[str, Any], ...]:
        """The chat messages for a row.

        Raises:
            SuiteError: the row lacks a column, a value does not fit its format, a function fails.
        """
        if isinstance(self.source, tuple):
            return tuple(_rendered(message, row) for message in self.source)
        if self.kind == "messages" and isinstance(self.source, str):
            return _history(self.source, row)
        content = _filled(self.source, row)
        if isinstance(content, str):
            return ({"role": "user", "content": content},)
        if _are_messages(content):
            return tuple(dict(message) for message in content)
        raise SuiteError(
            f"the prompt function {qualified_name(self.source)} returned {shown(content)}; "
            "valid: the prompt's text, or a list of {'role': ..., 'content': ...}"
        )

    def check(self, columns: Sequence[str], where: str = "") -> None:
        """Check that every field is a column of the data."""
        missing = sorted(self.fields - set(columns))
        if missing:
            fields = ", ".join(f"{{{name}}}{did_you_mean(name, columns)}" for name in missing)
            raise SuiteError(
                f"{where}{': ' if where else ''}the {self.kind} {shown(self.label, 60)} names {fields}, "
                f"but the columns are {listed(columns)}; literal braces are written {{{{ }}}}"
            )

    @property
    def label(self) -> str:
        """One-line summary."""
        first = next(iter(_leaves(self.source)), "")
        return " ".join(first.split()) if isinstance(first, str) else qualified_name(first)

    def to_lock(self) -> Any:
        """As in the lock file: text, a list of messages, or ``{"callable": "module:name"}``."""
        return _mapped(self.source, lambda leaf: {"callable": qualified_name(leaf)} if callable(leaf) else leaf)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the template; functions are hashed by name and source."""
        sources = [source_of(leaf) for leaf in _leaves(self.source) if not isinstance(leaf, str)]
        return digest([self.kind, self.to_lock(), sources], spaced=True)


def _only_field(text: str) -> bool:
    """Whether a format string is a single field."""
    [(literal, name, *rest), *others] = _parts(text) or [("", None)]
    return name is not None and not (literal or any(rest) or others)


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(message, Mapping) and message.get("role") in ROLES for message in value)
    )


def _history(source: str, row: Row) -> tuple[dict[str, Any], ...]:
    """The chat messages in a column, as a list or as its JSON."""
    [name] = format_fields(source)
    if name not in row:
        raise SuiteError(f"messages names {{{name}}}{did_you_mean(name, row)}, but the row has {listed(row)}")
    value = row[name]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = row[name]
    if not isinstance(value, list) or not _are_messages(value):
        raise SuiteError(
            f"the column {name!r} has {shown(row[name])}; valid: a list of {{'role': ..., 'content': ...}}, or its JSON"
        )
    return tuple(dict(message) for message in value)


def _is_function(raw: Any) -> bool:
    return callable(raw) or (isinstance(raw, Mapping) and raw.keys() == {"callable"})


def _source(raw: Any, base_dir: Path | None, root: Path | None) -> Any:
    """A format string, checked, or a function."""
    if isinstance(raw, str):
        if not raw.strip():
            raise InvalidError("is empty")
        format_fields(raw)
        return raw
    if callable(raw):
        return raw
    if _is_function(raw) and isinstance(raw["callable"], str):
        return load_function(raw["callable"], base_dir or Path.cwd(), root)
    raise InvalidError(f"is {shown(raw)}; valid: a format string such as '{{question}}', or a function of the row")


def _message(raw: Any, index: int, base_dir: Path | None, root: Path | None) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping) or not {"role", "content"} <= raw.keys():
        raise InvalidError(f"is {shown(raw)}; valid: {{'role': ..., 'content': ...}}", index)
    if raw["role"] not in ROLES:
        raise InvalidError(
            f"is {shown(raw['role'])}{did_you_mean(raw['role'], ROLES)}; valid: {', '.join(ROLES)}", index, "role"
        )
    try:
        return {**raw, "content": _content(raw["content"], base_dir, root)}
    except InvalidError as problem:
        raise problem.inside(index, "content") from None


def _content(raw: Any, base_dir: Path | None, root: Path | None) -> Any:
    """Text, a function, or a list of parts whose strings are format strings."""
    if isinstance(raw, (list, tuple)):
        return tuple(_content(part, base_dir, root) for part in raw)
    if isinstance(raw, Mapping) and not _is_function(raw):
        return {key: _content(value, base_dir, root) for key, value in raw.items()}
    return _source(raw, base_dir, root)


def _leaves(source: Any) -> list[Any]:
    """All format strings and functions of a template."""
    if isinstance(source, Mapping):
        items: Any = [source["content"]] if "role" in source else source.values()
        return [leaf for item in items for leaf in _leaves(item)]
    return [leaf for item in source for leaf in _leaves(item)] if isinstance(source, tuple) else [source]


def _mapped(source: Any, change: Callable[[Any], Any]) -> Any:
    """A template with its leaves changed, tuples as lists."""
    if isinstance(source, Mapping):
        return {key: _mapped(value, change) for key, value in source.items()}
    return [_mapped(item, change) for item in source] if isinstance(source, tuple) else change(source)


def _filled(source: Any, row: Row) -> Any:
    if isinstance(source, str):
        return fill(source, row)
    if isinstance(source, (tuple, Mapping)):
        return _mapped(source, lambda leaf: _filled(leaf, row))
    try:
        return source(row)
    except LLMTuneError:
        raise
    except Exception as error:
        raise SuiteError(
            f"the prompt function {qualified_name(source)} raised {type(error).__name__}: {error}; "
            f"on the row {shown(dict(row))}"
        ) from error


def _rendered(message: Mapping[str, Any], row: Row) -> dict[str, Any]:
    content = _filled(message["content"], row)
    if not isinstance(content, (str, list)):
        name = qualified_name(message["content"])
        raise SuiteError(
            f"the prompt function {name} returned {shown(content)}; within messages it must return a string"
        )
    return {**message, "content": content}


def several(raw: Any) -> tuple[Sequence[Any], bool]:
    """The choices of a value, and whether it was a list."""
    if isinstance(raw, Choice):
        return raw.options, True
    if isinstance(raw, Mapping) and raw.keys() == {"choice"} and isinstance(raw["choice"], (list, tuple)):
        return raw["choice"], True
    return (raw, True) if isinstance(raw, (list, tuple)) else ([raw], False)


def one_template(key: str, raw: Any, values: Mapping[str, Any], declaration: Declaration) -> Template:
    """A template from one value of ``prompt`` or ``messages``; a task's is passed to it unchanged."""
    if isinstance(task := values["task"], Task):
        source = tuple(raw) if isinstance(raw, (list, tuple)) else raw
        if not (callable(source) or (isinstance(source, str) and source.strip()) or isinstance(source, tuple)):
            raise InvalidError(f"is {shown(raw)}; valid: a text, or a function")
        return TaskTemplate("messages" if key == "messages" else "prompt", source, task)
    if key == "messages":
        return Template.messages(raw, base_dir=declaration.base_dir, root=declaration.root)
    return Template.prompt(raw, system=values["system"], base_dir=declaration.base_dir, root=declaration.root)


def read_templates(values: Mapping[str, Any], declaration: Declaration, problems: Problems) -> tuple[Template, ...]:
    """All templates to choose from; a task's are its prompts, unchanged, or only itself."""
    task = values["task"] if isinstance(values["task"], Task) else None
    if values["task"] is not None and task is None:  # it is invalid, which is reported already
        return ()
    declared = [key for key in ("prompt", "messages") if values[key] is not None]
    if task is not None and values["system"] is not None:
        problems.add("applies only without a task; pass it to the task with params", "system")
    elif "messages" in declared and values["system"] is not None:
        problems.add("goes with prompt; in messages, write {'role': 'system', 'content': ...}", "system")
    if not declared and task is not None:
        return (TaskTemplate.bare(task),)
    if len(declared) != 1:
        problems.add("give either prompt or messages" + (", not both" if declared else ""), "prompt")
        return ()
    [key] = declared
    entries, is_list = several(values[key]) if key == "prompt" else _message_lists(values[key])
    if not entries:
        problems.add("is an empty list; valid: a template, or a list of templates", key)
    templates: list[Template] = []
    for index, raw in enumerate(entries):
        path = (key, index) if is_list else (key,)
        template = problems.attempt(one_template, key, raw, values, declaration, path=path)
        if template is None:
            continue
        if any(template.to_lock() == other.to_lock() for other in templates):
            why = "; functions are distinguished by name: define them with def" if template.is_function else ""
            problems.add(f"is {shown(template.label, 60)}, a duplicate{why}", *path)
        templates.append(template)
    return tuple(templates)


@dataclass(frozen=True)
class TaskTemplate(Template):
    """Takes a template's place in a configuration; a prompt among the choices is passed to the task unchanged."""

    task: Task | None = None

    @classmethod
    def bare(cls, task: Task) -> TaskTemplate:
        """The template of a suite without prompts."""
        return cls("task", task.name, task)

    @property
    def is_function(self) -> bool:
        """True: the task may use any column."""
        return True

    @cached_property
    def fields(self) -> frozenset[str]:
        return frozenset()

    def check(self, columns: Sequence[str], where: str = "") -> None:
        """Nothing to check: the task interprets any braces."""

    def render(self, row: Row) -> tuple[dict[str, Any], ...]:  # noqa: ARG002
        raise SuiteError(f"the task {self.source if self.task is None else self.task.name} makes its requests itself")


def _message_lists(raw: Any) -> tuple[Sequence[Any], bool]:
    """A list of messages is one template; a list of lists or functions is a choice of templates."""
    entries, is_list = several(raw)
    is_one = entries is raw and any(isinstance(item, Mapping) and "callable" not in item for item in entries)
    return ([raw], False) if is_one else (entries, is_list)


@dataclass(frozen=True, slots=True)
class TaskRequest(CompletionRequest):
    """``n`` runs of a task on one row; its body only identifies the runs, and is never sent."""

    example: Example | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the configuration."""
    template: TaskTemplate | None = None
    earlier: int = 0
    """Runs of a cascade's earlier steps on the row; the numbers of these follow."""

    @property
    def task(self) -> Task:
        """The function to run."""
        assert self.template is not None  # noqa: S101  # ``task_request`` gives it
        assert self.template.task is not None  # noqa: S101
        return self.template.task

    @property
    def row(self) -> Example:
        """The row to run it on."""
        assert self.example is not None  # noqa: S101  # ``task_request`` gives it
        return self.example


def task_config(params: Mapping[str, Any], template: TaskTemplate) -> dict[str, Any]:
    """The configuration as passed to a task: without ``n``, the number of runs."""
    prompt = {} if template.kind == "task" else {template.kind: _mapped(template.source, lambda leaf: leaf)}
    return without_n(params) | prompt


def task_request(
    params: Mapping[str, Any], n: int, template: TaskTemplate, example: Example, earlier: int = 0
) -> TaskRequest:
    """The request of a configuration for a row.

    Args:
        earlier: number of runs of a cascade's earlier steps on the row.

    Raises:
        SuiteError: a parameter is not representable in JSON.
    """
    own = {"prompt": template.fingerprint, "task": template.task.name if template.task else "", "row": example.id}
    body = {**without_n(params), "llmtune": own}
    key = text_digest(canonical_json(body))
    return TaskRequest(body=body, n=n, key=key, example=example, params=params, template=template, earlier=earlier)
