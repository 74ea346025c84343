"""What every test of the package starts from: no key, no option, no endpoint in the environment."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.ray_cluster import RayCluster

# a busy machine is no bug; what lands is decided on the same examples each time, new ones are searched for at a desk
_LANDS = os.environ.get("CI") == "true"
hypothesis.settings.register_profile("llmtune", deadline=None, derandomize=_LANDS, max_examples=50 if _LANDS else 100)
hypothesis.settings.load_profile("llmtune")

pytest_plugins = ["pytester"]

# hundreds of inner runs: each would compile the whole package anew, which took a fifth of the time
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own keys and options reach no test."""
    for name in list(os.environ):
        if name.startswith(("LLMTUNE_", "OPENAI_", "AZURE_OPENAI_", "GITHUB_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A real Ray cluster of two nodes, whose many processes are gone when a module is done."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    from support.ray_cluster import running

    with running() as started:
        yield started
