"""The lock file: written for people and git, read with suspicion."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from subprocess import CalledProcessError, run
from time import process_time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.results import CONFIG, evaluation, lock, result, scores

from pytest_llmtune._util.files import relative_to_cwd
from pytest_llmtune._util.jsonhash import json_weight
from pytest_llmtune.errors import LockError
from pytest_llmtune.guard import lockfile
from pytest_llmtune.guard.lockfile import (
    VERSION,
    Lock,
    LockedExample,
    Measured,
    RecordedAnswers,
    StudySummary,
    TrialSummary,
    short_answer,
)
from pytest_llmtune.recording.format import Interaction
from pytest_llmtune.types import ExampleGrade, Interval

STUDY = StudySummary(
    trials=(
        TrialSummary(1, CONFIG, Measured(0.8, 0.6, 0.9), Decimal("0.0000001"), Decimal("0.25"), "done"),
        TrialSummary(2, {"model": "gpt-4o", "stop": ["\n"]}, None, None, Decimal(3), "failed"),
    ),
    spent=Decimal("3.25"),
    stopped_by="optimization_budget",
    optimization_budget=Decimal("3.5"),
    num_samples=20,
    seed=7,
    winner=1,
    tuning=Measured(0.8, 0.6, 0.9),
    heldout=Measured(0.7, 0.5, 0.8),
    note="its scores are means",
)
LOCK = lock(scores(1, 0, 0.5, None), STUDY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "llmtune" / "algebra.lock.yaml"
    LOCK.write(path)
    return path


def refused(path: Path) -> str:
    """The one line that says why the lock file cannot be used."""
    with pytest.raises(LockError, match=r"algebra\.lock\.yaml") as caught:
        Lock.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_back(path: Path) -> None:
    """A lock with a study, unknown examples and tiny amounts survives its file."""
    assert Lock.read(path) == LOCK


def test_the_file_is_plain_yaml_with_the_keys_of_the_design(path: Path) -> None:
    """Any YAML reader sees the same data as ours, under exactly the documented keys."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(data) == {"version", "suite", "config", "metrics", "prices", "examples", "fingerprints", "study"}
    assert data["version"] == VERSION
    assert data["config"] == CONFIG
    assert data["metrics"]["success_vote"] == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert data["prices"] == {"gpt-4o-mini": {"input": 0.15, "output": 0.6}}
    assert data["study"]["trials"][0]["inference_cost"] == 1e-7
    assert data["examples"][1]["voted_answer"] == "41"


def test_one_example_is_one_line_and_the_order_is_stable(path: Path) -> None:
    """Examples in another order give the same file, and one changed example changes one line: git can merge."""
    reordered = lock(evaluation([*reversed(scores(1, 0, 0.5, None).results)]), STUDY)
    assert reordered.text() == LOCK.text()
    changed = lock(scores(1, 1, 0.5, None), STUDY).text().splitlines()
    before = path.read_text(encoding="utf-8").splitlines()
    different = [new for old, new in zip(before, changed, strict=True) if old != new]
    assert [line.split('"')[3] for line in different if line.startswith("- ")] == [f"{1:016x}"]
    assert all(line.startswith(("- ", "  success", "  expected")) for line in different)


def test_examples_stand_in_the_order_of_their_ids() -> None:
    """An id is that of the row's content, an index its place in the file: a row put in front moves no line but its own."""
    named = [
        dataclasses.replace(result(i), example=dataclasses.replace(result(i).example, id=letter * 16))
        for i, letter in enumerate("bdac")
    ]
    assert [(example.id, example.index) for example in lock(evaluation(named)).examples] == [
        ("a" * 16, 2),
        ("b" * 16, 0),
        ("c" * 16, 3),
        ("d" * 16, 1),
    ]


def test_prompts_of_several_lines_are_readable(path: Path) -> None:
    """A prompt stands in the file as it was written, not as one escaped line."""
    config = {**CONFIG, "prompt": "Solve:\n{problem}\nEnd with \\boxed{{}}."}
    text = lock(evaluation([result(0)], config)).text()
    assert "  prompt: |-\n    Solve:\n    {problem}\n    End with \\boxed{{}}.\n" in text


