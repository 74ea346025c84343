"""Which rows are of which shard, and what shards are together."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from support.results import evaluation, report, result

from pytest_llmtune.data.dataset import with_ids
from pytest_llmtune.errors import ReportError
from pytest_llmtune.guard.result import RecordingFacts
from pytest_llmtune.guard.shards import merged
from pytest_llmtune.suite import Config
from pytest_llmtune.suite.prompts import Template
from pytest_llmtune.types import Shard, ShardFacts

ROWS = [{"question": f"What is {number}?"} for number in range(2000)]


def test_every_row_is_of_exactly_one_shard_of_about_equal_size() -> None:
    """Fifths of 2,000 rows are fifths, near enough, and leave no row out."""
    examples = with_ids(enumerate(ROWS))
    shards = [Shard(index, 5) for index in range(1, 6)]
    counts = Counter(shard.index for example in examples for shard in shards if shard.holds(example))
    assert counts.total() == len(ROWS)
    assert all(330 < count < 470 for count in counts.values())


def test_appended_and_moved_rows_move_no_other() -> None:
    """A row's content decides alone, whatever comes before or after it."""
    shard = Shard(2, 5)
    before = {example.id for example in with_ids(enumerate(ROWS[:1000])) if shard.holds(example)}
    after = {example.id for example in with_ids(enumerate(reversed(ROWS))) if shard.holds(example)}
    assert before == after & {example.id for example in with_ids(enumerate(ROWS[:1000]))}


def test_equal_rows_are_of_one_shard() -> None:
    """Rows that repeat are counted apart by their ids, and stay together."""
    examples = with_ids(enumerate([ROWS[7]] * 4))
    assert len({example.id for example in examples}) == 4
    assert sum(Shard(1, 3).holds(example) for example in examples) in (0, 4)


@pytest.mark.parametrize(
    ("days", "oldest"), [(("2026-01-02", "2020-01-31"), "2020-01-31"), (("", "2026-01-02"), "2026-01-02")]
)
def test_the_oldest_answer_is_that_of_all_shards(days: tuple[str, str], oldest: str) -> None:
    """Each replays its own rows, and knows their answers' days only."""
    results = [result(0), result(1)]
    parts = [
        report(
            evaluation([results[index]]),
            shard=ShardFacts(index + 1, 2, 2, {}),
            recording=RecordingFacts("a.cassette.json", 2, 100, oldest=day),
        )
        for index, day in enumerate(days)
    ]
    config = Config({"model": "m"}, Template.prompt("{problem}"))
    facts = merged(parts, [each.example for each in results], {}, config).facts
    assert facts is not None
    assert facts.oldest == oldest


@pytest.mark.parametrize(
    ("state", "recording", "mode", "row", "message"),
    [
        ({"dataset": "b"}, 100, "replay", 1, "shard 2/2 was run with a different dataset; run every shard once"),
        ({}, 101, "replay", 1, "shard 2/2 was run with a different recording; run every shard once"),
        ({}, 100, "live", 1, "shard 2/2 was run with a different mode (live, not replay); run every shard once"),
        ({}, 100, "replay", 2, "the shards and the suite differ in 2 rows; run every shard once"),
    ],
)
def test_shards_of_different_runs_are_not_one_result(
    state: dict[str, str], recording: int, mode: str, row: int, message: str
) -> None:
    """Other data, another recording, another mode, or other rows: what does not belong together is refused."""
    facts = [RecordingFacts("a.cassette.json", 2, size) for size in (100, recording)]
    shards = [
        report(evaluation([result(0)]), shard=ShardFacts(1, 2, 2, {}), recording=facts[0]),
        report(evaluation([result(row)]), shard=ShardFacts(2, 2, 2, state), recording=facts[1], mode=mode),
    ]
    rows = [result(0).example, result(1).example]
    with pytest.raises(ReportError, match=re.escape(message)):
        merged(shards, rows, {}, Config({"model": "m"}, Template.prompt("{problem}")))
