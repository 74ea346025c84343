"""Files of recordings that cannot be trusted: one clear error with the line, and never anything but our own error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exchanges import body_of, exchange

from pytest_llmtune._util.jsonhash import build
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording import Recording
from pytest_llmtune.recording import format as cassette_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A recording of three interactions, on the lines 2 to 4 of five."""
    path = tmp_path / "algebra.cassette.json"
    Recording.write(path, [exchange(f"q{i}", "an answer") for i in range(3)])
    return path


def changed(path: Path, line: int, text: str) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines), encoding="utf-8")


def line(path: Path, number: int) -> str:
    return path.read_text(encoding="utf-8").split("\n")[number - 1]


def error_of(path: Path) -> str:
    with pytest.raises(RecordingError) as caught:
        Recording.load(path)
    message = str(caught.value)
    assert message.count("\n") == 0
    return message


@pytest.mark.parametrize("marker", ["<<<<<<< HEAD", "||||||| 1a2b", ">>>>>>> feature"])
def test_git_conflict_markers_are_named(path: Path, marker: str) -> None:
    """An unresolved conflict is reported with its line and how to resolve it."""
    changed(path, 3, marker + "\n" + line(path, 3))
    assert error_of(path).startswith(f"{path}:3: the recording has git conflict markers; restore the file from git")


def test_truncated_file_is_named(path: Path) -> None:
    """A file cut at the end of a line lacks its last line."""
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join(lines[:3]) + "\n", encoding="utf-8")
    assert f"{path}:3: the recording is truncated" in error_of(path)


def test_every_truncation_is_an_error(path: Path) -> None:
    """Cut anywhere, the file is refused; only what is after the last bracket may be missing."""
    whole = path.read_bytes()
    for size in range(0, len(whole) - 2, 7):
        path.write_bytes(whole[:size])
        assert "algebra.cassette.json:" in error_of(path)


def test_corrupt_line_is_named_with_its_column(path: Path) -> None:
    """A line that is no JSON is told by line and column."""
    changed(path, 3, line(path, 3).replace('"request":{', '"request":[', 1))
    assert f"{path}:3: the recording is corrupt: Expecting" in error_of(path)
    assert "at column" in error_of(path)


def test_missing_and_surplus_commas_are_named(path: Path) -> None:
    """A merge that lost a comma leaves what no JSON parser reads: that line is told."""
    changed(path, 3, line(path, 3).removesuffix(","))
    assert f"{path}:3: the recording lacks a comma" in error_of(path)
    changed(path, 3, line(path, 3) + ",")
    changed(path, 4, line(path, 4) + ",")
    assert f"{path}:4: the recording ends with a comma" in error_of(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"request":', '"requests":', "has no 'request'"),
        ('"uri":"', '"url":"', "'uri' of the interaction is None, not text"),
        ('"code":200', '"code":"200"', "status code is '200', not 100..599"),
        ('"code":200', '"code":99999', "status code is 99999, not 100..599"),
        ('"status":{', '"status":7,"x":{', "has no 'status'"),
        ('"method":"POST"', '"method":["POST"]', "'method' of the interaction is ['POST'], not text"),
        ('"body":{"string"', '"body":{"text"', None),
    ],
)
def test_interactions_of_another_shape_are_named(path: Path, old: str, new: str, said: str | None) -> None:
    """Valid JSON that is no interaction is told with what is missing; an empty body is allowed."""
    changed(path, 4, line(path, 4).replace(old, new, 1))
    if said is None:
        assert Recording.load(path).interactions[2].text == ""
    else:
        message = error_of(path)
        assert f"{path}:4: the recording is corrupt" in message
        assert said in message


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_unknown_version_is_named(path: Path, version: object) -> None:
    """A file of another version of the format says which, and which is read."""
    path.write_text(json.dumps({"version": version, "interactions": []}), encoding="utf-8")
    assert error_of(path) == (
        f"{path}: the recording has version {version!r}; this version of pytest-llmtune reads version 1"
    )


