"""The cache keeps every paid completion, is data and never code, and is set aside where it cannot be trusted."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import diskcache
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_llmtune.completions.cache import Cache
from pytest_llmtune.completions.disk import MAX_BYTES, DataDisk, RefusedRowError
from pytest_llmtune.errors import CacheError
from pytest_llmtune.types import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXCHANGE = Exchange(
    "POST",
    "http://h/v1/chat/completions",
    {"model": "m", "n": 2, "messages": [{"role": "user", "content": "안녕 \ud800"}]},
    {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 3}},
    200,
    0.25,
    {"content-type": "application/json"},
)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    store = Cache(tmp_path / "my project ü" / "cache")
    yield store
    store.close()


def database(cache: Cache) -> sqlite3.Connection:
    cache.close()
    return sqlite3.connect(cache.path / "cache.db", isolation_level=None)


def aside(cache: Cache) -> list[Path]:
    return sorted(cache.path.parent.glob("cache.set-aside-*"))


class Bomb:
    """Unpickling this makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_keeps_exchanges_in_order(cache: Cache) -> None:
    """What was added comes back whole, oldest first, also after closing."""
    second = replace(EXCHANGE, response={"choices": []}, status=400)
    assert cache.get("key") == ()
    cache.add("key", EXCHANGE)
    cache.add("key", second)
    cache.close()
    assert cache.get("key") == (EXCHANGE, second)
    assert cache.get("other") == ()


def test_a_wrong_count_of_what_is_there_loses_nothing(cache: Cache) -> None:
    """``after`` is a hint: another process may have added more meanwhile."""
    others = [replace(EXCHANGE, latency=float(number)) for number in range(3)]
    for exchange in others:
        cache.add("key", exchange, after=0)
    assert cache.get("key") == tuple(others)


def test_seeds_are_kept_apart(cache: Cache) -> None:
    """Another seed sees none of it, in the same files."""
    cache.add("key", EXCHANGE)
    for seed in (1, "record-1", ""):
        with_seed = Cache(cache.path, seed=seed)
        assert with_seed.get("key") == ()
        with_seed.add("key", replace(EXCHANGE, latency=9.0))
        with_seed.close()
    assert cache.get("key") == (EXCHANGE,)


def test_nothing_is_ever_thrown_away(cache: Cache) -> None:
    """diskcache culls by default; what was paid for stays."""
    cache.add("key", EXCHANGE)
    store = cache._opened()
    assert (store.eviction_policy, store.cull_limit) == ("none", 0)
    assert isinstance(store.disk, DataDisk)


