"""Estimate what a search over a task may cost, without sending a request."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from pytest_llmtune._util.text import counted, dollars
from pytest_llmtune.errors import CompletionError
from pytest_llmtune.suite.domains import n_bounds

if TYPE_CHECKING:
    from pytest_llmtune.capture.tariff import Tariff
    from pytest_llmtune.recording import Recording
    from pytest_llmtune.suite import Split, Suite
    from pytest_llmtune.tasks.source import TaskSource


async def estimate(suite: Suite, split: Split, tariff: Tariff, recording: Recording, source: TaskSource) -> str:
    """An estimate in a few sentences.

    Args:
        recording: the recording of the suite's winner, if any, whose runs show how many calls a run takes.
        source: with the network blocked; runs the probe row up to its first call.
    """
    most = max(n_bounds(suite.space.for_model(model).get("n"))[1] for model in suite.space.models)
    trials = suite.num_samples if suite.num_samples > 0 else None
    runs = recording.run_costs(tariff.charge)
    if runs:
        calls, costs = (sum(each) / len(runs) for each in zip(*runs, strict=True))
        per_run = Decimal(f"{costs:.6g}")
        known = (
            f"a run makes {calls:.3g} calls and costs about {dollars(per_run)}, by {counted(len(runs), 'recorded run')}"
        )
    else:
        per_run = await _first_call(suite, split, source)
        known = (
            f"nothing is recorded yet: the first call of a run on row {(split.tune or split.test)[0].index} costs at most "
            f"{dollars(per_run)}; how many follow is known once it has run, so the figures below count that call alone"
        )
    search = None if trials is None else trials * len(split.tune) * most * per_run
    bounds = [bound for bound in (suite.optimization_budget, search) if bound is not None]
    budget = f", never more than {dollars(suite.optimization_budget)}" if suite.optimization_budget is not None else ""
    winner = len(split.test) * most * per_run
    return (
        f"{suite.name}: {known}\n"
        f"{suite.name}: {'any number of' if trials is None else f'at most {trials}'} trials on {len(split.tune)} rows, with up "
        f"to {counted(most, 'run')} each, cost about {dollars(min(bounds, default=Decimal(0)))}{budget}; then the winner on "
        f"{len(split.test)} rows costs about {dollars(winner)}"
    )


async def _first_call(suite: Suite, split: Split, source: TaskSource) -> Decimal:
    """The worst case of the first call of the untuned configuration."""
    [example, *_] = split.tune or split.test
    try:
        await source.complete(suite.space.first().request_for(example))
    except CompletionError:
        pass  # the call was not answered
    finally:
        await source.aclose()
    return source.first_worst
