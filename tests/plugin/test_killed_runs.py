"""Real runs of pytest that are killed (SIGKILL) and begun again: nothing stored is paid twice, the files are the same.

Fifty moments, with figures: benchmarks/kills.py.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from support.kills import Counts, Project, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CONCURRENCY = 4  # of the suite


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server in a process of its own."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def searched(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Counts]:
    """A project after a search that nobody disturbed, and what the server saw of it."""
    project = Project(tmp_path_factory.mktemp("killed") / "searched", server)
    project.run("tune")
    return project, server.counts("forget")


def assert_paid_once(found: Counts, undisturbed: Counts, kills: int) -> None:
    """Every sample was paid for once, those apart that were on their way when a process died."""
    assert found.answered == undisturbed.answered
    assert found.requests == undisturbed.requests + found.lost
    assert found.lost <= CONCURRENCY * kills


def test_a_search_that_is_killed_ends_as_if_it_had_not_been(searched: tuple[Project, Counts]) -> None:
    """Killed at random moments and as its last act: the same lock file, baseline and recording, and all paid once."""
    whole, seen = searched
    moments, project = random.Random(7), Project(whole.path.with_name("killed search"), whole.server)
    for _ in range(2):
        assert not project.run("tune", requests=moments.randint(1, seen.requests // 3))
    assert not project.run("tune", at_end=True)
    assert project.run("tune")
    assert_paid_once(whole.server.counts("forget"), seen, project.kills)
    assert project.files() == whole.files()


def test_a_recording_that_is_killed_ends_as_if_it_had_not_been(searched: tuple[Project, Counts]) -> None:
    """Killed on its way and when all was written but not told: the same files, all paid once; the next asks anew."""
    server = searched[0].server
    whole, project = (searched[0].copy(name) for name in ("recorded", "killed recording"))
    whole.run("record")
    seen = server.counts("forget")
    assert seen.requests > 20
    assert not project.run("record", requests=random.Random(8).randint(1, 20))
    assert not project.run("record", at_end=True)
    assert project.run("record")
    assert_paid_once(server.counts("forget"), seen, project.kills)
    assert project.files() == whole.files()
    project.run("record")
    assert server.counts("forget").requests == seen.requests
