"""Prompts written by a model between rounds of a search, and the rows set aside to show to it.

Some tuning rows, chosen by their content, are never scored: they are shown to the proposer or used as examples in prompts.
So every score is measured on rows that no written prompt has seen.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import statistics
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_llmtune._dataclass import dataclass, field, replace
from pytest_llmtune._util.jsonhash import build
from pytest_llmtune._util.stats import bootstrap_mean
from pytest_llmtune._util.text import InvalidError, counted, number
from pytest_llmtune.completions.billing import worst_case
from pytest_llmtune.errors import BudgetExhaustedError, CompletionError, EndpointError, SuiteError
from pytest_llmtune.suite.keys import SCORES
from pytest_llmtune.suite.propose import Failure, Propose, Proposer, rewritten, text_of, with_shots
from pytest_llmtune.suite.suite import reference_columns
from pytest_llmtune.tuning.loop import fitting
from pytest_llmtune.tuning.proposals import Arm
from pytest_llmtune.tuning.samples import Meter
from pytest_llmtune.tuning.selection import SAFE, by_posterior, ranked, scores_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmtune.data.split import Split
    from pytest_llmtune.suite import Space, Suite
    from pytest_llmtune.tuning.allocation import Candidate
    from pytest_llmtune.tuning.loop import Search
    from pytest_llmtune.types import Example, Row


_LESSONS = 12
"""Maximum number of tuning rows set aside for the proposer; never more than a third of them."""
_SHOWN = 8
"""Maximum number of failures in one request."""
_PARENTS = 2
"""Number of templates rewritten in a round."""
_LENGTH = 1500
"""Maximum tokens of a written template."""
_FOLDS = 5


def lessons_of(suite: Suite, split: Split) -> list[int]:
    """Indices of the tuning rows that are shown and not scored; empty without ``propose`` and ``shots``.

    They are chosen by a hash of their prompt; rows with the same prompt as a test row are left out.

    Raises:
        SuiteError: too few rows, or the guard uses the tuning rows.
    """
    space, rows = suite.space, split.tune
    count = max(*space.shots, min(_LESSONS, len(rows) // 3) if space.proposing else 0, 0)
    if not space.writes:
        return []
    what = "propose" if space.proposing else "shots"
    if split.reused:
        raise SuiteError(
            f"{suite.at('tune_size')}: {what} needs tuning rows that the guard does not use; give more rows, or a smaller "
            "tune_size"
        )

    def prompt(example: Example) -> str:
        messages = space.templates[0].render(example.row)
        return json.dumps(messages, ensure_ascii=True, sort_keys=True, default=str)

    guarded = {prompt(example) for example in split.test}
    free = [index for index, example in enumerate(rows) if prompt(example) not in guarded]
    free.sort(key=lambda index: hashlib.sha256(f"{suite.seed}/{prompt(rows[index])}".encode()).digest())
    if not count or len(free) < count or len(rows) - count < 2:
        raise SuiteError(
            f"{suite.at('tune_size')}: tune_size={suite.tune_size} leaves too few rows to score on beside those that {what} shows; "
            "give more"
        )
    return free[:count]


def _reference(suite: Suite, row: Row) -> str:
    """A row's reference as text; empty if the grader needs none."""
    return next((str(row[name]) for name in sorted(reference_columns(suite.grader, tuple(row)))), "")


def space_with_shots(suite: Suite, rows: Sequence[Example]) -> Space:
    """The suite's space with every combination of template and number of examples.

    Raises:
        SuiteError: a row has no reference.
    """
    space = suite.space
    examples = [(example.row, _reference(suite, example.row)) for example in rows[: max(space.shots)]]
    if not all(expected for _, expected in examples):
        raise SuiteError(f"{suite.at('shots')}: an example needs its right answer, and the rows have no such column")
    templates = (with_shots(template, examples[:count]) for count in space.shots for template in space.templates)
    return replace(space, templates=tuple(templates))


@dataclass(frozen=True, slots=True)
class ModelProposer:
    """Asks for one better template with a fixed instruction."""

    def prompt(self, template: str, failures: Sequence[Failure]) -> str:
        shown = "\n\n".join(
            f"Input:\n{one.question}\nWrong answer:\n{one.answer}"
            + (f"\nRight answer:\n{one.expected}" if one.expected else "")
            for one in failures
        )
        return (
            "A language model is asked with this prompt template. Names in single braces are replaced by a row's columns.\n"
            f"<template>\n{template}\n</template>\n\nOn these inputs it did not answer as it should:\n\n{shown}\n\n"
            "Find out what it gets wrong in general, and write one better template for all inputs of this kind. Keep the names "
            "in single braces exactly as they are; write any other brace twice. Do not answer these inputs, and do not copy them "
            "into the template. Reply with the template alone, between <template> and </template>."
        )

    def read(self, answer: str) -> str:
        found = re.findall(r"<template>(.*?)</template>", answer, re.DOTALL)
        return str(found[-1] if found else answer).strip()


