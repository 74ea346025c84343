"""The same core without pytest: for scripts and notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_llmtune.completions.ledger import Ledger
from pytest_llmtune.outcome import Place
from pytest_llmtune.redacting import redactor_of
from pytest_llmtune.running import run_async
from pytest_llmtune.settings import Settings
from pytest_llmtune.suite import Config, Suite
from pytest_llmtune.workflow import SuiteRun

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmtune.model import Completion, Evaluation
    from pytest_llmtune.tuning import Study

__all__ = ["Tuned", "complete", "evaluate", "tune"]


def _run(suite: Suite, settings: Settings | None) -> SuiteRun:
    settings = settings or Settings()
    place = Place(suite.name, suite.where_declared, 1, Path(suite.base_dir) / "llmtune")
    return SuiteRun(suite, settings, place, Ledger(), redactor_of(settings))


class Tuned(NamedTuple):
    """What ``tune`` found: ``config, analysis = tune(suite)``."""

    config: Config
    """The best configuration within the budgets."""
    analysis: Study
    """``best_result``, ``trials``, and ``summary`` (scores with intervals, USD spent)."""


def tune(suite: Suite, *, log_file_name: str | Path | None = None, settings: Settings | None = None) -> Tuned:
    """Search the suite's space on its tuning rows; writes nothing but the cache and the log below ``settings.root``.

    Args:
        log_file_name: where the study is logged, JSON lines: what it paid for, and every trial. A killed search goes on
            from it. Default: ``.llmtune/studies/<suite>.jsonl``.

    Raises:
        LLMTuneError: no configuration is within the inference budget, an endpoint refuses, a grader is vacuous.
    """
    study = run_async(_run(suite, settings).search(None if log_file_name is None else Path(log_file_name)))
    return Tuned(study.winner, study)


def evaluate(
    suite: Suite, config: Config | Mapping[str, Any] | None = None, *, settings: Settings | None = None
) -> Evaluation:
    """One configuration over the suite's test rows, live, from the cache where it was asked before.

    Args:
        config: as in a lock file, or a ``Config``; None: the suite's untuned configuration.
    """
    run = _run(suite, settings)
    if config is None:
        config = suite.space.first()
    if not isinstance(config, Config):
        config = Config.from_lock(config, suite.space.templates)
    return run_async(run.evaluate_live(config))


def complete(
    config: Config | Mapping[str, Any], row: Mapping[str, Any], *, settings: Settings | None = None
) -> Completion:
    """The answers of one configuration to one row: ``[choice.text for choice in completion.choices]``.

    Args:
        config: OpenAI parameters by their own names, and ``prompt`` or ``messages`` with ``{column}`` fields.
        row: what the template's fields stand for.

    Raises:
        SuiteError: the template names a column that the row lacks.
        CompletionError: no endpoint could complete it.
    """
    from pytest_llmtune.completions.endpoint_list import endpoints_of
    from pytest_llmtune.completions.pricing import PriceBook
    from pytest_llmtune.completions.source import LiveSource
    from pytest_llmtune.completions.trust import Trust

    chosen, settings = config if isinstance(config, Config) else Config.from_lock(config), settings or Settings()
    source = LiveSource(
        endpoints_of(
            settings.endpoints,
            base_url=settings.base_url,
            root=settings.root,
            trust=Trust.of(hosts=settings.trust_hosts),
        ),
        PriceBook(settings.prices),
        timeout=settings.timeout,
    )

    async def ask() -> Completion:
        try:
            return await source.complete(chosen.request(row))
        finally:
            await source.aclose()

    return run_async(ask())
