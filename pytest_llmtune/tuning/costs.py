"""Estimate the cost per instance of a trial: from the lengths of answers, of a task from the USD of its runs."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from pytest_llmtune._dataclass import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmtune.tuning.proposals import Arm
    from pytest_llmtune.tuning.samples import Cell, Pool


_SLOPE, _SLOPE_WEIGHT = 0.25, 1 / 0.1**2
"""Prior tokens per byte of a prompt, and its precision (1 / variance)."""
_PRIOR_ROWS = 3.0
"""Weight of the prior that lengths vary by half their mean."""
_WITHIN = 0.4
"""Fraction of the variation of lengths that is between answers to the same row."""
_RESIDUAL = 0.25
"""Prior variation, relative to the mean length, that related answers to the same row do not explain."""
_MARGIN = 0.03
"""Margin below the inference budget: of many candidates near it, the one with the luckiest lengths looks cheap."""
_LITTLE = 20
"""Relative increase of a model's answers below which estimates for its other prompts are not updated."""
_SCALE = 1e6
"""Millionths of a USD, in which a task's runs are measured."""
_BORROWED = 1.5
"""Factor on the error of an arm without its own samples."""


@dataclass(frozen=True, slots=True)
class Cost:
    """USD per instance."""

    mean: float
    error: float
    """Standard error of ``mean`` as an estimate of the cost on the target rows."""

    def high(self, z: float) -> float:
        return self.mean + z * self.error

    def within(self, budget: float, z: float) -> bool:
        """Whether the cost is ``z`` errors below the budget; if errors are small, 3 % of it or twice as many errors."""
        margin = z * self.error
        return self.mean + (margin if z <= 0 else min(max(margin, _MARGIN * budget), 2 * margin)) <= budget


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Tokens of the prompt and of one answer on the target rows, with standard errors."""

    prompt: float
    prompt_error: float
    answer: float
    between: float
    """Error of ``answer`` that more answers per row do not reduce."""
    within: float
    """Error of ``answer`` with one answer per row."""


@dataclass(frozen=True, slots=True)
class _Row:
    """Answers to one row."""

    length: float
    """Mean, in tokens."""
    samples: int
    """Number of answers."""


@dataclass(frozen=True, slots=True)
class _Predicted:
    """Mean length of answers over rows."""

    mean: float
    error: float
    spread: float
    """Standard deviation over rows."""


@dataclass(slots=True)
class Costs:
    """Costs of arms, estimated from their own samples, else from those of the same region or model."""

    pool: Pool
    tune: Sequence[int]
    """Tuning rows."""
    guard: Sequence[int] = ()
    """Rows that the winner will be judged on; empty: unknown, as many as ``tune``."""
    _seen: dict[str, dict[tuple[str, int], Arm]] = field(default_factory=dict)
    """Group to its cells; in insertion order, so that equal searches sum in the same order."""
    _notes: dict[str, int] = field(default_factory=dict)
    """Group to the number of updates."""
    _known: dict[tuple[str, str, int | None], tuple[int, int, _Lengths]] = field(default_factory=dict)
    """Estimates, with the update counts of group and model that they are based on."""
    _row_means: dict[tuple[str, int | None], tuple[int, dict[int, _Row]]] = field(default_factory=dict)
    _lines: dict[str, tuple[int, tuple[float, float, float]]] = field(default_factory=dict)
    """Group to mean bytes and tokens of its prompts, and tokens for one more byte."""
    _estimates: dict[str, tuple[_Lengths | None, Sequence[Cost | None]]] = field(default_factory=dict)
    """Estimates by arm, with the lengths they are based on."""
    _mean_sizes: dict[str, float] = field(default_factory=dict)
    """Template to mean bytes of its prompts over the target rows."""
    _means: dict[tuple[str, int, int | None], tuple[Cell, float]] = field(default_factory=dict)
    """Mean lengths, with the cell of each."""
    _sizes: dict[tuple[str, int], int] = field(default_factory=dict)

    def note(self, arm: Arm, row: int) -> None:
        """Update after new samples of this arm for this row."""
        for group in arm.groups:
            self._seen.setdefault(group, {})[arm.key, row] = arm
            self._notes[group] = self._notes.get(group, 0) + 1
        if row in self.guard:
            self._known.clear()  # an answer to a target row improves the estimates of all arms of the model

    def estimate(self, arm: Arm, n: int, limit: int | None = None) -> Cost | None:
        """Estimated cost on the target rows; None if nothing is known about the model."""
        lengths = self._lengths_of(arm, limit)
        if lengths is None:
            return None
        price = self.pool.prices.price(arm.model)
        input_price, output_price = float(price.input) / 1e6, n * float(price.output) / 1e6
        input_price *= -(-n // self.pool.most.get(arm.model, n))
        error = math.hypot(
            input_price * lengths.prompt_error,
            output_price * math.hypot(lengths.between, lengths.within / math.sqrt(n)),
        )
        return Cost(input_price * lengths.prompt + output_price * lengths.answer, error)

    def estimates(self, arm: Arm, counts: Sequence[int]) -> Sequence[Cost | None]:
        """Costs for each number of answers; the same object until the next update."""
        lengths = self._lengths_of(arm, None)
        known = self._estimates.get(arm.key)
        if known is None or known[0] is not lengths:
            known = self._estimates[arm.key] = lengths, [self.estimate(arm, n) for n in counts]
        return known[1]

    def prompt(self, arm: Arm) -> float:
        """Mean USD of sending the prompt once, over the target rows; 0 if unknown."""
        lengths = self._lengths_of(arm, None)
        return 0.0 if lengths is None else float(self.pool.prices.price(arm.model).input) / 1e6 * lengths.prompt

    def longest(self, arm: Arm) -> int:
        """The most tokens of an answer of the arm, else of related arms."""
        group = self._group(arm)
        cells = [self.pool.cells[key] for key in self._seen[group]] if group else []
        return max((sample.tokens for cell in cells for sample in cell.samples), default=0)

    def _group(self, arm: Arm) -> str | None:
        """The narrowest of the arm's groups that has samples; None: none has."""
        return next((group for group in arm.groups if group in self._seen), None)

    def _lengths_of(self, arm: Arm, limit: int | None) -> _Lengths | None:
        group = self._group(arm)
        if group is None:
            return None
        key = (group, arm.template.fingerprint, limit)
        own, wide = self._notes[group], self._notes[arm.model]
        known = self._known.get(key)
        if known is None or known[0] != own or wide > known[1] + wide // _LITTLE:
            known = self._known[key] = own, wide, self._lengths(arm, group, limit)
        return known[2]

    def _lengths(self, arm: Arm, group: str, limit: int | None) -> _Lengths:
        """Combine prompts, known or predicted for every row, with answers, known for some."""
        own = self._rows(group, limit)
        wide = own if group == arm.model else self._rows(arm.model, limit)
        judged = self.guard or self.tune
        answer = _predicted(own, wide, judged if self.guard else ())
        within = _WITHIN * answer.spread
        luck = within * math.sqrt(math.fsum(1 / own[row].samples for row in own if row in judged)) / len(judged)
        between = math.hypot(answer.error, luck) * (1.0 if group == arm.key else _BORROWED)
        prompt = self._prompt(arm, group)
        if self.guard:
            prompt_error, within = 0.0, within / math.sqrt(len(judged))
        else:  # unknown rows, as many as these
            slope = self._line(group)[2]
            prompts = [max(1.0, prompt + slope * (self._size(arm, row) - self._mean_size(arm))) for row in judged]
            prompt_error, within = _spread(prompts) * math.sqrt(2 / len(judged)), 0.0
            between = math.hypot(between, answer.spread / math.sqrt(len(judged)))
        return _Lengths(prompt, prompt_error, answer.mean, between, within)

    def _rows(self, group: str, limit: int | None) -> dict[int, _Row]:
        """Mean length of the group's answers per row, in tokens of the output rate."""
        known = self._row_means.get((group, limit))
        if known is not None and known[0] == self._notes[group]:
            return known[1]
        cells: dict[int, list[tuple[float, int]]] = {}
        for (key, row), other in self._seen[group].items():
            samples = len(self.pool.cells[key, row].samples)
            cells.setdefault(row, []).append((self._answer(key, row, other, limit), samples))
        found = {
            row: _Row(statistics.fmean(length for length, _ in each), sum(count for _, count in each))
            for row, each in cells.items()
        }
        self._row_means[group, limit] = self._notes[group], found
        return found

    def _answer(self, key: str, row: int, arm: Arm, limit: int | None) -> float:
        """Mean length of an answer, in tokens of the output rate."""
        cell = self.pool.cells[key, row]
        if (memo := self._means.get((key, row, limit))) is not None and memo[0] is cell:
            return memo[1]
        samples = cell.samples if limit is None else ([s for s in cell.samples if s.exact] or cell.samples)
        tokens = [sample.tokens if limit is None else min(sample.tokens, limit) for sample in samples]
        rate = float(self.pool.prices.price(arm.model).output) / 1e6
        mean = statistics.fmean(tokens) + (cell.extra / rate if rate else 0.0)
        self._means[key, row, limit] = cell, mean
        return mean

    def _prompt(self, arm: Arm, group: str) -> float:
        """Mean tokens of the target rows' prompts, linear in their bytes."""
        size, tokens, slope = self._line(group)
        return max(1.0, tokens + slope * (self._mean_size(arm) - size))

    def _line(self, group: str) -> tuple[float, float, float]:
        """Mean bytes and tokens of a group's prompts, and tokens per additional byte.

        With few rows, the slope is shrunk towards a token per four bytes; the intercept is common to all prompts.
        """
        known = self._lines.get(group)
        if known is not None and known[0] == self._notes[group]:
            return known[1]
        points = sorted(
            {
                (self._size(other, row), self.pool.cells[key, row].prompt)
                for (key, row), other in self._seen[group].items()
            }
        )
        size = statistics.fmean(x for x, _ in points)
        tokens = statistics.fmean(y for _, y in points)
        weight = _SLOPE_WEIGHT * (0.1 * tokens) ** 2
        above = math.fsum((x - size) * (y - tokens) for x, y in points) + weight * _SLOPE
        below = math.fsum((x - size) ** 2 for x, _ in points) + weight
        found = size, tokens, above / below if below else _SLOPE
        self._lines[group] = self._notes[group], found
        return found

    def _mean_size(self, arm: Arm) -> float:
        """Mean bytes of an arm's prompts over the target rows."""
        name = arm.template.fingerprint
        if name not in self._mean_sizes:
            self._mean_sizes[name] = statistics.fmean(self._size(arm, row) for row in self.guard or self.tune)
        return self._mean_sizes[name]

    def _size(self, arm: Arm, row: int) -> int:
        """Bytes of a row's prompt."""
        key = arm.template.fingerprint, row
        if key not in self._sizes:
            messages = arm.template.render(self.pool.rows[row].row)
            self._sizes[key] = sum(len(str(message.get("content")).encode("utf-8", "replace")) for message in messages)
        return self._sizes[key]


