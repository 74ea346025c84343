"""What every test of the package starts from: no key, no option, no endpoint in the environment."""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.metadata
import os
import pkgutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import pytest_llmtune

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.live import Live
    from support.ray_cluster import RayCluster

# a busy machine is no bug; what lands is decided on the same examples each time, new ones are searched for at a desk
_LANDS = os.environ.get("CI") == "true"
hypothesis.settings.register_profile("llmtune", deadline=None, derandomize=_LANDS, max_examples=50 if _LANDS else 100)
hypothesis.settings.load_profile("llmtune")

pytest_plugins = ["pytester"]
collect_ignore = ["first_release"]

LIGHT = "-p no:hypothesispytest -p no:anyio -p no:randomly"
"""Plugins that inner runs do without: two import Hypothesis and Trio into every process, the third shuffles the tests."""

CLUSTER = pytest.StashKey["tuple[RayCluster, ExitStack]"]()

# hundreds of inner runs: each would compile the whole package anew, which took a fifth of the time
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# each client reads some 150 certificates, which takes as long as ten requests; here nobody speaks TLS
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("support") / "certificate.pem")


def _read_what_is_installed_once() -> None:
    """Every inner run would read it anew, which is a quarter of its start."""
    kind, found = importlib.metadata.Distribution, importlib.metadata.distributions
    on = functools.cache(lambda _path: list(found()))
    importlib.metadata.distributions = lambda **where: found(**where) if where else on(tuple(sys.path))
    for name in ("entry_points", "files", "metadata"):
        read = functools.cached_property(getattr(kind, name).fget)
        read.__set_name__(kind, name)
        setattr(kind, name, read)


_read_what_is_installed_once()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """Makes live sources on the loopback server, with a cache in a directory of its own."""
    from support.live import Live

    maker = Live(tmp_path)
    yield maker
    maker.close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own keys and options reach no test; nor does `CI`, which makes pytest print messages twice."""
    for name in list(os.environ):
        if name in ("CI", "BUILD_NUMBER") or name.startswith(("LLMTUNE_", "OPENAI_", "AZURE_OPENAI_", "GITHUB_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def whole_package() -> None:
    """All modules of the package, imported before pytester notes which there are: it drops those that came later."""
    for module in pkgutil.walk_packages(pytest_llmtune.__path__, "pytest_llmtune."):
        if not module.name.startswith("pytest_llmtune.cluster"):
            importlib.import_module(module.name)


@pytest.fixture
def pytester(whole_package: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs of pytest inside a test: without two plugins that would take half of each start, and in the order of their files."""
    monkeypatch.setenv("PYTEST_ADDOPTS", LIGHT)
    return pytester


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> RayCluster:
    """A real Ray cluster of two nodes, the same for all tests that ask for one."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    from support.ray_cluster import running

    stash = request.config.stash
    if CLUSTER not in stash:
        stack = ExitStack()
        stash[CLUSTER] = stack.enter_context(running()), stack
    return stash[CLUSTER][0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that use a cluster come first, in one worker of xdist: two clusters at once are slower than one after another."""
    items.sort(key=lambda item: not uses_cluster(item))


def pytest_collection_finish() -> None:
    """What is there before the first test stays to the end: no collection of garbage has to look through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The many processes of a cluster are gone as soon as the next test uses none."""
    if CLUSTER in item.config.stash and not (nextitem and uses_cluster(nextitem)):
        item.config.stash[CLUSTER][1].close()
        del item.config.stash[CLUSTER]


def pytest_sessionfinish() -> None:
    """So is the browser, where one was started."""
    if browser := sys.modules.get("support.browser"):
        browser.close()


def uses_cluster(item: pytest.Item) -> bool:
    return "cluster" in getattr(item, "fixturenames", ())