@dataclass(frozen=True, slots=True)
class GepaProposer:
    """Asks with GEPA's reflection prompt (Agrawal et al. 2025, arXiv:2507.19457), from the package ``gepa``."""

    signature: Any = None

    @classmethod
    def of(cls, where: str) -> GepaProposer:
        """Raises SuiteError if ``gepa`` is not installed."""
        try:
            from gepa.strategies.instruction_proposal import InstructionProposalSignature
        except ImportError:
            raise SuiteError(f"{where}: propose by gepa needs pip install 'pytest-llmtune[gepa]'") from None
        return cls(InstructionProposalSignature)

    def prompt(self, template: str, failures: Sequence[Failure]) -> str:
        records = [
            {
                "Inputs": one.question,
                "Generated Outputs": one.answer,
                "Feedback": f"This is wrong. The right answer is: {one.expected}"
                if one.expected
                else "This is not good.",
            }
            for one in failures
        ]
        prompt = self.signature.prompt_renderer({"current_instruction_doc": template, "dataset_with_feedback": records})
        return (
            f"{prompt}\n\nThe instructions are a format string: keep the names in single braces exactly as they are, and write "
            "any other brace twice."
        )

    def read(self, answer: str) -> str:
        return str(self.signature.output_extractor(answer)["new_instruction"])


