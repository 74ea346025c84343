"""The calls of one run of a task, as graders and reports see them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from pytest_llmtune._dataclass import replace
from pytest_llmtune._util.lazy import lazy_regex
from pytest_llmtune.types import ModelCall
from pytest_llmtune.wire.trace import read_call, tool_results

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.recording.format import Interaction
    from pytest_llmtune.tasks.money import Charge
    from pytest_llmtune.types import ToolCall

__all__ = ["Trace"]


_IDS = lazy_regex(r'"(?:id|call_id|item_id|tool_call_id|tool_use_id|toolUseId|previous_response_id)":"[^"]*"')
"""What a server makes up: a recording has other ids than the run that it was made from."""
_write = json.JSONEncoder(sort_keys=True, default=str).encode


class Trace(Sequence[ModelCall]):
    """Read once somebody looks: most replays are judged by what came out.

    Args:
        charges: one for each interaction.
        bodies: of the requests, where they were read already.
    """

    def __init__(
        self,
        interactions: Sequence[Interaction],
        charges: Sequence[Charge],
        bodies: Sequence[Mapping[str, Any] | None],
    ) -> None:
        self._interactions, self._charges, self._bodies = interactions, charges, bodies

    def __len__(self) -> int:
        return len(self._interactions)

    @overload
    def __getitem__(self, place: int) -> ModelCall: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[ModelCall, ...]: ...
    def __getitem__(self, place: int | slice) -> ModelCall | tuple[ModelCall, ...]:
        return self._calls[place]

    def __eq__(self, other: object) -> bool:
        return self._calls == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(len(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._calls,)

    @cached_property
    def _calls(self) -> tuple[ModelCall, ...]:
        """A tool's result is what a later call sends back."""
        calls: list[ModelCall] = []
        results: dict[str, str] = {}
        priced = zip(self._interactions, self._charges, self._bodies, strict=True)
        for number, (each, charge, body) in reversed(list(enumerate(priced, 1))):
            told = read_call(each.body if body is None else body, each.text)
            tools = tuple(replace(call, result=results.get(call.id or call.name)) for call in told.tool_calls)
            results |= tool_results(told.messages)
            calls.append(
                ModelCall(
                    number,
                    charge.model,
                    told.messages,
                    told.text,
                    tools,
                    charge.usage,
                    charge.usd,
                    each.latency,
                    each.path,
                    each.status,
                    _digest(each, told.text, tools),
                )
            )
        return tuple(reversed(calls))


def _digest(call: Interaction, text: str, tools: Sequence[ToolCall]) -> str:
    """8 hex digits of what was asked and answered."""
    said = _write([text, [(tool.name, tool.arguments) for tool in tools]])
    whole = f"{call.method} {call.path}\0{_IDS.sub('', call.body)}\0{said}"
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
