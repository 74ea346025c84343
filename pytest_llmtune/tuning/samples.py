"""Sampled answers per trial and row, and their scores."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune.completions.billing import worst_case
from pytest_llmtune.errors import BudgetExhaustedError, CompletionError, EndpointError, SuiteError
from pytest_llmtune.guard.evaluation import Completer, cost_of
from pytest_llmtune.suite.keys import SCORES
from pytest_llmtune.tuning.reuse import AnswerReuse
from pytest_llmtune.wire.response import answers_in
from pytest_llmtune.wire.tokens import completion_of, lengths_of

if TYPE_CHECKING:
    from pytest_llmtune.grading import Grader
    from pytest_llmtune.money.prices import PriceBook
    from pytest_llmtune.tuning.journal import StudyLog
    from pytest_llmtune.tuning.proposals import Arm
    from pytest_llmtune.types import Answer, Choice, Completion, CompletionRequest, Example, Exchange, Row


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm on one row."""

    samples: tuple[Sample, ...] = ()
    prompt: float = 0.0
    """Tokens of the prompt."""
    extra: float = 0.0
    """USD for grading one answer, by a judge."""
    scores: Mapping[int, float] = field(default_factory=dict)
    """Number of answers to the metric's mean over subsets of that size."""
    gated: Mapping[str, float] = field(default_factory=dict)
    """Metrics that have limits of their own, of all the samples together."""
    error: str | None = None
    """Why it could not be completed."""


_NOTHING = Cell()
_MEASURED = 2
"""Answers that must be known before a lower limit is sent."""
_ROOM = 3
"""Sent limit as a multiple of the longest answer of model and prompt so far."""
_SHORTEST = 16
"""Smallest limit in tokens sent instead of the arm's own."""


@dataclass(slots=True)
class Pool:
    """Answers by arm and row."""

    rows: Sequence[Example]
    source: Completer
    prices: PriceBook
    scorer: Scorer
    log: StudyLog
    tuned: int
    """Number of rows, from the first, that are tuning rows."""
    seed: int = 0
    reuse: AnswerReuse = field(default_factory=AnswerReuse)
    cells: dict[tuple[str, int], Cell] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    """The most answers per request, by model, if known."""
    _held: dict[tuple[str, int], dict[str, list[Exchange]]] = field(default_factory=dict)
    """Exchanges of each cell by request key, which differs by length limit."""
    _lengths: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Group of arms to number of measured answers, and tokens of the longest."""

    def cell(self, arm: Arm, row: int) -> Cell:
        return self.cells.get((arm.key, row), _NOTHING)

    async def fill(self, arm: Arm, row: int, count: int) -> Decimal:
        """Fill a cell to ``count`` answers; returns USD paid by this study for them and their grading.

        A cell that does not fit into the budget is left unchanged.

        Raises:
            EndpointError: no request of this model can succeed.
        """
        meter = Meter(self.source, self.prices, self.log)
        try:
            completion = await self._complete(arm, row, count, meter)
            self.cells[arm.key, row] = await self._cell(arm, row, completion, meter)
        except EndpointError:
            raise
        except BudgetExhaustedError:
            return meter.paid
        except CompletionError as error:
            if not self.cell(arm, row).samples:  # else the existing answers still count
                self.cells[arm.key, row] = Cell(error=str(error))
        return meter.paid

    def worst(self, arm: Arm, row: int, count: int) -> Decimal:
        """Worst-case USD of filling a cell to ``count`` answers, unless one is truncated and requested again."""
        missing = count - len(self.cell(arm, row).samples)
        if arm.runs_task:
            return max((sample.usd for sample in self.samples_of(arm)), default=Decimal(0)) * missing
        request = arm.config(missing, self.limit(arm, row)).request(self.rows[row].row)
        return worst_case(self.prices.price(arm.model), request.body, missing)

    def samples_of(self, arm: Arm) -> Iterator[Sample]:
        """The arm's samples, or all if it has none."""
        own = [cell for (key, _), cell in self.cells.items() if key == arm.key and cell.samples]
        for cell in own or self.cells.values():
            yield from cell.samples

    def measure(self, arm: Arm, row: int) -> None:
        """Learn from a cell the lengths of answers of its arm and of related arms."""
        tokens = [sample.tokens for sample in self.cell(arm, row).samples]
        for group in arm.groups[1:]:
            count, longest = self._lengths.get(group, (0, 0))
            self._lengths[group] = count + len(tokens), max([longest, *tokens])

    def limit(self, arm: Arm, row: int) -> int | None:
        """The length limit to send, which determines a request's reservation.

        A multiple of the longest answer so far, if below the arm's own limit. If it truncates an answer, the cell is requested
        again with the arm's own. Test rows are requested as in the guard.
        """
        maximum = arm.family.longest
        _, region, model = arm.groups
        count, longest = self._lengths.get(region, (0, 0))
        factor = _ROOM
        if count < _MEASURED:
            count, most = self._lengths.get(model, (0, 0))
            factor, longest = 2 * _ROOM, max(longest, most)
        if maximum is None or count < _MEASURED or row >= self.tuned:
            return maximum
        step = math.ceil(2 * math.log2(max(_SHORTEST, factor * longest)))  # half an octave, for few distinct requests
        return min(maximum, math.ceil(2 ** (step / 2)))

    async def _complete(self, arm: Arm, row: int, count: int, meter: Meter) -> Completion:
        """``count`` answers: reused from other length limits, existing, and new ones."""
        if arm.runs_task:
            return await meter.complete(arm.config(count).request_for(self.rows[row]))
        example, limit = self.rows[row].row, self.limit(arm, row)
        held = self._held.setdefault((arm.key, row), {})
        own = arm.config(1, limit).request(example).key
        if own not in held:
            reused = self.reuse.reusable(arm, example, limit)
            held |= {key: exchanges for key, exchanges in reused.items() if key not in held}
        elsewhere = sum(answers_in(one) for key, exchanges in held.items() if key != own for one in exchanges)
        if elsewhere >= count:
            return completion_of([one for exchanges in held.values() for one in exchanges], count)
        found = await meter.complete(arm.config(count - elsewhere, limit).request(example))
        own_limit = limit == arm.family.longest
        if not own_limit and any(
            one.finish_reason == "length" or (limit is not None and one.tokens is not None and one.tokens >= limit)
            for one in found.choices
        ):
            held.pop(own, None)
            found, own = await meter.complete(arm.config(count).request(example)), arm.config(1).request(example).key
            held.clear()
        elif not own_limit:
            self.reuse.note_limit(arm, limit)
        held[own] = [*found.exchanges]
        if found.paid and len(found.exchanges) > 1:  # the server may have a limit of n
            earlier = found.exchanges[-2]
            if answers_in(earlier) < int(earlier.request.get("n") or 1):
                self.most[arm.model] = answers_in(earlier)
        everything = [one for exchanges in held.values() for one in exchanges]
        return found if len(held) == 1 else replace(completion_of(everything, count), paid=found.paid)

    async def _cell(self, arm: Arm, row: int, completion: Completion, meter: Meter) -> Cell:
        if arm.runs_task:
            prompt, lengths = 0, [0] * len(completion.choices)
        else:
            first = completion.exchanges[0]
            prompt = completion_of([first], answers_in(first)).usage.prompt_tokens
            lengths = list(lengths_of(completion.exchanges)[: len(completion.choices)])
        before = meter.cost
        example = self.rows[row].row
        samples = await self.scorer.read(completion.choices, lengths, example, meter.complete)
        rng = random.Random(f"{self.seed}/{arm.key}/{row}")  # noqa: S311  # repeatable, no secret
        scores = await self.scorer.scores(samples, arm.family.counts, example, rng, meter.complete)
        extra = float(meter.cost - before) / len(samples)
        gated = await self.scorer.gated(completion, example, meter.complete)
        return Cell(samples, prompt, extra, scores, gated)


