"""Completion source for tasks: each run calls the app's function with its calls captured."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.capture.patches import installed
from pytest_llmtune.capture.patches import recorded as captured
from pytest_llmtune.capture.traffic import Traffic
from pytest_llmtune.errors import CompletionError, EndpointError, LLMTuneError, StaleRecordingError, SuiteError
from pytest_llmtune.money.ledger import Reservation
from pytest_llmtune.suite.prompts import TaskRequest, task_config
from pytest_llmtune.suite.task import Outcome, outcome_of
from pytest_llmtune.tasks.capture import Allowance, Canaries, NoRoomError, RunCapture, Store
from pytest_llmtune.tasks.trace import Trace
from pytest_llmtune.types import Choice, Completion, ModelUsage, TaskRun, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_llmtune.capture.tariff import Tariff
    from pytest_llmtune.completions.source import LiveSource, Source
    from pytest_llmtune.money.ledger import Ledger
    from pytest_llmtune.recording import Recording
    from pytest_llmtune.recording.format import Interaction
    from pytest_llmtune.redaction.redactor import Redactor
    from pytest_llmtune.types import CompletionRequest

_UNAUTHORIZED = 401
_ZERO = Decimal(0)
_NOTHING = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class Miss:
    """A run with an unrecorded call."""

    run: int
    detail: str
    """Row, run and call, with the difference."""


@dataclass(frozen=True, slots=True)
class _RunResult:
    """A completed run with its calls."""

    run: TaskRun
    interactions: tuple[Interaction, ...]
    usage: Usage
    names: tuple[str, ...]
    paid: Decimal = _ZERO
    """USD, now."""


@dataclass(slots=True, eq=False)
class TaskSource:
    """Answers requests by runs of a task; other requests, such as a judge's, go to ``inner``.

    A source is used and closed in one event loop.
    """

    inner: Source
    tariff: Tariff
    redactor: Redactor
    recording: Recording | None = None
    """Played first; None: no recording."""
    live: LiveSource | None = None
    """Provides ledger, cache and first endpoint; None: the network is blocked."""
    concurrency: int = 32
    """Concurrent runs."""
    traffic: Traffic = field(default_factory=Traffic)
    """Which requests are recorded."""
    remembers: bool = False
    """Whether a repeated request reuses the same run, as in a search."""
    excused: frozenset[str] = frozenset()
    """Rows that were unknown when the recording was made."""
    misses: dict[str, Miss] = field(default_factory=dict)
    """Unrecorded calls by row."""
    first_worst: Decimal = _ZERO
    """Worst-case USD of the first unrecorded call."""
    _late: list[LLMTuneError] = field(default_factory=list)
    """Of calls that were made after their run had ended."""
    _runs: dict[tuple[str, int], asyncio.Task[_RunResult]] = field(default_factory=dict)
    _limit: asyncio.Semaphore | None = None
    _threads: ThreadPoolExecutor | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _clients: dict[str, Any] = field(default_factory=dict)
    """``client`` and ``async_client``, copied for each run."""
    _reservations: dict[str, Decimal] = field(default_factory=dict)
    """By the configuration's model: the largest reservation of a run."""
    _canaries: Canaries = field(default_factory=Canaries)
    _lock: Any = field(default_factory=threading.Lock)

    async def complete(self, request: CompletionRequest) -> Completion:
        """Run the task ``request.n`` times on the request's row.

        Raises:
            CompletionError: an endpoint failed, or a call is not recorded; the row is unknown.
            EndpointError: an endpoint refuses the key.
            BudgetExhaustedError: a call exceeds the budget.
            SuiteError: a call has no price.
            RecordingError: an earlier run made a call after it had ended.
        """
        if not isinstance(request, TaskRequest):
            return await self.inner.complete(request)
        if self._limit is None:
            self._limit = asyncio.Semaphore(self.concurrency)
            self._stack.enter_context(installed())
        if self._late:
            raise self._late[0]
        first = request.earlier + request.sample_index * request.n
        numbers = range(first + 1, first + request.n + 1)
        new = [(request.key, number) not in self._runs for number in numbers]
        jobs = [self._job(request, number) for number in numbers]
        try:
            ended = await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            if not self.remembers:
                for job in jobs:
                    job.cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
        found: list[_RunResult] = []
        for each in ended:
            if isinstance(each, BaseException):
                raise each  # the lowest-numbered failed run's error
            found.append(each)
        paid = sum((each.paid for each, fresh in zip(found, new, strict=True) if fresh), _ZERO)
        return _completion(found, paid)

    async def aclose(self) -> None:
        """Close threads and clients."""
        for job in self._runs.values():
            job.cancel()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)
        self._runs.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        self._stack.close()
        await self.inner.aclose()

    def _job(self, request: TaskRequest, number: int) -> asyncio.Task[_RunResult]:
        key = request.key, number
        known = self._runs.get(key)
        if known is not None and not (known.done() and (known.cancelled() or known.exception() is not None)):
            return known
        job = asyncio.create_task(self._run(request, number))
        if self.remembers:
            self._runs[key] = job
        return job

    async def _run(self, request: TaskRequest, number: int) -> _RunResult:
        assert self._limit is not None  # noqa: S101  # ``complete`` made it
        async with self._limit:
            store = None if self.live is None else Store(self.live, self._lock)
            needed = self._reservations.get(_model_of(request), _ZERO)
            while True:
                try:
                    ran = await self._attempt(request, number, store, needed)
                    return ran if store is None else replace(ran, paid=store.paid)
                except NoRoomError as error:
                    needed = max(error.amount, needed)

    async def _attempt(self, request: TaskRequest, number: int, store: Store | None, needed: Decimal) -> _RunResult:
        row = request.row.id
        recorded = [] if self.recording is None else self.recording.calls_of(row, number)
        label = f"{request.row.index} [{row}]"
        capture = RunCapture(
            row, label, number, recorded, self.redactor, self.tariff, store, traffic=self.traffic, late=self._late
        )
        if row in self.excused and not recorded and self.live is None:
            raise CompletionError("not completed when the rest was recorded; try again: pytest --llm-record=missing")
        if self.live is None:
            outcome, raised = await self._call_task(request, capture)
        else:
            ledger = self.live.ledger
            limited = ledger.left is not None
            held = await ledger.hold(needed if limited else _ZERO)
            capture.allowance = Allowance(held.amount if limited else None, self._more(ledger, capture))
            if limited:
                capture.canaries = self._canaries
                self._canaries.growth = ledger.chain()[-1].growth
            try:
                outcome, raised = await self._call_task(request, capture)
            finally:
                self._settle(ledger, held.amount, capture, request)
        return self._result_of(request, capture, outcome, raised)

    def _more(self, ledger: Ledger, capture: RunCapture) -> Callable[[Decimal], bool]:
        """A function that reserves more immediately: in the loop's thread, or while it waits for one of ours."""
        loop, own = asyncio.get_running_loop(), threading.get_ident()

        def more(amount: Decimal) -> bool:
            if threading.get_ident() == own:
                return ledger.try_reserve(amount)
            if not capture.in_thread:  # the loop runs the task, and may be waiting for this very thread
                return False

            async def reserve() -> bool:
                return ledger.try_reserve(amount)

            return asyncio.run_coroutine_threadsafe(reserve(), loop).result()

        return more

    def _settle(self, ledger: Ledger, held: Decimal, capture: RunCapture, request: TaskRequest) -> None:
        """Settle the reservation with the run's cost."""
        spent = capture.allowance
        total = held if spent.limit is None else spent.limit
        if spent.lost:
            lost = Reservation(min(total, spent.lost))
            total -= lost.amount
            lost.settle(spent.lost, uncertain=True)
            ledger.close(lost)
        rest = Reservation(total)
        rest.settle(spent.spent)
        ledger.close(rest, noted=True)
        model = _model_of(request)
        self._reservations[model] = max(self._reservations.get(model, _ZERO), spent.most, spent.spent + spent.lost)
        if self.live is not None:
            account = self.live.account
            account.paid += spent.spent
            account.uncertain += spent.lost
            account.cached += capture.cached
            fresh = sum(1 for call in capture.calls if not call.played)
            account.sent += fresh + len(capture.faults)
            account.answered += fresh
            account.samples += fresh
            for call in capture.calls:
                if not call.played and call.interaction is not None:
                    with suppress(SuiteError):
                        charge = capture.tariff.charge(call.interaction, own=call.own_price)
                        account.bill(
                            charge.model, ModelUsage(replace(charge.usage or _NOTHING, requests=1), charge.usd)
                        )

    async def _call_task(self, request: TaskRequest, capture: RunCapture) -> tuple[Any, BaseException | None]:
        """The task's return value, or its exception."""
        task, template = request.task, request.template
        assert template is not None  # noqa: S101  # ``task_request`` gave it
        if self.live is not None and self.live.endpoints:
            capture.pool = self.live.pool
        recording: Any = capture  # implements what the patches need of a recording
        with captured(recording):
            try:
                arguments = task.arguments(
                    request.row.row, task_config(request.params, template), partial(self._client, capture)
                )
                if task.is_async:
                    returned = await task.function(**arguments)
                else:
                    returned = await self._call_in_thread(partial(task.function, **arguments), capture)
                    if inspect.isawaitable(returned):
                        returned = await returned
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except (
                BaseException
            ) as error:  # SystemExit, pytest.skip or a refused call, maybe in a group, is no Exception
                job = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and job is not None and job.cancelling():
                    raise  # by us, and not by the app
                return None, error
        return returned, None

    def _client(self, capture: RunCapture, name: str) -> Any:
        """``client`` or ``async_client`` of OpenAI, whose calls belong to a run."""
        from pytest_llmtune.capture.client import async_client, client, copy_for

        recording: Any = capture
        if name not in self._clients:
            create = client if name == "client" else async_client
            address, key = self._endpoint(capture)
            created = create(recording, base_url=address, api_key=key)
            created.chat, created.responses, created.embeddings  # noqa: B018  # imported now, and not by several threads at once
            self._clients[name] = created
        return copy_for(self._clients[name], recording)

    def _endpoint(self, capture: RunCapture) -> tuple[str | None, str | None]:
        """The first endpoint in force; offline an address that was recorded."""
        if self.live is not None and self.live.endpoints:
            first = self.live.endpoints[0]
            return first.base_url, first.keys[0].reveal() if first.keys else None
        for interaction in capture.recorded:
            for route in ("/chat/completions", "/responses", "/embeddings", "/completions"):
                if interaction.path.endswith(route):
                    return interaction.uri.partition("?")[0].removesuffix(route), None
        return None, None

    async def _call_in_thread(self, call: Callable[[], Any], capture: RunCapture) -> Any:
        def run() -> Any:
            capture.task_thread, capture.in_thread = threading.get_ident(), True
            try:
                return call()
            finally:
                capture.in_thread = False

        if self._threads is None:
            workers = self.concurrency if self.live is not None else min(self.concurrency, 4)
            self._threads = ThreadPoolExecutor(workers, thread_name_prefix="llmtune-task")
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(context.run, run))

    def _result_of(
        self, request: TaskRequest, capture: RunCapture, returned: Any, raised: BaseException | None
    ) -> _RunResult:
        """The run, if it reflects the app's behaviour; otherwise raises."""
        if isinstance(capture.error, StaleRecordingError):
            self.first_worst = self.first_worst or capture.worst
            if capture.row not in self.excused:
                known = self.misses.get(capture.row)
                if known is None or known.run > capture.run:
                    self.misses[capture.row] = Miss(capture.run, capture.miss)
            raise CompletionError(f"{capture.error}; record: pytest --llm-record=missing")
        if capture.error is not None:
            raise capture.error
        if faults := capture.unresolved_faults:
            fault = faults[-1]
            what = f"{fault.name} {fault.why}" if fault.status else f"{fault.name} got no answer: {fault.why}"
            if fault.status == _UNAUTHORIZED:
                raise EndpointError(f"the endpoint of the task refuses its key: {what}")
            raise CompletionError(f"run {capture.run}: {what}")
        error, outcome = None, Outcome("")
        if raised is not None:
            error = _last_line(raised)
        else:
            try:
                outcome = outcome_of(returned, request.task.name)
            except SuiteError as problem:
                error = str(problem)
        interactions, bodies = capture.interactions, capture.bodies
        charges = [self.tariff.charge(each, body) for each, body in zip(interactions, bodies, strict=True)]
        trace = Trace(interactions, charges, bodies)
        cost = sum((charge.usd for charge in charges), _ZERO)
        run = TaskRun(capture.run, outcome.text, outcome.data, trace, error, capture.latency, cost)
        return _RunResult(
            run, interactions, sum((charge.usage or _NOTHING for charge in charges), _NOTHING), capture.names
        )


def _model_of(request: TaskRequest) -> str:
    return str(request.params.get("model"))


def _last_line(error: BaseException) -> str:
    """The last line of a traceback."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _completion(found: Sequence[_RunResult], paid: Decimal) -> Completion:
    runs = [each.run for each in found]
    return Completion(
        choices=tuple(
            Choice(f"({run.error})" if run.error else run.text, "raised" if run.error else "stop", run=run)
            for run in runs
        ),
        usage=sum((each.usage for each in found), _NOTHING),
        exchanges=(),
        latency=max(run.latency for run in runs),
        paid=paid,
        cost=sum((run.cost for run in runs), _ZERO),
        calls=tuple(interaction for each in found for interaction in each.interactions),
        cache_keys=tuple(name for each in found for name in each.names),
    )
