"""Files of a stranger's pull request, changed at random: whatever they hold, only our own error comes of it."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import zipfile
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.llm_server import LLMServer
from support.suite_files import read_suites

from pytest_llmtune._util import yaml as plain_yaml
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.data.dataset import load
from pytest_llmtune.errors import LLMTuneError
from pytest_llmtune.guard.outcome import SuiteLocation
from pytest_llmtune.guard.shards import Shards
from pytest_llmtune.money.ledger import Ledger
from pytest_llmtune.redaction.keys import KeySources
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.settings import Mode, Settings
from pytest_llmtune.workflow.modes import SuiteRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUITE = """
name: sums
dataset: rows.jsonl
prompt: ["{q}?", "What is {q}?"]
model: small
temperature: {uniform: [0, 1]}
n: 2
max_tokens: 50
grader: numeric
prices: {small: {input: 1, output: 1}}
tune_size: 4
num_samples: 2
min_success_vote: 0.5
max_drop: 0.1
"""

odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [0, -1, 10**30, 1e308, float("inf"), float("nan"), "", "x", "1", "NaN", "os:system", "\ud800", "\x00"]
    )
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("callable"), inner, max_size=3)
    ),
    max_leaves=5,
)


@dataclass(frozen=True)
class Project:
    """A tuned project that a test changes one file of."""

    root: Path
    original: Path

    def run(self, mode: Mode = Mode.REPLAY) -> SuiteRun:
        [(suite, line)] = read_suites(self.root / "sums.llmtune.yaml", root=self.root, allow_code=())
        location = SuiteLocation("sums", "sums.llmtune.yaml", line, self.root / "llmtune")
        return SuiteRun(suite, Settings(mode=mode, root=self.root), location, Ledger(), Redactor())

    def harmless(self) -> bool:
        """Whether the guard judges it, or says our own error in so many words, and writes nothing either way."""
        before = self.files()
        try:
            said = self.run().report.verdict.status
        except LLMTuneError as error:
            said = str(error)
        return bool(said) and self.files() == before

    def files(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self.root.rglob("*")}

    def write(self, name: str, data: bytes) -> None:
        shutil.copytree(self.original, self.root, dirs_exist_ok=True)
        (self.root / name).write_bytes(data)

    def read(self, name: str) -> bytes:
        return (self.original / name).read_bytes()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Tuned once, against a real server; what a test changes is put back by the next."""
    original = tmp_path_factory.mktemp("original")
    (original / "sums.llmtune.yaml").write_text(SUITE)
    (original / "rows.jsonl").write_text("".join(f'{{"q": "{a} plus 1", "answer": "{a + 1}"}}\n' for a in range(8)))
    made = Project(original, original)
    with LLMServer(answer="2") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        _ = made.run(Mode.TUNE).report
    shutil.rmtree(original / ".llmtune")
    shutil.copytree(original, changed := tmp_path_factory.mktemp("changed"), dirs_exist_ok=True)
    return Project(changed, original)


def changed(data: Any, draw: st.DataObject) -> Any:
    """The data with one value, anywhere in it, replaced, doubled or gone."""
    if isinstance(data, dict) and data and draw.draw(st.integers(0, 4)):
        key = draw.draw(st.sampled_from(sorted(data)))
        if draw.draw(st.integers(0, 6)) == 0:
            return {name: value for name, value in data.items() if name != key}
        return {**data, key: changed(data[key], draw)}
    if isinstance(data, list) and data and draw.draw(st.integers(0, 4)):
        place = draw.draw(st.integers(0, len(data) - 1))
        if draw.draw(st.integers(0, 6)) == 0:
            return data[:place] + data[place + 1 :] * 2
        return [*data[:place], changed(data[place], draw), *data[place + 1 :]]
    return draw.draw(odd)


def as_bytes(data: Any, dump: Callable[[Any], str]) -> bytes:
    return dump(data).encode("utf-8", "surrogatepass")


quick = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def test_the_project_is_sound(project: Project) -> None:
    """Unchanged, it is judged."""
    project.write("rows.jsonl", project.read("rows.jsonl"))
    report = project.run().report
    assert report.evaluation is not None
    assert not report.verdict.stale


@quick
@given(st.data())
def test_a_lock_file(project: Project, data: st.DataObject) -> None:
    """Any value of it changed: judged, or our error; nothing is imported, nothing escapes."""
    lock = yaml.safe_load(project.read("llmtune/sums.lock.yaml"))
    project.write("llmtune/sums.lock.yaml", as_bytes(changed(lock, data), json.dumps))
    assert project.harmless()


@quick
@given(st.data())
def test_a_recording(project: Project, data: st.DataObject) -> None:
    """Any value of it changed, those inside the bodies too."""
    recording = json.loads(project.read("llmtune/sums.cassette.json"))
    if data.draw(st.booleans()):
        item = data.draw(st.sampled_from(recording["interactions"]))
        body = item["response"]["body"]
        body["string"] = json.dumps(changed(json.loads(body["string"]), data))
    else:
        recording = changed(recording, data)
    text = as_bytes(recording, json.dumps)
    project.write("llmtune/sums.cassette.json", text)
    assert project.harmless()


@quick
@given(st.data())
def test_a_suite(project: Project, data: st.DataObject) -> None:
    """Any key or value of it changed."""
    suite = changed(yaml.safe_load(SUITE), data)
    project.write("sums.llmtune.yaml", as_bytes(suite, lambda value: yaml.safe_dump(value, allow_unicode=False)))
    assert project.harmless()