@dataclass(slots=True)
class Meter:
    """Adds up cost of one cell: its own answers and those of a judge."""

    source: Completer
    prices: PriceBook
    log: StudyLog
    cost: Decimal = Decimal(0)
    """USD at current prices, whoever paid."""
    paid: Decimal = Decimal(0)
    """USD paid by this study, now or before an interruption."""

    async def complete(self, request: CompletionRequest) -> Completion:
        completion = await self.source.complete(request)
        self.cost += cost_of(request, completion, self.prices)
        self.paid += self.log.paid(request, completion)
        return completion


Ask = Callable[["CompletionRequest"], Awaitable["Completion"]]
_OF_COMPLETION = frozenset({"latency", "refused"})
"""Metrics that no grader gives."""
_DRAWS = 16
"""Number of random orders of the pool for votes."""
_SUBSETS = 3
"""Number of subsets of the pool graded per n by an opaque grader."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer."""

    text: str
    tokens: int
    """Billed tokens: exact if known, else its share."""
    exact: bool
    """Whether ``tokens`` is exact, and the answer ended naturally or exactly at its limit."""
    answer: Answer | None = None
    """As read by the grader; None if it judges all answers together."""
    usd: Decimal = Decimal(0)
    """USD of a task's run."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """Applies a grader to samples of the pool."""

    grader: Grader
    metric: str
    limited: frozenset[str] = frozenset()
    """Metrics that have limits of their own."""

    @property
    def by_answer(self) -> bool:
        """Whether answers are judged separately and elected by equality, so that a vote needs no grader."""
        return self.grader.reads_answers and self.metric in SCORES and self.grader.vote == "equivalence"

    async def read(self, choices: Sequence[Choice], lengths: Sequence[int], row: Row, ask: Ask) -> tuple[Sample, ...]:
        """Samples of a completion's choices."""
        texts = [choice.judged for choice in choices]
        answers: Sequence[Answer | None] = [None] * len(texts)
        if self.by_answer:
            answers = await self.grader.aanswers(texts, row, ask)
        return tuple(
            Sample(
                text, tokens, choice.tokens is not None, answer, Decimal(0) if choice.run is None else choice.run.cost
            )
            for text, choice, tokens, answer in zip(texts, choices, lengths, answers, strict=True)
        )

    async def scores(
        self, samples: Sequence[Sample], counts: Sequence[int], row: Row, rng: random.Random, ask: Ask
    ) -> dict[int, float]:
        """For every n of ``counts`` that the samples allow: the metric's mean over subsets of n.

        A grader that judges all answers together is used only for the smallest and largest such n.

        Raises:
            SuiteError: the grader does not give the metric.
        """
        if self.by_answer:
            return voted(samples, counts, self.metric, rng)
        found = {}
        fitting = [n for n in counts if n <= len(samples)]
        for n in sorted({*fitting[:1], *fitting[-1:]}):
            subsets = [samples[start : start + n] for start in range(0, len(samples) - n + 1, n)][:_SUBSETS]
            values = []
            for subset in subsets:
                metrics = (await self.grader.agrade([sample.text for sample in subset], row, ask)).metrics
                if self.metric not in metrics:
                    names = ", ".join(sorted(metrics))
                    raise SuiteError(f"the grader {self.grader.name} gives no metric {self.metric!r}; it gives {names}")
                values.append(float(metrics[self.metric]))
            found[n] = sum(values) / len(values)
        return found

    async def gated(self, completion: Completion, row: Row, ask: Ask) -> dict[str, float]:
        """The metrics with limits of their own, as the guard sees them: of all answers together."""
        found: dict[str, float] = {}
        if self.limited - _OF_COMPLETION:
            found |= (await self.grader.agrade([one.judged for one in completion.choices], row, ask)).metrics
        found["latency"] = completion.latency
        found["refused"] = float(all(one.finish_reason == "content_filter" for one in completion.choices))
        return {name: float(value) for name, value in found.items() if name in self.limited}

    def cut(self, samples: Sequence[Sample], limit: int) -> float | None:
        """The metric of one answer of at most ``limit`` tokens; a longer one would be truncated, and counts as 0.

        None if no answer's length is known exactly.
        """
        known = [sample for sample in samples if sample.exact]
        if not known or not self.by_answer:
            return None
        return sum(_right(sample) and sample.tokens <= limit for sample in known) / len(known)