def test_is_on_disk_when_add_returns(tmp_path: Path) -> None:
    """A process killed right after ``add`` has lost nothing."""
    script = (
        "import os, signal, sys; from pathlib import Path; from pytest_llmtune.completions.cache import Cache\n"
        "from pytest_llmtune.types import Exchange\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "for i in range(5): cache.add(f'key{i}', Exchange('POST', 'u', {}, {'i': i}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "cache"], check=False)
    assert done.returncode == -signal.SIGKILL
    cache = Cache(tmp_path / "cache")
    assert [cache.get(f"key{i}")[0].response for i in range(5)] == [{"i": i} for i in range(5)]
    assert cache.notes == []
    cache.close()


def test_several_processes_add_at_once(tmp_path: Path) -> None:
    """Four processes make the cache and fill the same keys together: every exchange is there once."""
    script = (
        "import sys; from pathlib import Path; from pytest_llmtune.completions.cache import Cache\n"
        "from pytest_llmtune.types import Exchange\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "for i in range(30): cache.add(f'key{i % 3}', Exchange('POST', 'u', {}, {'who': sys.argv[2], 'i': i}))\n"
        "assert cache.notes == []"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", script, tmp_path / "cache", str(who)]) for who in range(4)]
    assert [job.wait() for job in jobs] == [0] * 4
    cache = Cache(tmp_path / "cache")
    for key in range(3):
        seen = [(e.response["who"], e.response["i"]) for e in cache.get(f"key{key}")]
        assert len(seen) == len(set(seen)) == 40
        for who in "0123":
            assert [i for name, i in seen if name == who] == list(range(key, 30, 3))
    assert sorted(path.name for path in (tmp_path / "cache").glob("new-*")) == []
    cache.close()


# a stranger's cache


def plant_value(db: sqlite3.Connection, data: bytes, mode: int, filename: str | None = None) -> None:
    value = data if filename is None else None
    db.execute("UPDATE Cache SET mode = ?, value = ?, filename = ?", (mode, value, filename))


def test_stock_diskcache_runs_a_planted_pickle(tmp_path: Path) -> None:
    """The danger is real: diskcache's own JSONDisk executes such a row (CVE-2025-69872)."""
    with diskcache.Cache(str(tmp_path / "stock"), disk=diskcache.JSONDisk) as stock:
        stock["key"] = 1
    with closing(sqlite3.connect(tmp_path / "stock" / "cache.db", isolation_level=None)) as db:
        plant_value(db, pickle.dumps(Bomb(tmp_path / "ran")), 4)
    with diskcache.Cache(str(tmp_path / "stock"), disk=diskcache.JSONDisk) as stock, pytest.raises(TypeError):
        stock["key"]
    assert (tmp_path / "ran").exists()


def test_a_planted_pickle_never_runs(cache: Cache, tmp_path: Path) -> None:
    """A row whose mode says pickle is refused, and the whole cache is set aside and reported."""
    cache.add("key", EXCHANGE)
    with closing(database(cache)) as db:
        plant_value(db, pickle.dumps(Bomb(tmp_path / "ran")), 4)
    assert cache.get("key") == ()
    assert not (tmp_path / "ran").exists()
    assert len(aside(cache)) == 1
    assert aside(cache)[0].name in cache.notes[0]
    assert "pickled" in cache.notes[0]
    cache.add("key", EXCHANGE)
    assert cache.get("key") == (EXCHANGE,)


def test_a_pickled_file_never_runs(cache: Cache, tmp_path: Path) -> None:
    """Neither does a pickle in a file that the row names."""
    cache.add("key", EXCHANGE)
    (cache.path / "x.val").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with closing(database(cache)) as db:
        plant_value(db, b"", 4, "x.val")
    assert cache.get("key") == ()
    assert not (tmp_path / "ran").exists()
    assert aside(cache)


@pytest.mark.parametrize("mode", [2, 3])
def test_no_file_outside_is_read(cache: Cache, tmp_path: Path, mode: int) -> None:
    """A row that names a file is refused, whatever it is called."""
    cache.add("key", EXCHANGE)
    (tmp_path / "secret").write_text(json.dumps({"method": "POST"}))
    with closing(database(cache)) as db:
        plant_value(db, b"", mode, os.path.relpath(tmp_path / "secret", cache.path))
    assert cache.get("key") == ()
    assert "in a file" in cache.notes[0]


def test_no_file_outside_is_deleted(cache: Cache, tmp_path: Path) -> None:
    """An expired row that names a file would have it deleted when its key is added again."""
    cache.add("key", EXCHANGE)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with closing(database(cache)) as db:
        db.execute("UPDATE Cache SET expire_time = 1, filename = ?", (os.path.relpath(victim, cache.path),))
    cache.add("key", EXCHANGE)
    assert victim.read_text() == "precious"
    assert cache.get("key") == (EXCHANGE,)


def test_pickled_keys_are_refused(tmp_path: Path) -> None:
    """Keys are text, in both directions."""
    disk = DataDisk(str(tmp_path))
    for foreign in (("a", 1), b"bytes", 7):
        with pytest.raises(RefusedRowError, match="not text"):
            disk.put(foreign)
    for key, raw in ((pickle.dumps(Bomb(tmp_path / "ran")), 0), ("key", 0), (b"key", 1)):
        with pytest.raises(RefusedRowError, match="pickled"):
            disk.get(key, raw)
    assert not (tmp_path / "ran").exists()


def test_iterating_over_planted_keys_never_unpickles(cache: Cache, tmp_path: Path) -> None:
    """diskcache's own iteration goes through the same refusal."""
    cache.add("key", EXCHANGE)
    with closing(database(cache)) as db:
        db.execute("UPDATE Cache SET raw = 0, key = ?", (pickle.dumps(Bomb(tmp_path / "ran")),))
    with pytest.raises(RefusedRowError):
        list(cache._opened())
    assert not (tmp_path / "ran").exists()


def test_a_zip_bomb_is_refused(cache: Cache) -> None:
    """A small row cannot fill the memory."""
    cache.add("key", EXCHANGE)
    with closing(database(cache)) as db:
        plant_value(db, zlib.compress(b" " * (MAX_BYTES + 1), 9), 1)
    assert cache.get("key") == ()
    assert "larger than" in cache.notes[0]


@pytest.mark.parametrize(
    "value",
    [b"no zlib", zlib.compress(b"{"), zlib.compress(b"[" * 99_999), zlib.compress(b"{}")[:-3], "text", 5, None],
    ids=["no zlib", "no JSON", "deep", "truncated", "text", "number", "null"],
)
def test_a_corrupt_row_is_refused(cache: Cache, value: Any) -> None:
    """Whatever stands in a row, it is refused with our own error."""
    cache.add("key", EXCHANGE)
    with closing(database(cache)) as db:
        plant_value(db, value, 1)
    assert cache.get("key") == ()
    assert len(cache.notes) == 1


@pytest.mark.parametrize(
    "entry",
    [[], {}, {"method": "POST"}, {"method": 1, "uri": "", "request": {}, "response": {}, "status": 200, "headers": {}}],
)
def test_json_that_is_no_exchange_is_refused(cache: Cache, entry: Any) -> None:
    """An entry of another shape makes the cache a foreign one."""
    cache._opened()["0/key/0"] = entry
    assert cache.get("key") == ()
    assert "not a recorded exchange" in cache.notes[0]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("_directory", "/elsewhere"), ("disk_pickle_protocol", "4; ATTACH"), ("sqlite_writable_schema", 1)],
)
def test_settings_of_a_stranger_are_refused(cache: Cache, setting: str, value: Any) -> None:
    """diskcache makes attributes and pragmas of its settings; only its own names and numbers may stand there."""
    cache.add("key", EXCHANGE)
    with closing(database(cache)) as db:
        db.execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (setting, value))
    assert cache.get("key") == ()
    assert "settings are not ours" in cache.notes[0]