def test_wall_clock_figures_are_not_locked() -> None:
    """Latency differs with every run: it would change the file for nothing."""
    timed = evaluation([result(0, metrics={"latency": 0.3, "latency_p95": 0.4})])
    assert set(lock(timed).metrics) == {"success_vote", "success", "expected_success", "inference_cost"}


def test_long_answers_are_cut_and_harmless() -> None:
    """A lock file keeps the beginning of an answer, with controls and direction marks escaped."""
    nasty = "\x1b]0;x\x07\u202e\u2066 <script>\x00\x85" + "x" * 1_000_000
    text = lock(evaluation([result(0, answer=nasty)])).text()
    assert len(text) < 3_000
    assert not any(character in text for character in "\x1b\x07\u202e\u2066\x00\x85")
    assert yaml.safe_load(text)["examples"][0]["voted_answer"].startswith(nasty[:20])


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_answer_and_prompt_survive(answer: str, prompt: str) -> None:
    """Whatever characters a model or a user writes, our reader and stock YAML read the same."""
    made = lock(evaluation([result(0, answer=answer)], {"model": "m", "prompt": prompt}))
    data = yaml.safe_load(made.text())
    assert data["config"]["prompt"] == prompt
    assert data["examples"][0]["voted_answer"] == answer


def test_lone_surrogates_can_be_written(tmp_path: Path) -> None:
    """An answer that is no Unicode text is replaced rather than failing the write."""
    made = lock(evaluation([result(0, answer="a\ud800b")]))
    made.write(tmp_path / "x")
    assert Lock.read(tmp_path / "x").examples[0].voted_answer == "a?b"


def test_writing_the_same_lock_changes_nothing(path: Path) -> None:
    """Accepting an unchanged result does not touch the file."""
    before = path.stat().st_mtime_ns
    assert not LOCK.write(path)
    assert path.stat().st_mtime_ns == before


def test_crlf_and_a_byte_order_mark_are_read(path: Path) -> None:
    """A Windows checkout reads as any other."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Lock.read(path) == LOCK


def test_a_file_edited_by_hand_is_still_read(path: Path) -> None:
    """Examples written as block YAML read the same as our own lines."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert Lock.read(path) == LOCK


def test_a_lock_without_examples_is_read(path: Path) -> None:
    """An empty baseline is odd, but a lock."""
    empty = lock(evaluation([]))
    empty.write(path)
    assert Lock.read(path).examples == ()


def test_a_missing_lock_names_the_command(tmp_path: Path) -> None:
    """Where no lock file is, the message says how it comes into being."""
    assert "no lock file. Write it: pytest --llm-tune" in refused(tmp_path / "algebra.lock.yaml")


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "=======", ">>>>>>> branch", "||||||| base"])
def test_conflict_markers_are_named_with_their_line(path: Path, marker: str) -> None:
    """An unresolved merge is no lock file; the message holds the line and the way out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:7], marker, *lines[7:]]), encoding="utf-8")
    message = refused(path)
    assert "line 8: git conflict markers" in message
    assert f"(git checkout --ours -- {relative_to_cwd(path)}, or --theirs)" in message
    assert (Path.cwd() / relative_to_cwd(path)).samefile(path)


def test_a_prompt_may_hold_what_looks_like_a_conflict(path: Path) -> None:
    """Markers inside of a prompt are indented, so they are the user's own text."""
    made = lock(evaluation([result(0)], {"model": "m", "prompt": "<<<<<<< a\n=======\n>>>>>>> b"}))
    made.write(path)
    assert Lock.read(path).config == made.config


