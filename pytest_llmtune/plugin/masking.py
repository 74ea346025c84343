"""Known keys in what pytest itself shows of a guarded test: captured output, logs, tracebacks with their locals."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

    import pytest


def mask_report(report: pytest.TestReport, clean: Callable[[str], str]) -> None:
    """Replace the keys in a test's report, for the terminal, for JUnit's XML and for other plugins."""
    report.sections = [(name, clean(text)) for name, text in report.sections]
    if report.longrepr is not None:
        report.longrepr = _masked(report.longrepr, clean, {})


def _masked(value: Any, clean: Callable[[str], str], seen: dict[int, Any]) -> Any:
    """The same object with its texts replaced, all the way down; pytest's parts of a traceback refer to each other."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_masked(item, clean, seen) for item in value)
    if type(value).__module__ == "_pytest._code.code" and id(value) not in seen:
        seen[id(value)] = value
        for name, part in vars(value).items():
            setattr(value, name, _masked(part, clean, seen))
    return value


class _Clean:
    """A formatter that lets another one format."""

    def __init__(self, inner: logging.Formatter, clean: Callable[[str], str]) -> None:
        self._inner, self._clean = inner, clean

    def format(self, record: logging.LogRecord) -> str:
        return self._clean(self._inner.format(record))


@contextmanager
def masked_logs(config: pytest.Config, clean: Callable[[str], str]) -> Iterator[None]:
    """Replace the keys in what goes to ``--log-file`` and to the live log, while a guarded test runs."""
    plugin: Any = config.pluginmanager.get_plugin("logging-plugin")
    options = ("log_file", "log_cli_level", "log_cli")
    used = plugin and any(config.getoption(name, None) or config.getini(name) for name in options)
    handlers = [plugin.log_file_handler, plugin.log_cli_handler] if used else []
    formatters = [handler.formatter for handler in handlers]
    for handler in handlers:
        handler.formatter = _Clean(handler.formatter, clean)
    try:
        yield
    finally:
        for handler, formatter in zip(handlers, formatters, strict=True):
            handler.formatter = formatter
