"""hf: data sets, read by the real library from local copies; nothing is asked of the network."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune.data.dataset import load
from pytest_llmtune.data.huggingface import parse_name
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"q": "1+1", "answer": "2"}, {"q": "유저", "answer": None}]


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, with a cache of its own."""
    module = pytest.importorskip("datasets")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    module.disable_progress_bars()
    return module


def complaint(source: str, base: Path, **options: Any) -> str:
    with pytest.raises(SuiteError) as caught:
        load(source, base_dir=base, offline=True, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("hf:openai/gsm8k", {"path": "openai/gsm8k"}),
        ("hf:openai/gsm8k?name=main&split=test", {"path": "openai/gsm8k", "name": "main", "split": "test"}),
        ("hf:./saved?split=test%5B%3A10%5D", {"path": "./saved", "split": "test[:10]"}),
        ("hf:x?revision=abc", {"path": "x", "revision": "abc"}),
    ],
)
def test_names(source: str, parts: dict[str, str]) -> None:
    """A name or a directory, with configuration, split and revision."""
    assert parse_name(source) == parts


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("hf:", "names no dataset; valid: hf:openai/gsm8k?name=main&split=test"),
        ("hf:/?split=a", "names no dataset"),
        ("hf:x?spilt=test", "no option 'spilt' (did you mean 'split'?); valid: name, split, revision"),
    ],
)
def test_wrong_names(source: str, says: str) -> None:
    """Known before the library is imported."""
    with pytest.raises(SuiteError) as caught:
        parse_name(source)
    assert says in str(caught.value)


def test_saved_copies(datasets: Any, tmp_path: Path) -> None:
    """A directory written by save_to_disk, of one data set or of several splits."""
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "both"))
    assert [dict(example.row) for example in load("hf:one", base_dir=tmp_path, offline=True).examples] == ROWS
    found = load("hf:./both?split=test", base_dir=tmp_path, offline=True, needed=["answer"])
    assert [dict(example.row) for example in found.examples] == ROWS[:1]
    assert "name a split, as in ?split=test; there are 'test', 'train'" in complaint("hf:both", tmp_path)
    assert "no split 'tset' (did you mean 'test'?)" in complaint("hf:both?split=tset", tmp_path)


def test_directories_of_files(datasets: Any, tmp_path: Path) -> None:
    """As the library reads them."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "test.jsonl").write_text('{"q": "a"}\n{"q": "b"}\n')
    assert [example.row["q"] for example in load("hf:plain", base_dir=tmp_path, offline=True).examples] == ["a", "b"]
    said = complaint("hf:plain?split=nothing", tmp_path)
    assert "cannot be loaded" in said
    assert "network" not in said


def test_rows_that_cannot_be_read(datasets: Any, tmp_path: Path) -> None:
    """Pictures need another library, and are no plain data with it: our own error either way."""
    data = datasets.Dataset.from_dict({"picture": [{"bytes": b"no picture", "path": None}]})
    data = data.cast_column("picture", datasets.Image())
    data.save_to_disk(str(tmp_path / "pictures"))
    assert complaint("hf:pictures", tmp_path).startswith("hf:pictures raised ")


def test_offline_without_a_copy(datasets: Any, tmp_path: Path) -> None:
    """The library is told to stay off the network, and the error says what to run."""
    before = datasets.config.HF_HUB_OFFLINE
    said = complaint("hf:nobody/nothing_at_all", tmp_path)
    assert "cannot be loaded" in said
    assert "the network is blocked here: load it once with --llm-tune or --llm-record=missing" in said
    assert before == datasets.config.HF_HUB_OFFLINE


def test_outside_of_the_project(datasets: Any, tmp_path: Path) -> None:
    """A YAML suite reads the project's own copies only."""
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    (tmp_path / "project").mkdir()
    assert "is outside the project" in complaint("hf:../one", tmp_path / "project", root=tmp_path / "project")