def test_a_later_version_asks_for_an_upgrade(path: Path) -> None:
    """A colleague's newer lock file is not misread."""
    path.write_text(path.read_text(encoding="utf-8").replace("version: 1", "version: 2", 1), encoding="utf-8")
    assert "version 2 was written by a later pytest-llmtune" in refused(path)
    assert "pip install -U pytest-llmtune" in refused(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: one", "'version' is 'one', valid is 1"),
        ("version: 1", "version: 0", "'version' is 0, valid is 1"),
        ("version: 1\n", "", "'version' is None"),
        ("suite: algebra", "suite: [", "the lock file is damaged: line "),
        ("suite: algebra", "suite: 3", "suite is 3, not text"),
        ("suite: algebra\n", "", "the document lacks suite"),
        ("suite: algebra", "suite: algebra\nsuites: 3", "the document has the unknown suites"),
        ("value: 0.5,", "value: high,", "metrics.expected_success.value is 'high', not a number"),
        ("output: 0.6", "output: free", "prices.gpt-4o-mini.output is 'free', not an amount"),
        ('"responses": 5', '"responses": "5"', "examples[0].responses is '5', not a whole number"),
        ('"status": "ok"', '"status": "fine"', "examples[0].status is 'fine', not one of ok, refused, unknown"),
        ("config:", "config: !!python/name:os.system", "tags are not allowed here"),
        ("config:", "config: &all", "anchors and aliases are not allowed here"),
        ("spent: 3.25", "spent: 3.25\n  spent: 1", "line 23: duplicate key 'spent'"),
        ('"success_vote": 1.0', '"success_vote": NaN', "examples[0].metrics.success_vote is nan, not a finite number"),
        (
            '"success_vote": 1.0',
            '"success_vote": -Infinity',
            "examples[0].metrics.success_vote is -inf, not a finite number",
        ),
    ],
)
def test_damage_is_named(path: Path, old: str, new: str, message: str) -> None:
    """Whatever is wrong in the file, one line says what and where, and how to mend it."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert message in refused(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"3", b"version: 1", b"a: 1\nexamples:\n- {", b"\x00"])
def test_foreign_files_are_refused(path: Path, content: bytes) -> None:
    """A file that is something else gives one clear line, not a traceback."""
    path.write_bytes(content)
    assert "lock file" in refused(path)


@given(st.data())
def test_no_damage_escapes_as_another_error(data: st.DataObject) -> None:
    """Bytes cut out, doubled or overwritten anywhere: the file is read, or refused with a LockError."""
    whole = LOCK.text().encode()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 200)))
    middle = data.draw(
        st.sampled_from([b"", whole[start:stop] * 2, b"\x00", b"{", b"'", b"\n", b"9" * 5000, b"[" * 3000])
    )
    damaged = whole[:start] + middle + whole[stop:]
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "x.lock.yaml"
        target.write_bytes(damaged)
        outcome: Any
        try:
            outcome = Lock.read(target)
        except LockError as error:
            outcome = error
    assert isinstance(outcome, Lock | LockError)


def test_a_huge_file_is_refused_unread(path: Path) -> None:
    """A file of gigabytes costs no memory."""
    with path.open("r+b") as file:
        file.truncate(10_000_000_000)
    assert "more than the limit of 64,000,000 bytes" in refused(path)


def test_a_directory_in_its_place_is_named(tmp_path: Path) -> None:
    """What cannot be read or written is a LockError with the system's reason."""
    path = tmp_path / "algebra.lock.yaml"
    path.mkdir()
    assert "cannot be read" in refused(path)
    with pytest.raises(LockError, match="cannot be written"):
        LOCK.write(path)


names = st.text(max_size=12)
amounts = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False)
numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
measured = st.builds(Measured, numbers, st.none() | numbers, st.none() | numbers)
trials = st.builds(
    TrialSummary,
    st.integers(),
    st.dictionaries(names, plain, max_size=3),
    st.none() | measured,
    st.none() | amounts,
    amounts,
    names,
)
studies = st.builds(
    StudySummary,
    st.lists(trials, max_size=3).map(tuple),
    amounts,
    names,
    st.none() | amounts,
    st.none() | amounts,
    st.none() | st.integers(),
    st.integers(),
    st.none() | st.integers(),
    st.none() | measured,
    st.none() | measured,
)
examples = st.builds(
    LockedExample,
    names,
    st.integers(0, 10**9),
    st.sampled_from(["ok", "refused", "unknown"]),
    st.dictionaries(names, numbers, max_size=3),
    st.integers(0, 100),
    st.lists(st.tuples(names, st.integers(0, 100)), max_size=3).map(tuple),
    st.none() | names,
)
locks = st.builds(
    Lock,
    names,
    st.dictionaries(names, plain, max_size=4),
    st.dictionaries(names, measured, max_size=3),
    st.dictionaries(names, st.dictionaries(st.sampled_from(["input", "output"]), amounts), max_size=2),
    st.dictionaries(names, names, max_size=3),
    st.none() | studies,
    st.lists(examples, max_size=4, unique_by=lambda each: each.id).map(tuple),
)