@pytest.mark.parametrize("text", ["[]", '"x"', "{}", '{"version": 1}', '{"version": 1, "interactions": {}}', "null"])
def test_json_that_is_no_cassette_is_named(path: Path, text: str) -> None:
    """Other JSON is told apart from a damaged recording."""
    path.write_text(text, encoding="utf-8")
    assert "is not a vcrpy cassette" in error_of(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ":1: the recording is empty"),
        (b"\n \n", ":1: the recording is empty"),
        (b'{"version": 1,\n\xff', ":2: the recording is not UTF-8 text"),
        (b"\x00" * 40, ":1: the recording is corrupt"),
        (b"[" * 200_000, ":1: the recording is corrupt: it is nested too deeply"),
        (b'{"version": ' + b"9" * 5000 + b"}", ":1: the recording is corrupt"),
        (b"\x80\x04\x95\x10\x00", ":1: the recording is not UTF-8 text"),
    ],
)
def test_other_bytes_are_one_clear_error(path: Path, data: bytes, said: str) -> None:
    """Empty, binary, pickled or hostile files: our error, with the line."""
    path.write_bytes(data)
    assert said in error_of(path)


def test_deep_nesting_in_a_line_is_an_error(path: Path) -> None:
    """A hostile line cannot exhaust the stack."""
    changed(path, 3, '{"request":' + "[" * 100_000 + "]" * 100_000 + "},")
    assert f"{path}:3: the recording is corrupt: it is nested too deeply" in error_of(path)


def test_hostile_bodies_are_only_text(path: Path) -> None:
    """A body that is nested too deeply, or no JSON, matches nothing and harms nothing."""
    data = json.loads(path.read_text(encoding="utf-8"))
    for item, body in zip(
        data["interactions"], ["[" * 100_000, '{"a":' * 100_000, '{"x": 1e999, "y": NaN}'], strict=True
    ):
        item["request"]["body"] = body
    path.write_text(json.dumps(data), encoding="utf-8")
    assert Recording.load(path).lookup(build(body_of("q0"), 1)) is None


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"choices": 3}', '{"choices": null}'])
def test_recorded_response_that_is_no_completion_is_named(path: Path, text: str) -> None:
    """It is found when it is taken, by its place in the file."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data["interactions"][1]["response"]["body"]["string"] = text
    path.write_text(json.dumps(data), encoding="utf-8")
    recording = Recording.load(path)
    assert recording.lookup(build(body_of("q0"), 1)) is not None
    with pytest.raises(RecordingError, match="interaction 2 is corrupt"):
        recording.lookup(build(body_of("q1"), 1))


def test_too_large_a_file_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is not filled by a stranger's file."""
    monkeypatch.setattr(cassette_file, "MAX_BYTES", 1000)
    assert "is larger than" in error_of(path)


@pytest.mark.parametrize("change", [b"\r\n", b"bom"])
def test_checkouts_of_windows_are_read(path: Path, change: bytes) -> None:
    """core.autocrlf and byte order marks change nothing."""
    data = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + data if change == b"bom" else data.replace(b"\n", change))
    assert Recording.load(path).lookup(build(body_of("q1"), 1)) is not None


def test_another_layout_is_read(path: Path) -> None:
    """A recording that another tool laid out anew is the same recording."""
    data = json.loads(path.read_text(encoding="utf-8"))
    for item in data["interactions"]:
        item.pop("llmtune")
    path.write_text(json.dumps(data, indent=4), encoding="utf-8")
    completion = Recording.load(path).lookup(build(body_of("q2"), 1))
    assert completion is not None
    assert completion.latency == 0


@settings(max_examples=150)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode), st.integers(0, 5))
def test_no_bytes_make_any_other_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, place: int) -> None:
    """Whatever bytes stand at whatever line of a file, reading it works or says our own error."""
    path = tmp_path_factory.mktemp("fuzz") / "x.cassette.json"
    Recording.write(path, [exchange(f"q{i}", "a") for i in range(3)])
    lines = path.read_bytes().split(b"\n")
    lines[place:place] = [data]
    path.write_bytes(b"\n".join(lines))
    try:
        Recording.load(path).lookup(build(body_of("q0"), 1))
    except RecordingError as error:
        assert str(path) in str(error)  # noqa: PT017


@settings(max_examples=150)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["request", "response", "status", "body", "headers", "code", "method", "uri", "llmtune", "latency"]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_makes_any_other_error(tmp_path_factory: pytest.TempPathFactory, item: object) -> None:
    """Whatever JSON stands where an interaction should, reading it works or says our own error."""
    path = tmp_path_factory.mktemp("fuzz") / "x.cassette.json"
    path.write_text(json.dumps({"version": 1, "interactions": [item]}), encoding="utf-8")
    try:
        Recording.load(path)
    except RecordingError as error:
        assert f"{path}:1: " in str(error)  # noqa: PT017