# files that are not ours


def test_a_foreign_database_is_set_aside(cache: Cache) -> None:
    """A stock diskcache at our place, as the ancestor of this package leaves it, is kept and not read."""
    with diskcache.Cache(str(cache.path)) as stock:
        stock["0/key/0"] = {"method": "POST"}
    assert cache.get("key") == ()
    assert "not written by pytest-llmtune" in cache.notes[0]
    assert (aside(cache)[0] / "cache.db").exists()


def test_a_cache_that_another_process_set_aside_first(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is moved twice, and nothing is reported twice: the new one is used."""
    cache.path.mkdir(parents=True)
    (cache.path / "cache.db").write_bytes(b"not ours" * 20)
    rename = type(cache.path).rename

    def late(path: Path, target: Path) -> Path:
        rename(path, target)  # the other process
        return rename(path, target)

    monkeypatch.setattr(type(cache.path), "rename", late)
    cache.add("k", EXCHANGE)
    assert cache.get("k") == (EXCHANGE,)
    assert (len(aside(cache)), cache.notes) == (1, [])


def test_a_file_system_without_hard_links_has_a_cache(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no hard links")

    monkeypatch.setattr(os, "link", refused)
    cache.add("k", EXCHANGE)
    assert cache.get("k") == (EXCHANGE,)
    assert [file.name for file in cache.path.glob("new-*")] == []


def test_a_later_version_is_set_aside(cache: Cache) -> None:
    """A cache of a later version is not touched, and the message names both versions."""
    cache.add("key", EXCHANGE)
    with closing(database(cache)) as db:
        db.execute("PRAGMA user_version = 7")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert cache.get("key") == ()
    assert "version 7" in cache.notes[0]
    assert "version 1" in cache.notes[0]


@pytest.mark.parametrize("damage", ["empty", "text", "half", "noise"])
def test_a_damaged_file_is_set_aside(cache: Cache, damage: str) -> None:
    """An interrupted copy, a text file, random bytes: a new cache takes the place, and the run goes on."""
    for number in range(50):
        cache.add(f"key{number}", replace(EXCHANGE, response={"text": os.urandom(300).hex()}))
    with closing(database(cache)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file = cache.path / "cache.db"
    whole = file.read_bytes()
    damaged = {
        "empty": b"",
        "text": b"not a database" * 99,
        "half": whole[: len(whole) // 2],
        "noise": whole[:4096] + os.urandom(len(whole) - 4096),
    }
    file.write_bytes(damaged[damage])
    assert cache.get("key7") == ()
    assert len(cache.notes) == 1
    cache.add("key7", EXCHANGE)
    assert cache.get("key7") == (EXCHANGE,)


def test_damage_in_the_middle_of_a_run_is_survived(cache: Cache) -> None:
    """The file is destroyed while it is open: the next use sets it aside and goes on."""
    for number in range(50):
        cache.add(f"key{number}", replace(EXCHANGE, response={"text": os.urandom(3000).hex()}))
    with closing(sqlite3.connect(cache.path / "cache.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (cache.path / "cache.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096 * 40))
    cache.close()
    for number in range(50):
        cache.get(f"key{number}")
    cache.add("new", EXCHANGE)
    assert cache.get("new") == (EXCHANGE,)
    assert len(cache.notes) == 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(start=st.integers(0, 20_000), noise=st.binary(min_size=1, max_size=600))
def test_no_damage_raises_anything_but_our_own_error(tmp_path: Path, start: int, noise: bytes) -> None:
    """Bytes overwritten anywhere in the file: an answer, nothing, or CacheError, and never wrong data."""
    cache = Cache(tmp_path / "fuzz" / os.urandom(6).hex() / "cache")
    for number in range(8):
        cache.add("key", replace(EXCHANGE, latency=float(number)))
    with closing(database(cache)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (cache.path / "cache.db").open("r+b") as file:
        file.seek(start)
        file.write(noise)
    try:
        found = cache.get("key")
        cache.add("other", EXCHANGE)
        assert cache.get("other") == (EXCHANGE,)
    except CacheError:
        found = ()
    cache.close()
    assert all(exchange.response == EXCHANGE.response for exchange in found)


# places that cannot be written


def test_a_place_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    """A file where the directory should be: what, where, and what to do."""
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache")
    with pytest.raises(CacheError, match=r"paid completions .* cannot be used: .*Not a directory.*; free"):
        cache.get("key")


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    """Where a paid answer cannot be stored, CacheError says so; what was stored before is still there."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from pytest_llmtune.completions.cache import Cache; from pytest_llmtune.errors import CacheError\n"
        "from pytest_llmtune.types import Exchange\n"
        "import os\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "cache = Cache(Path(sys.argv[1])); cache.add('first', Exchange('POST', 'u', {}, {}))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n"
        "    for i in range(999): cache.add(f'key{i}', Exchange('POST', 'u', {}, {'text': os.urandom(9000).hex()}))\n"
        "except CacheError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "cache"], check=True, capture_output=True, text=True
    )
    assert "cannot be used: " in done.stdout
    assert "Traceback" not in done.stderr
    cache = Cache(tmp_path / "cache")
    assert len(cache.get("first")) == 1
    assert cache.notes == []
    cache.close()


def test_a_path_with_a_variable_s_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diskcache would expand $HOME in a path and write elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # a bare machine has none
    with pytest.raises(CacheError, match="environment variable"):
        Cache(tmp_path / "$HOME" / "cache").get("key")
    assert list(tmp_path.iterdir()) == []


def test_a_long_path_works(tmp_path: Path) -> None:
    """A name of 200 characters is no problem."""
    cache = Cache(tmp_path / ("ä b" * 60)[:100] / ("c" * 200))
    cache.add("key", EXCHANGE)
    assert cache.get("key") == (EXCHANGE,)
    cache.close()
