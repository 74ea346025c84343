"""Requests for runs of a task on a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field
from pytest_llmtune._util.jsonhash import canonical_json, text_digest
from pytest_llmtune.types import CompletionRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.suite.prompts import TaskTemplate
    from pytest_llmtune.suite.task import Task
    from pytest_llmtune.types import Example


@dataclass(frozen=True, slots=True)
class TaskRequest(CompletionRequest):
    """``n`` runs of a task on one row; its body only identifies the runs, and is never sent."""

    example: Example | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the configuration."""
    template: TaskTemplate | None = None
    earlier: int = 0
    """Runs of a cascade's earlier steps on the row; these are numbered from there on."""

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


def config_given(params: Mapping[str, Any], template: TaskTemplate) -> dict[str, Any]:
    """The configuration as passed to a task: without ``n``, the number of runs."""
    return {name: value for name, value in params.items() if name != "n"} | template.given()


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
    body = {**{name: value for name, value in params.items() if name != "n"}, "llmtune": own}
    key = text_digest(canonical_json(body))
    return TaskRequest(body=body, n=n, key=key, example=example, params=params, template=template, earlier=earlier)