@dataclass(slots=True)
class TaskCosts(Costs):
    """Like ``Costs``, with the cost of a run instead of an answer's length, and without prompts."""

    def estimate(self, arm: Arm, n: int, limit: int | None = None) -> Cost | None:
        """Estimated cost on the target rows; None if nothing is known about the model."""
        runs = self._lengths_of(arm, limit)
        if runs is None:
            return None
        error = math.hypot(runs.between, runs.within / math.sqrt(n))
        return Cost(n * runs.answer / _SCALE, n * error / _SCALE)

    def prompt(self, arm: Arm) -> float:  # noqa: ARG002
        return 0.0

    def _answer(self, key: str, row: int, arm: Arm, limit: int | None) -> float:  # noqa: ARG002
        """Cost of a run, including grading, in millionths of a USD."""
        cell = self.pool.cells[key, row]
        return _SCALE * (float(sum(sample.usd for sample in cell.samples)) / len(cell.samples) + cell.extra)

    def _prompt(self, arm: Arm, group: str) -> float:  # noqa: ARG002
        return 0.0

    def _line(self, group: str) -> tuple[float, float, float]:  # noqa: ARG002
        return 0.0, 0.0, 0.0

    def _size(self, arm: Arm, row: int) -> int:  # noqa: ARG002
        return 0