@settings(max_examples=60)
@given(locks)
def test_any_lock_survives_its_file(made: Lock) -> None:
    """Whatever names, figures and nested parameters a suite has, the file gives back an equal lock and equal text."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "x.lock.yaml"
        made.write(target)
        again = Lock.read(target)
    assert again == made
    assert again.text() == made.text()


def git(directory: Path, *arguments: str) -> str:
    """Real git, in a repository of its own."""
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True)  # noqa: S607
    return done.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_merges_changes_of_different_examples(tmp_path: Path) -> None:
    """Two branches that change the outcome of different examples merge by themselves, where the totals agree."""
    path = tmp_path / "algebra.lock.yaml"

    def commit(answers: list[str]) -> None:
        lock(evaluation([result(i, answer=answer) for i, answer in enumerate(answers)])).write(path)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", "x")

    git(tmp_path, "init", "-q", "-b", "main")
    commit(["1"] * 9)
    git(tmp_path, "switch", "-q", "-c", "other")
    commit(["2", *["1"] * 8])
    git(tmp_path, "switch", "-q", "main")
    commit([*["1"] * 8, "3"])
    assert git(tmp_path, "diff", "--numstat", "HEAD~1").split()[:2] == ["1", "1"]
    git(tmp_path, "merge", "-q", "other", "-m", "merged")
    assert [example.voted_answer for example in Lock.read(path).examples] == ["2", *["1"] * 7, "3"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_real_conflict_is_named(tmp_path: Path) -> None:
    """Two branches that change the same example conflict, and what git leaves is recognised with its line."""
    path = tmp_path / "algebra.lock.yaml"

    def commit(answer: str) -> None:
        lock(evaluation([result(0, answer=answer)])).write(path)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", "x")

    git(tmp_path, "init", "-q", "-b", "main")
    commit("1")
    git(tmp_path, "switch", "-q", "-c", "other")
    commit("2")
    git(tmp_path, "switch", "-q", "main")
    commit("3")
    with pytest.raises(CalledProcessError):
        git(tmp_path, "merge", "-q", "other", "-m", "merged")
    line = path.read_text(encoding="utf-8").splitlines().index("<<<<<<< HEAD") + 1
    assert f"line {line}: git conflict markers" in refused(path)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_merge_that_kept_both_sides_is_damage(tmp_path: Path) -> None:
    """Git's union merge leaves no markers: a row with two outcomes has none, and neither may be compared with."""
    path = tmp_path / "algebra.lock.yaml"

    def commit(answer: str, score: float) -> None:
        lock(evaluation([result(0, score, answer=answer), result(1)])).write(path)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", "x")

    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / ".gitattributes").write_text("*.lock.yaml merge=union\n", encoding="utf-8")
    commit("1", 1)
    git(tmp_path, "switch", "-q", "-c", "other")
    commit("2", 1)
    git(tmp_path, "switch", "-q", "main")
    commit("3", 1)
    git(tmp_path, "merge", "-q", "other", "-m", "merged")
    assert path.read_text(encoding="utf-8").count(f'"id": "{0:016x}"') == 2
    message = refused(path)
    assert "the lock file is damaged: examples[0] and examples[1] have the same id '0000000000000000'" in message
    assert "pytest --llm-tune" in message