@quick
@given(st.data())
def test_rows(project: Project, data: st.DataObject) -> None:
    """Any value of the data set changed."""
    rows = [json.loads(line) for line in project.read("rows.jsonl").splitlines()]
    rows = changed(rows, data)
    lines = rows if isinstance(rows, list) else [rows]
    project.write("rows.jsonl", as_bytes(lines, lambda value: "\n".join(map(json.dumps, value))))
    assert project.harmless()


@quick
@given(
    st.sampled_from(["llmtune/sums.lock.yaml", "llmtune/sums.cassette.json", "sums.llmtune.yaml", "rows.jsonl"]),
    st.integers(0, 10**6),
    st.integers(0, 40),
    st.binary(max_size=20),
)
def test_bytes(project: Project, name: str, place: int, length: int, data: bytes) -> None:
    """A piece of any file replaced by any bytes."""
    old = project.read(name)
    place %= len(old)
    project.write(name, old[:place] + data + old[place + length :])
    assert project.harmless()


@pytest.mark.parametrize("depth", [90, 400, 900, 100_000])
def test_rows_that_are_nested_deeply(tmp_path: Path, depth: int) -> None:
    """Up to a hundred levels; past them one error with the line."""
    (tmp_path / "a.jsonl").write_text('{"q": ' + "[" * depth + "]" * depth + "}\n")
    if depth < 100:
        assert load("a.jsonl", base_dir=tmp_path).examples
    else:
        with pytest.raises(
            LLMTuneError, match=r"a.jsonl:1: (?:nested too deeply|not usable JSON: maximum recursion depth)"
        ):
            load("a.jsonl", base_dir=tmp_path)


# containers and small files


def packed(kind: str, name: str, data: bytes) -> bytes:
    if kind == "gz":
        return gzip.compress(data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


@quick
@given(
    st.sampled_from(["gz", "zip"]),
    st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.yaml", "a.parquet", "../a.jsonl"]),
    st.binary(max_size=40) | st.sampled_from([b'{"q": 1}', b"q\n1\n", b"PAR1" * 9]),
    st.tuples(st.integers(0, 200), st.binary(max_size=4)),
)
def test_archives_of_data(tmp_path: Path, kind: str, name: str, content: bytes, damaged: tuple[int, bytes]) -> None:
    """gzip and zip files, whole or damaged, with any content."""
    data, (place, damage) = packed(kind, name, content), damaged
    data = data[: place % (len(data) + 1)] + damage + data[place % (len(data) + 1) + len(damage) :]
    file = f"a.{name.rpartition('.')[2]}.gz" if kind == "gz" else "a.zip"
    (tmp_path / file).write_bytes(data)
    try:
        assert load(file, base_dir=tmp_path, root=tmp_path).examples
    except LLMTuneError as error:
        assert "a." in str(error)  # noqa: PT017


@quick
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_dotenv_and_key_files(tmp_path: Path, content: bytes) -> None:
    """Any bytes in .env, in a file of keys, in one of addresses; a message never quotes what is in them."""
    secret = b"SECRET-0123\n"
    for name in (".env", "key_openai.txt", "key_aoai.txt", "base_aoai.txt"):
        (tmp_path / name).write_bytes(secret + content)
    for ask in (
        lambda: KeySources.of(tmp_path, {}).keys_in("OPENAI_API_KEY"),
        lambda: endpoints_of(".", root=tmp_path, environ={}),
        lambda: endpoints_of(None, root=tmp_path, environ={}),
        lambda: endpoints_of([{"api_key_file": "key_openai.txt"}], root=tmp_path, environ={}),
    ):
        try:
            ask()
        except LLMTuneError as error:
            assert "SECRET" not in str(error)  # noqa: PT017


ENDPOINT = {
    "name": "a",
    "kind": "azure",
    "base_url": "https://h",
    "api_key": "k",
    "models": {"a": "b"},
    "max_n": 1,
    "prices": {"a": {"input": 1, "output": 1}},
}


@quick
@given(st.data(), st.sampled_from(["e.json", "e.yaml"]), st.booleans())
def test_files_of_endpoints(tmp_path: Path, data: st.DataObject, name: str, strange: bool) -> None:
    """Any field of a list changed, as JSON and as YAML, in the user's name and in a stranger's."""
    listed = changed([ENDPOINT], data)
    (tmp_path / name).write_bytes(as_bytes(listed, json.dumps if name == "e.json" else yaml.safe_dump))
    try:
        endpoints_of(name, root=tmp_path, environ={"OPENAI_API_KEY": "SECRET-0123"}, untrusted=strange)
    except LLMTuneError as error:
        assert "SECRET" not in str(error)  # noqa: PT017


@quick
@given(st.data())
def test_results_of_shards(project: Project, tmp_path: Path, data: st.DataObject) -> None:
    """The files that --llm-merge reads: any value of one changed."""
    from pytest_llmtune.guard import results_file as report_json

    project.write("rows.jsonl", project.read("rows.jsonl"))
    text = report_json.dumps([replace(project.run().report, spent=Decimal(1))])
    (tmp_path / "1.json").write_bytes(as_bytes(changed(json.loads(text), data), json.dumps))
    try:
        Shards.read(tmp_path)
    except LLMTuneError as error:
        assert str(error)  # noqa: PT017


def test_yaml_of_aliases_does_not_grow() -> None:
    """Where no alias is meant (lock files, lists of endpoints), none is read."""
    with pytest.raises(ValueError, match="aliases are not allowed"):
        plain_yaml.load("a: &a [1]\nb: *a")