def test_without_the_library(tmp_path: Path) -> None:
    """The error names the extra; run in a process where the import fails."""
    script = (
        "import sys; sys.modules['datasets'] = None\n"
        "from pytest_llmtune.data.dataset import load\n"
        "try:\n    load('hf:x/y')\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "SuiteError hf:x/y needs the library datasets: pip install 'pytest-llmtune[hf]'"


def test_importing_the_room_imports_nothing_heavy(tmp_path: Path) -> None:
    """Neither the data libraries nor yaml, until they are used."""
    script = (
        "import sys; import pytest_llmtune.suite, pytest_llmtune.suite.yaml\n"
        "heavy = {'datasets', 'pyarrow', 'yaml', 'numpy', 'pandas', 'openai', 'flaml', 'pydantic', 'vcr', 'pytest'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_a_directory_and_its_rows_have_a_size(datasets: Any, tmp_path: Path) -> None:
    """Of the files before the library reads them; and of what the rows become, which compression hides."""
    text = "x" * 1000
    datasets.Dataset.from_dict({"q": [text] * 5000}).to_parquet(tmp_path / "small" / "rows.parquet")
    assert len(load("hf:./small", base_dir=tmp_path, offline=True, max_bytes=2_000_000).examples) == 5000
    said = complaint("hf:./small", tmp_path, max_bytes=1_000_000)
    assert "unpacks to more than the limit of 4,000,000 bytes of memory" in said
    (tmp_path / "small" / "more.bin").write_bytes(bytes(2_000_000))
    assert "limit of 1,000,000 bytes" in complaint("hf:./small", tmp_path, max_bytes=1_000_000)


class StandIn:
    """The part of the library that is called, for machines without it; it notes what it was asked for."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(HF_HUB_OFFLINE=False)
        self.hub = SimpleNamespace(HF_HUB_OFFLINE=False)
        self.bars, self.asked = True, list[Any]()
        self.found: Any = ROWS

    def are_progress_bars_disabled(self) -> bool:
        return not self.bars

    def disable_progress_bars(self) -> None:
        self.bars = False

    def enable_progress_bars(self) -> None:
        self.bars = True

    def load_from_disk(self, path: str) -> Any:
        self.asked.append(("disk", path, self.offline))
        return self.found

    def load_dataset(self, path: str, name: str | None = None, **options: Any) -> Any:
        self.asked.append((path, name, options, self.offline))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    @property
    def offline(self) -> bool:
        assert not self.bars
        assert self.config.HF_HUB_OFFLINE == self.hub.HF_HUB_OFFLINE
        return bool(self.hub.HF_HUB_OFFLINE)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    library = StandIn()
    monkeypatch.setitem(sys.modules, "datasets", library)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(constants=library.hub))
    return library


def test_what_the_library_is_asked_for(stand_in: StandIn, tmp_path: Path) -> None:
    """A copy on disk needs no network; its settings are as before, whatever happens."""
    assert len(load("hf:a/b?name=main&split=test&revision=abc", base_dir=tmp_path).examples) == 2
    load("hf:a/b", base_dir=tmp_path, offline=True)
    nothing = {"split": None, "revision": None}
    (tmp_path / "saved").mkdir()
    load("hf:saved", base_dir=tmp_path)
    (tmp_path / "saved" / "state.json").write_text("{}")
    load("hf:saved", base_dir=tmp_path)
    saved = str(tmp_path / "saved")
    assert stand_in.asked == [
        ("a/b", "main", {"split": "test", "revision": "abc"}, False),
        ("a/b", None, nothing, True),
        (saved, None, nothing, True),
        ("disk", saved, True),
    ]
    assert (stand_in.bars, stand_in.hub.HF_HUB_OFFLINE, stand_in.config.HF_HUB_OFFLINE) == (True, False, False)


def test_what_is_refused_of_the_library(stand_in: StandIn, tmp_path: Path) -> None:
    """A split must be named where there are several; an error of the library is ours; the project has walls and limits."""
    stand_in.found = {"test": ROWS, "train": ROWS}
    assert "name a split, as in ?split=test; there are 'test', 'train'" in complaint("hf:a/b", tmp_path)
    assert "no split 'tset' (did you mean 'test'?)" in complaint("hf:a/b?split=tset", tmp_path)
    assert len(load("hf:a/b?split=train", base_dir=tmp_path).examples) == 2
    stand_in.found = {"only": ROWS[:1]}
    assert len(load("hf:a/b", base_dir=tmp_path).examples) == 1
    stand_in.found = OSError("no such host")
    assert "cannot be loaded: OSError: 'no such host'; the network is blocked here" in complaint("hf:a/b", tmp_path)
    assert (stand_in.bars, stand_in.hub.HF_HUB_OFFLINE, stand_in.config.HF_HUB_OFFLINE) == (True, False, False)
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "rows.bin").write_bytes(bytes(2_000))
    assert "limit of 1,000 bytes" in complaint("hf:big", tmp_path, max_bytes=1_000)
    (tmp_path / "project").mkdir()
    assert "is outside the project" in complaint("hf:../big", tmp_path / "project", root=tmp_path / "project")