def test_reading_is_linear_and_fast(path: Path) -> None:
    """10,000 examples are read in well under a second of CPU: a guard must not wait for its baseline."""
    example = LOCK.examples[0]
    many = tuple(LockedExample(f"{i:016x}", i, "ok", example.metrics, 5, example.votes, "42") for i in range(10_000))
    Lock("algebra", CONFIG, LOCK.metrics, LOCK.prices, {}, None, many).write(path)
    start = process_time()
    read = Lock.read(path)
    assert process_time() - start < 1.5
    assert len(read.examples) == 10_000


def test_figures_are_rounded_alike_on_every_machine() -> None:
    """Digits in which machines differ are left out, so the file does not change for nothing."""
    assert Measured.of(0.1 + 0.2, Interval(1 / 3, 2 / 3)) == Measured(0.3, 0.333333333333, 0.666666666667)
    assert Measured.of(Decimal(1) / Decimal(3)).interval is None
    assert json.loads(json.dumps(Measured.of(Decimal("0.0003")).value)) == 0.0003


def test_a_figure_has_an_interval_where_both_ends_are_known() -> None:
    assert Measured(0.5, 0.4, 0.6).interval == Interval(0.4, 0.6)
    assert [Measured(0.5).interval, Measured(0.5, 0.4).interval, Measured(0.5, None, 0.6).interval] == [None] * 3
    assert Measured.of(Decimal("0.1234567890123456"), Interval(0.0, 1.0)) == Measured(0.123456789012, 0.0, 1.0)


def test_a_lock_names_the_examples_that_are_unknown() -> None:
    """By id; they have no metrics, no answers and no cost."""
    made = lock(scores(1, None, 0, None))
    assert made.unknown == {f"{1:016x}", f"{3:016x}"}
    for example in made.examples:
        assert (
            (example.metrics == {}) == (example.cost is None) == (example.answers == "") == (example.id in made.unknown)
        )


def test_an_answer_of_200_characters_is_kept_whole() -> None:
    """A longer one is cut to 200, three of which say so."""
    assert short_answer("x" * 200) == "x" * 200
    assert short_answer("x" * 201) == "x" * 197 + "..."
    assert short_answer("") == ""


def test_amounts_are_written_as_numbers_and_figures_without_what_is_not_known() -> None:
    """No quotes around dollars, and no null in a line of figures."""
    study = dataclasses.replace(
        STUDY, inference_budget=Decimal("0.0040"), optimization_budget=Decimal(3), tuning=Measured(0.5), heldout=None
    )
    text = lock(scores(1), study).text()
    data = yaml.safe_load(text)["study"]
    assert {name: data[name] for name in ("spent", "optimization_budget", "inference_budget")} == {
        "spent": 3.25,
        "optimization_budget": 3,
        "inference_budget": 0.004,
    }
    assert (data["tuning"], "heldout" in data) == ({"value": 0.5}, False)
    assert "  tuning: {value: 0.5}\n" in text
    first, second = data["trials"]
    assert (first["spent"], first["inference_cost"], second["inference_cost"]) == (0.25, 1e-7, None)
    assert (first["score"], second["score"]) == ({"value": 0.8, "low": 0.6, "high": 0.9}, None)
    assert [line for line in text.splitlines() if line.startswith("  - {number:")] != []