def _right(sample: Sample) -> bool:
    return sample.answer is not None and sample.answer.correct and sample.answer.key is not None


def voted(samples: Sequence[Sample], counts: Sequence[int], metric: str, rng: random.Random) -> dict[int, float]:
    """Mean of a voted metric over subsets, for every n that the samples allow.

    ``success`` and ``expected_success`` are exact; the vote is averaged over random orders of the pool.
    """
    size = len(samples)
    fitting = [n for n in counts if n <= size]
    if metric != "success_vote":
        right = sum(sample.answer is not None and sample.answer.correct for sample in samples)
        return {n: _counted(metric, size, right, n) for n in fitting}
    keys = [None if sample.answer is None else sample.answer.key for sample in samples]
    wins = [_right(sample) for sample in samples]
    if len(set(keys)) == 1:  # all equal: no sampling needed
        return dict.fromkeys(fitting, float(wins[0]))
    totals = dict.fromkeys(fitting, 0.0)
    for _ in range(_DRAWS):
        order = rng.sample(range(size), size)
        _walk([keys[index] for index in order], [wins[index] for index in order], totals)
    found = {n: total / _DRAWS for n, total in totals.items()}
    return found | ({1: sum(wins) / size} if 1 in found else {})  # known exactly


def _counted(metric: str, size: int, right: int, n: int) -> float:
    """Expectation of a metric of the number of correct answers among n of the pool (hypergeometric)."""
    ways = math.comb(size, n)
    if metric == "success":
        return 1 - math.comb(size - right, n) / ways
    return sum(
        math.comb(right, k) * math.comb(size - right, n - k) / ways * (1 - (1 - k / n) ** n)
        for k in range(max(0, n - size + right), min(n, right) + 1)
    )


def _walk(keys: Sequence[str | None], wins: Sequence[bool], totals: dict[int, float]) -> None:
    """Count, for every requested n, whether the elected one of the first n answers is correct; ties go to the first."""
    counts: dict[str, int] = {}
    first: dict[str, int] = {}
    leader: str | None = None
    for step, key in enumerate(keys):
        if key is not None:
            counts[key] = counts.get(key, 0) + 1
            first.setdefault(key, step)
            if leader is None or (counts[key], -first[key]) > (counts[leader], -first[leader]):
                leader = key
        if step + 1 in totals:
            totals[step + 1] += leader is not None and wins[first[leader]]
