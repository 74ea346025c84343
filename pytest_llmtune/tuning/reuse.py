"""Reuse answers that were paid for under another ``max_tokens``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.tuning.proposals import LENGTHS, Arm, families_of
from pytest_llmtune.wire.response import answers_in, token_limit
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    from pytest_llmtune.completions.cache import Cache
    from pytest_llmtune.suite import Space
    from pytest_llmtune.types import Exchange, Row


Limit = tuple[str, int | None]
"""A length limit: the parameter's name, and tokens; None: not sent."""
_LIMITS = "limits"
"""Cache entry with all limits used by searches."""
_MOST = 50
"""Maximum number of limits tried: each needs a cache lookup per row of an arm."""


@dataclass(slots=True)
class AnswerReuse:
    """Cached answers of other searches that a search can reuse."""

    cache: Cache | None = None
    """None: nothing."""
    writes: bool = True
    """Whether reuse is recorded in the cache; not in a dry run."""
    limits: list[Limit] = field(default_factory=list)
    """Limits used by earlier searches."""
    _noted: set[Limit] = field(default_factory=set)
    """Limits used by this search."""

    @classmethod
    def of(cls, cache: Cache | None, space: Space, *, writes: bool = True) -> AnswerReuse:
        """For a search of this space, whose limits are recorded for later searches."""
        if cache is None:
            return cls()
        own: set[Limit] = {(family.limit_name or "", family.longest) for family in families_of(space).values()}
        known = set(_read_limits(cache.recall(_LIMITS)))
        if writes and own - known:
            cache.remember(_LIMITS, sorted(own | known, key=str))
        return cls(cache, writes, sorted(known | own, key=str))

    def reusable(self, arm: Arm, row: Row, limit: int | None) -> dict[str, list[Exchange]]:
        """Exchanges with other limits that can answer the arm's request for a row with ``limit``, by request key."""
        if self.cache is None or len(self.limits) < 2:
            return {}
        cache, request = self.cache, arm.config(1, limit).request(row)
        name = f"lent/{request.key}"
        usable = _read_counts(cache.recall(name))
        if not usable and not cache.get(request.key):
            usable = self._new(arm, row, limit, cache)
            if not usable and limit != arm.family.longest:  # longer than the lowered limit allows
                usable = self._new(arm, row, arm.family.longest, cache, own=True)
            if usable and self.writes:
                cache.remember(name, usable)
        return {key: [*held[:count]] for key, count in usable if (held := cache.get(key))}

    def note_limit(self, arm: Arm, limit: int | None) -> None:
        """Record a limit other than the family's for later searches."""
        own = arm.family.limit_name or "", limit
        if self.cache is not None and self.writes and own not in self._noted:
            self._noted.add(own)
            known = set(_read_limits(self.cache.recall(_LIMITS)))
            if own not in known:
                self.cache.remember(_LIMITS, sorted(known | {own}, key=str))

    def _new(self, arm: Arm, row: Row, limit: int | None, cache: Cache, *, own: bool = False) -> list[tuple[str, int]]:
        """Keys of requests that differ only in the limit, and how many exchanges of each may be used.

        Args:
            own: include requests with the same limit.
        """
        requested, found = (arm.family.limit_name or "", limit), []
        for other in self.limits:
            if own or other != requested:
                name, tokens = other
                params = {key: value for key, value in arm.config().params.items() if key not in LENGTHS}
                params |= {} if tokens is None else {name: tokens}
                key = replace(arm.config(), params=params).request(row).key
                exchanges = cache.get(key)
                if exchanges and all(_serves(exchange, limit) for exchange in exchanges):
                    found.append((key, len(exchanges)))
        return found


def _read_limits(entry: Any) -> list[Limit]:
    """Read limits from the cache, which may be untrusted."""
    found: list[Limit] = []
    for each in entry if isinstance(entry, list) else ():
        match each:
            case [("" | "max_tokens" | "max_completion_tokens") as name, None | int() as tokens]:
                found.append((name, tokens))
    return found[:_MOST]


def _read_counts(entry: Any) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for each in entry if isinstance(entry, list) else ():
        match each:
            case [str(key), int(count)] if count > 0:
                found.append((key, count))
    return found[:_MOST]


def _serves(exchange: Exchange, limit: int | None) -> bool:
    """Whether all its answers ended naturally within the limit."""
    if not (size := answers_in(exchange)):
        return False
    choices = completion_of([exchange], size).choices
    most = token_limit(exchange.request)
    shorter = limit is None or (most is not None and most <= limit)
    return all(
        choice.finish_reason == "stop"
        and (shorter or (choice.tokens is not None and limit is not None and choice.tokens < limit))
        for choice in choices
    )