def _predicted(own: Mapping[int, _Row], wide: Mapping[int, _Row], judged: Sequence[int]) -> _Predicted:
    """Mean length over rows, known for some, by a ratio estimate from related arms' answers to more rows.

    Rows with long answers have them in all arms of a model (Cochran 1977, chapter 6).

    Args:
        judged: the target rows; empty: a population of which these are a sample.
    """
    ratio = math.fsum(found.length for found in own.values()) / max(1e-9, math.fsum(wide[row].length for row in own))
    spread = ratio * _spread([found.length for found in wide.values()])
    residuals = [found.length - ratio * wide[row].length for row, found in own.items()]
    level = statistics.fmean(found.length for found in own.values())
    prior = _PRIOR_ROWS * (level * _RESIDUAL) ** 2
    noise = math.sqrt((math.fsum(value * value for value in residuals) + prior) / (len(own) + _PRIOR_ROWS))
    middle = ratio * statistics.fmean(found.length for found in wide.values())
    if not judged:
        return _Predicted(middle, math.hypot(spread / math.sqrt(len(wide)), noise / math.sqrt(len(own))), spread)
    known = [found.length for row, found in own.items() if row in judged]
    close = [ratio * found.length for row, found in wide.items() if row in judged and row not in own]
    out = 1 - sum(row in judged for row in wide) / len(judged)
    guessed = 1 - len(known) / len(judged)
    total = math.fsum(known) + math.fsum(close) + (len(judged) - len(known) - len(close)) * middle
    variance = guessed**2 * noise**2 / len(own) + guessed * noise**2 / len(judged)
    variance += spread**2 * (out**2 / len(wide) + out / len(judged))
    return _Predicted(total / len(judged), math.sqrt(variance), spread)


def _spread(values: Sequence[float]) -> float:
    """Standard deviation over rows, shrunk towards half the mean if they are few."""
    mean = statistics.fmean(values)
    squares = math.fsum((value - mean) ** 2 for value in values) + _PRIOR_ROWS * (mean / 2) ** 2
    return math.sqrt(squares / (len(values) - 1 + _PRIOR_ROWS))
