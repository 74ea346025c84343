"""What is secret in a run: keys in the environment and in ``.env``, what the user's patterns find, and a hook changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.redaction.keys import KeySources
from pytest_llmtune.redaction.patterns import secrets_of
from pytest_llmtune.redaction.redactor import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pluggy import HookImpl

    from pytest_llmtune.settings import Settings

__all__ = ["redactor_of"]


def redactor_of(settings: Settings, hooks: Iterable[HookImpl] = ()) -> Redactor:
    """The redactor of a run.

    Args:
        hooks: implementations of ``pytest_llmtune_redact``.

    Raises:
        SuiteError: ``llmtune_redact`` is no regular expression, or ``.env`` cannot be read.
    """
    rules = Redactor.from_environment(settings.redact, map(_called_directly, hooks), environ={})
    return rules.knowing(secrets_of(os.environ) | secrets_of(KeySources.of(settings.root, {}).dotenv))


def _called_directly(hook: HookImpl) -> Callable[[str], str]:
    """Without pluggy's machinery, which is not made for several threads, nor for a call for each text."""

    def redact(text: str) -> str:
        given = hook.function(text)
        if given is not None and not isinstance(given, str):
            raise SuiteError(
                f"pytest_llmtune_redact in {hook.plugin_name} gave {type(given).__name__}; valid: text, None"
            )
        return text if given is None else given

    return redact
