"""From a suite's ``prompt``, ``messages`` and ``system`` to its templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_llmtune._util.invalid import shown
from pytest_llmtune.suite.domains import Choice
from pytest_llmtune.suite.prompts import Template

if TYPE_CHECKING:
    from pytest_llmtune.suite.declaration import Declaration, Problems

__all__ = ["one_template", "read_templates", "several"]


def several(raw: Any) -> tuple[Sequence[Any], bool]:
    """The choices that a value holds, and whether it was a list."""
    if isinstance(raw, Choice):
        return raw.options, True
    if isinstance(raw, Mapping) and raw.keys() == {"choice"} and isinstance(raw["choice"], (list, tuple)):
        return raw["choice"], True
    return (raw, True) if isinstance(raw, (list, tuple)) else ([raw], False)


def one_template(key: str, raw: Any, system: str | None, declaration: Declaration) -> Template:
    """A template from one value of ``prompt`` or ``messages``.

    Raises:
        SuiteError: it is none.
    """
    if key == "messages":
        return Template.messages(raw, base_dir=declaration.base_dir, root=declaration.root)
    return Template.prompt(raw, system=system, base_dir=declaration.base_dir, root=declaration.root)


def read_templates(values: Mapping[str, Any], declaration: Declaration, problems: Problems) -> tuple[Template, ...]:
    """All templates to choose from."""
    prompt, messages, system = values["prompt"], values["messages"], values["system"]
    if (prompt is None) == (messages is None):
        problems.add("give either prompt or messages" + ("" if prompt is None else ", not both"), "prompt")
        return ()
    if messages is not None and system is not None:
        problems.add("goes with prompt; in messages, write {'role': 'system', 'content': ...}", "system")
    key = "prompt" if messages is None else "messages"
    entries, is_list = several(prompt) if messages is None else _message_lists(messages)
    if not entries:
        problems.add("is an empty list; valid: a template, or a list of templates", key)
    templates: list[Template] = []
    for index, raw in enumerate(entries):
        path = (key, index) if is_list else (key,)
        template = problems.attempt(one_template, key, raw, system, declaration, path=path)
        if template is not None:
            _refuse_twin(template, templates, problems.add, path)
            templates.append(template)
    return tuple(templates)


def _message_lists(raw: Any) -> tuple[Sequence[Any], bool]:
    """A list of messages is one template; a list that holds lists or functions is a choice of templates."""
    entries, is_list = several(raw)
    is_one = entries is raw and any(isinstance(item, Mapping) and "callable" not in item for item in entries)
    return ([raw], False) if is_one else (entries, is_list)


def _refuse_twin(
    template: Template, others: Sequence[Template], add: Callable[..., None], path: Sequence[str | int]
) -> None:
    if any(template.to_lock() == other.to_lock() for other in others):
        why = "; functions are told apart by name: define them with def" if template.is_function else ""
        add(f"is {shown(template.label, 60)}, which stands twice{why}", *path)