def test_limits_hold_at_their_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is as large as the limit is read, and what is larger by one is refused."""
    content, text = path.read_bytes(), path.read_text("utf-8")
    monkeypatch.setattr(lockfile, "MAX_BYTES", len(content))
    monkeypatch.setattr(lockfile, "_MOST_EXAMPLES", len(LOCK.examples))
    assert Lock.read(path) == Lock.parse(content, path) == LOCK
    monkeypatch.setattr(lockfile, "_MOST_EXAMPLES", len(LOCK.examples) - 1)
    assert f"it has {len(LOCK.examples)} examples, more than the limit" in refused(path)
    monkeypatch.setattr(lockfile, "MAX_BYTES", len(content) - 1)
    assert "more than the limit of" in refused(path)
    line = text.splitlines()[-1]
    monkeypatch.setattr(lockfile, "_HEAVIEST", json_weight(line))
    assert lockfile._read_line(line)["id"] == LOCK.examples[-1].id
    monkeypatch.setattr(lockfile, "_HEAVIEST", json_weight(line) - 1)
    with pytest.raises(ValueError, match="more than a megabyte"):
        lockfile._read_line(line)


def test_a_conflict_has_its_line_whatever_ends_the_lines(path: Path) -> None:
    """From 1, also after an empty first line, and where git has written CRLF."""
    for content, line in ((b"<<<<<<< HEAD\n", 1), (b"\n<<<<<<< HEAD\n", 2), (b"a: 1\r\n=======\r\n", 2)):
        path.write_bytes(content)
        assert f"algebra.lock.yaml, line {line}: git conflict markers" in refused(path)


def test_an_example_is_locked_with_six_digits_and_the_answers_of_its_vote() -> None:
    """Equal metrics, and the voted answer among the votes, are held once; another voted answer stays."""
    grade = ExampleGrade({"success_vote": 1 / 3}, (("42", 3), ("41", 2)), "42")
    first = dataclasses.replace(result(0), grade=grade)
    other = dataclasses.replace(result(1), grade=dataclasses.replace(grade, voted_answer="41"))
    silent = dataclasses.replace(
        result(2), grade=dataclasses.replace(grade, votes=(), voted_answer="".join(("4", "0")))
    )
    made = lock(evaluation([first, other, silent]))
    assert [example.metrics for example in made.examples] == [{"success_vote": 0.333333}] * 3
    assert made.examples[0].metrics is made.examples[1].metrics
    assert [example.voted_answer for example in made.examples] == ["42", "41", "40"]
    assert made.examples[0].voted_answer is made.examples[0].votes[0][0]


def test_rows_are_locked_with_what_they_ask() -> None:
    """By the suite's key; without one there is none."""
    found = evaluation([result(0), result(1)])
    keyed = Lock.of("algebra", found, prices={}, fingerprints={}, key=lambda row: f"k {row['problem']}")
    assert [example.asked for example in keyed.examples] == ["k What is 0 + 0?", "k What is 1 + 1?"]
    plain = Lock.of("algebra", found, prices={}, fingerprints={})
    assert [example.asked for example in plain.examples] == ["", ""]
    assert StudySummary((), Decimal(0), "budget").seed == 0


def test_a_recording_tells_its_days_and_models() -> None:
    """The oldest and the newest day, and the models as served; what says neither is left out."""

    def recorded(day: str, model: str) -> Interaction:
        return Interaction("POST", "https://api.openai.com/v1", "{}", 200, json.dumps({"model": model}), recorded=day)

    assert RecordedAnswers.of([]) is None
    assert RecordedAnswers.of([recorded("", "")]) == RecordedAnswers(None, None, ())
    three = [recorded("2026-02-01", "b"), recorded("2026-01-01", "a"), recorded("2026-01-31", "b"), recorded("", "")]
    found = RecordedAnswers.of(three)
    assert found == RecordedAnswers("2026-01-01", "2026-02-01", ("a", "b"))
    text = dataclasses.replace(LOCK, recording=found).text()
    assert "\nrecording: {first: '2026-01-01', last: '2026-02-01', models: [a, b]}\n" in text
    assert yaml.safe_load(text)["recording"] == {"first": "2026-01-01", "last": "2026-02-01", "models": ["a", "b"]}
    assert "recording" not in yaml.safe_load(LOCK.text())
    assert "\n  heldout: {value: 0.7, low: 0.5, high: 0.8}\n" in LOCK.text()


def test_a_trial_is_one_line() -> None:
    """Score, cost and configuration; what is not known is left out, or a dash."""
    made = TrialSummary(1, {"model": "m", "n": 2}, Measured(0.8), Decimal("0.001"), Decimal(0), "done")
    assert made.label == "0.8 at $1.00 per 1,000 instances: m, n=2"
    assert dataclasses.replace(made, score=None, inference_cost=None).label == "-: m, n=2"