@dataclass()
class PromptRounds:
    """The rounds of prompt writing in one search."""

    search: Search
    proposing: Propose
    proposer: Proposer
    lessons: Sequence[int]
    """Indices of the rows that may be shown to the proposer."""
    written: set[str] = field(default_factory=set)
    """Fingerprints of the accepted templates."""
    refused: list[str] = field(default_factory=list)
    """Why the other templates were rejected."""
    unpaid: bool = False
    """Whether the budget was too small for a request to the proposer."""

    @classmethod
    def of(cls, search: Search, lessons: Sequence[int]) -> PromptRounds | None:
        """The rounds of a search, for which budget and trials are reserved; None if the suite has no ``propose``.

        Raises:
            SuiteError: the proposer's package is not installed.
        """
        proposing, suite = search.suite.space.proposing, search.suite
        if proposing is None:
            return None
        proposer, rounds = proposing.by, proposing.rounds
        if isinstance(proposer, str):
            proposer = GepaProposer.of(suite.at("prompt")) if proposer == "gepa" else ModelProposer()
        search.for_prompts = (suite.optimization_budget or Decimal(0)) * rounds / (rounds + 1)
        if suite.num_samples > 0:
            search.prompt_trials = min(rounds * proposing.per_round, suite.num_samples // 2)
        return cls(search, proposing, proposer, lessons)

    async def run(self, stopped_by: str) -> str:
        """Run all rounds after the first search; returns why the last one stopped."""
        search = self.search
        for remaining in range(self.proposing.rounds, 0, -1):
            search.for_prompts -= search.for_prompts / remaining
            search.prompt_trials -= search.prompt_trials // remaining
            if not await self._round(self.proposing.rounds - remaining + 1):
                search.for_prompts, search.prompt_trials = Decimal(0), 0
                return await search.resume()
            await search.try_all(Decimal(1))
            self._vary()
            stopped_by = await search.resume()
        return stopped_by

    def _vary(self) -> None:
        """Add the best of the written templates to the search with every model and other parameters."""
        search = self.search
        best = by_posterior(search.race, search.race.candidates(0.0, min_rows=1))
        templates = [one.candidate.trial.arm.template for one in best]
        for template in [one for one in templates if one.fingerprint in self.written][:1]:
            known = {trial.arm.key for trial in search.race.trials}
            found = (arm for arm in search.proposals.variants(template) if arm.key not in known)
            for arm in itertools.islice(found, search.free_trials()):
                search.race.enter(arm)

    async def _round(self, round_: int) -> bool:
        """Have the best templates rewritten from their failures; returns whether a new template was accepted."""
        parents: dict[str, Candidate] = {}
        for one in ranked(self.search.race, 0.0):
            parents.setdefault(one.candidate.trial.arm.template.fingerprint, one.candidate)
        chosen, before = list(parents.values())[:_PARENTS], len(self.written)
        share = -(-self.proposing.per_round // max(1, len(chosen)))
        for parent in chosen:
            failures = await self._failures(parent)
            if failures:
                await self._write(parent.trial.arm, failures, share, round_)
        return len(self.written) > before

    async def _failures(self, parent: Candidate) -> list[Failure]:
        """Rows set aside that the configuration got wrong, the worst first."""
        search, arm = self.search, parent.trial.arm
        pool, n = search.race.pool, arm.family.counts[0]
        missing = (row for row in self.lessons if not pool.cell(arm, row).samples)
        rows = fitting(missing, lambda row: pool.worst(arm, row, n), search.remaining())
        await search.ask([(parent.trial, row, n) for row in rows])
        cells = [(row, cell) for row in self.lessons if (cell := pool.cell(arm, row)).samples and cell.scores]
        cells.sort(key=lambda one: search.race.sign * one[1].scores[min(one[1].scores)])
        if pool.scorer.metric in SCORES and search.race.sign > 0:
            cells = [(row, cell) for row, cell in cells if cell.scores[min(cell.scores)] < 1]
        else:  # no threshold for a free score: take the worse half
            cells = cells[: -(-len(cells) // 2)]
        return [
            Failure(
                str(arm.template.render(pool.rows[row].row)[-1]["content"]),
                _reference(search.suite, pool.rows[row].row),
                next((s.text for s in cell.samples if s.answer is None or not s.answer.correct), cell.samples[0].text),
            )
            for row, cell in cells[:_SHOWN]
        ]

    async def _write(self, arm: Arm, failures: Sequence[Failure], count: int, round_: int) -> None:
        """Ask for new versions of the arm's template, and add them to the search with the arm's parameters."""
        search, pool = self.search, self.search.race.pool
        count = min(count, search.free_trials()) if search.suite.num_samples >= 0 else count
        limit = arm.family.limit_name or "max_tokens"
        prompt = self.proposer.prompt(text_of(arm.template) or "", failures)
        body = {"model": self.proposing.model, limit: _LENGTH, "messages": [{"role": "user", "content": prompt}]}
        price, remaining = pool.prices.price(self.proposing.model), search.remaining()
        while count > 0 and remaining is not None and worst_case(price, body, count) > remaining:
            count -= 1
        if count < 1:
            self.unpaid = True
            return
        meter = Meter(pool.source, pool.prices, pool.log)
        try:
            completion = await meter.complete(build(body, count))
        except EndpointError:
            raise
        except BudgetExhaustedError:
            self.unpaid = True
            return
        except CompletionError as error:
            self.refused.append(str(error))
            return
        finally:
            search.spent += meter.paid
        for choice in completion.choices:
            why = self._enter(arm, choice.text, cut=choice.finish_reason == "length")
            pool.log.write({"round": round_, "proposed": self.proposer.read(choice.text), "refused": why})
            self.refused += [why] if why else []

    def _enter(self, arm: Arm, answer: str, *, cut: bool) -> str | None:
        """Add a written template to the search; returns the reason if it is rejected."""
        if cut:
            return "it was cut off"
        try:
            columns = tuple(self.search.race.pool.rows[0].row)
            template = rewritten(arm.template, self.proposer.read(answer), columns)
        except (InvalidError, SuiteError) as error:
            return f"it {error}" if str(error).startswith(("is ", "names ", "has ")) else str(error)
        known = {trial.arm.template.fingerprint for trial in self.search.race.trials}
        if template.fingerprint in known:
            return "it is in the race already"
        self.written.add(template.fingerprint)
        self.search.race.enter(Arm(arm.params, template, arm.family))
        return None

    # -- results

    def note(self) -> str:
        """One sentence: the number of prompts written, and their gain on rows that the proposer never saw."""
        refused = f", {len(self.refused)} more were refused (the first: {self.refused[0]})" if self.refused else ""
        unpaid = "; the optimization budget did not reach every request to it" if self.unpaid else ""
        text = f"{self.proposing.model} wrote {counted(len(self.written), 'prompt')}{refused}{unpaid}"
        gains = self.gains
        if len(gains) < 2:
            return f"{text}; too few rows to say what they gain" if self.written else text
        mean, interval = statistics.fmean(gains), bootstrap_mean(gains)
        bounds = f"{number(interval.low)} to {number(interval.high)}"
        figures = f"{number(mean)} ({bounds}) on {len(gains)} rows that it never saw"
        if interval.low > 0:
            return f"{text}; over the suite's own prompts they gained {figures}"
        return f"{text}; no gain over the suite's own prompts can be claimed: {figures}"

    @property
    def helped(self) -> bool:
        """Whether the written prompts scored higher in sum, significantly or not."""
        return math.fsum(self.gains) > 0

    @cached_property
    def gains(self) -> list[float]:
        """Per scored row: score of the best written prompt minus that of the suite's best, both chosen on the other folds.

        To be read after the search has ended.
        """
        race, gains = self.search.race, list[float]()
        for fold in range(_FOLDS):
            inside = frozenset(row for row in range(len(race.order)) if row % _FOLDS == fold)
            best = by_posterior(race, race.candidates(SAFE, min_rows=1) or race.candidates(0.0, min_rows=1), inside)
            mine: dict[bool, Candidate] = {}
            for one in best:
                mine.setdefault(one.candidate.trial.arm.template.fingerprint in self.written, one.candidate)
            for row in sorted(inside) if len(mine) == 2 else ():
                new, old = (
                    scores_of(race, mine[own], [row]) if row in mine[own].trial.answers else [] for own in (True, False)
                )
                if new and old:
                    gains.append(race.sign * (new[0] - old[0]))
        return gains
