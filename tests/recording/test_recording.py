"""The recording of a suite: looked up in any order, written whole, canonical and byte for byte the same."""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exchanges import body_of, exchange

from pytest_llmtune._util.jsonhash import build
from pytest_llmtune.errors import RecordingError
from pytest_llmtune.recording import Gathered, Recording
from pytest_llmtune.redaction.redactor import Redactor
from pytest_llmtune.wire.tokens import completion_of

if TYPE_CHECKING:
    import random
    from pathlib import Path

NOTHING_SECRET = Redactor.from_environment(environ={})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmtune" / "algebra.cassette.json"


def texts(recording: Recording, question: str, n: int, **parameters: object) -> list[str] | None:
    completion = recording.lookup(build(body_of(question, **parameters), n))
    return None if completion is None else [choice.text for choice in completion.choices]


def test_what_was_written_is_taken(path: Path) -> None:
    """Answers come back in their order, with usage, model, finish reasons and latency as served."""
    Recording.write(path, [exchange("2+2?", "4", "four", latency=1.23456)])
    completion = Recording.load(path).lookup(build(body_of("2+2?"), 2))
    assert completion is not None
    assert [(choice.text, choice.finish_reason) for choice in completion.choices] == [("4", "stop"), ("four", "stop")]
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (11, 6)
    assert completion.served_model == "small-2026-01-01"
    assert completion.latency == 1.235
    assert completion.paid == 0


def test_fewer_answers_are_taken_from_more(path: Path) -> None:
    """A recording of five answers serves a request for two."""
    Recording.write(path, [exchange("q", "a", "b", "c", "d", "e")])
    assert texts(Recording.load(path), "q", 2) == ["a", "b"]


def test_exchanges_of_one_request_are_joined_in_order(path: Path) -> None:
    """A server with a limit answered eight as five and three: they replay as eight, in that order."""
    Recording.write(path, [exchange("q", "a", "b", "c", "d", "e"), exchange("q", "f", "g", "h")])
    assert texts(Recording.load(path), "q", 8) == list("abcdefgh")


def test_more_answers_than_recorded_are_missing(path: Path) -> None:
    """Nothing is made up: nine of eight is missing."""
    Recording.write(path, [exchange("q", "a", "b")])
    assert texts(Recording.load(path), "q", 3) is None


def test_asked_again_the_answer_is_the_same(path: Path) -> None:
    """Two examples with the same request get the same answers, in whatever order they ask."""
    Recording.write(path, [exchange("q", "a"), exchange("q", "b")])
    recording = Recording.load(path)
    assert [texts(recording, "q", n) for n in (1, 2, 1)] == [["a"], ["a", "b"], ["a"]]


def test_host_and_base_path_do_not_matter(path: Path) -> None:
    """The same request recorded at another endpoint is the same request."""
    Recording.write(path, [exchange("q", "a", base="http://127.0.0.1:8090/openai/deployments/x")])
    assert texts(Recording.load(path), "q", 1) == ["a"]


def test_spelling_does_not_matter(path: Path) -> None:
    """Key order and the spelling of numbers are not part of a request."""
    Recording.write(path, [exchange("q", "a", temperature=1.0)])
    reordered = dict(reversed(body_of("q", temperature=1).items()))
    assert Recording.load(path).lookup(build(reordered, 1)) is not None


def test_another_route_is_not_taken(path: Path) -> None:
    """An interaction of another API with the same body answers no chat completion."""
    other = exchange("q", "a")
    Recording.write(path, [replace(other, uri="https://api.example.com/v1/responses")])
    assert texts(Recording.load(path), "q", 1) is None


def test_a_file_that_is_not_there_is_an_empty_recording(path: Path) -> None:
    """Before anything is recorded, every request is missing."""
    recording = Recording.load(path)
    assert texts(recording, "q", 1) is None
    assert recording.interactions == ()


@pytest.mark.parametrize("facts", [True, False])
def test_has_marks_nothing_as_used(path: Path, facts: bool) -> None:
    """Whether all requests are recorded is known at once; what is only looked at stays unused."""
    Recording.write(path, [exchange("q", "a", "b"), exchange("q", "c")])
    if not facts:
        data = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**data, "interactions": [i | {"llmtune": 7} for i in data["interactions"]]}))
    recording = Recording.load(path)
    request = build(body_of("q"), 1)
    held = [recording.has(build(body_of("q"), n)) for n in (1, 2, 3, 4)]
    assert held == [True, True, True, False]
    assert [recording.has(replace(request, sample_index=sample_index)) for sample_index in (0, 2, 3)] == [
        True,
        True,
        False,
    ]
    assert recording.has(build(body_of("other"), 1)) is False
    assert len(recording.unused) == 2


def test_a_missing_request_is_explained(path: Path) -> None:
    """By the nearest recorded one; where only answers are missing, by their number; n itself is no difference."""
    Recording.write(path, [exchange("What is 2+2?", "a", "b"), exchange("Name a colour.", "c")])
    recording = Recording.load(path)
    assert recording.explain(build(body_of("What is 2+3?"), 1)).split("\n")[2:] == [
        '-messages[0].content: "What is 2+2?"',
        '+messages[0].content: "What is 2+3?"',
    ]
    assert recording.explain(build(body_of("Name a colour."), 4)) == "1 of the 4 requested answers are recorded"
    assert Recording.load(path.with_name("none")).explain(build(body_of("q"), 1)) == ""


def test_unused_interactions_are_known(path: Path) -> None:
    """What no request took is told: other questions, and exchanges past the answers needed."""
    Recording.write(path, [exchange("q", "a"), exchange("q", "b"), exchange("old", "c")])
    recording = Recording.load(path)
    assert len(recording.unused) == 3
    texts(recording, "q", 1)
    assert sorted(json.loads(item.text)["choices"][0]["message"]["content"] for item in recording.unused) == ["b", "c"]
    texts(recording, "q", 3)
    assert len(recording.unused) == 2


def test_one_interaction_a_line(path: Path) -> None:
    """The file is one JSON document; each line between the first and the last is one interaction."""
    Recording.write(path, [exchange(f"question {i}\nwith\r\nlines\u2028", "a\nb") for i in range(5)])
    lines = path.read_text(encoding="utf-8").split("\n")
    assert (len(lines), lines[0], lines[-2:]) == (8, '{"version": 1, "interactions": [', ["]}", ""])
    for line in lines[1:6]:
        assert json.loads(line.removesuffix(","))["request"]["method"] == "POST"
    assert json.loads(path.read_text(encoding="utf-8"))["version"] == 1


def test_each_interaction_carries_its_facts(path: Path) -> None:
    """Usage, model as served and finish reasons stand in the response, once; latency and the number of answers beside it."""
    Recording.write(path, [exchange("q", "a", "b", latency=0.5)])
    (interaction,) = json.loads(path.read_text(encoding="utf-8"))["interactions"]
    assert interaction["llmtune"] == {"answers": 2, "latency": 0.5}
    response = json.loads(interaction["response"]["body"]["string"])
    assert response["model"] == "small-2026-01-01"
    assert [choice["finish_reason"] for choice in response["choices"]] == ["stop", "stop"]
    assert (response["usage"]["prompt_tokens"], response["usage"]["completion_tokens"]) == (11, 6)


def test_only_allowed_headers_are_kept(path: Path) -> None:
    """Request ids, cookies and everything else that a server sends beside the body stay out."""
    Recording.write(path, [exchange("q", "a")])
    (interaction,) = json.loads(path.read_text(encoding="utf-8"))["interactions"]
    assert interaction["response"]["headers"] == {"content-type": ["application/json"]}
    assert interaction["request"]["headers"] == {"content-type": ["application/json"]}


@given(st.randoms(), st.lists(st.text(max_size=20), min_size=1, max_size=8, unique=True))
def test_order_of_recording_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, seed: random.Random, questions: list[str]
) -> None:
    """Requests finish in any order; the file is the same."""
    path = tmp_path_factory.mktemp("order") / "x.cassette.json"
    exchanges = [exchange(question, "a", question) for question in questions]
    Recording.write(path, exchanges, NOTHING_SECRET)
    before = path.read_bytes()
    path.unlink()
    seed.shuffle(exchanges)
    Recording.write(path, exchanges, NOTHING_SECRET)
    assert path.read_bytes() == before
    recording = Recording.load(path)
    assert all(texts(recording, question, 2) == ["a", question] for question in questions)


def test_recording_again_without_change_is_byte_identical(path: Path) -> None:
    """New ids, times and latencies around the same answers leave the file alone."""
    Recording.write(path, [exchange(f"q{i}", "a", latency=0.1 * i) for i in range(9)])
    before = path.read_bytes()
    again = [
        exchange(f"q{i}", "a", latency=7.0, identity=f"chatcmpl-{i:020}", created=1791111111 + i)
        for i in range(8, -1, -1)
    ]
    assert Recording.write(path, again) is False
    assert path.read_bytes() == before


def test_a_change_in_one_example_changes_one_line(path: Path) -> None:
    """A new answer to one question is one line of the diff."""
    Recording.write(path, [exchange(f"q{i}", "a") for i in range(9)])
    before = path.read_text(encoding="utf-8").split("\n")
    assert Recording.write(path, [exchange(f"q{i}", "b" if i == 4 else "a", latency=9) for i in range(9)]) is True
    after = path.read_text(encoding="utf-8").split("\n")
    assert [one == other for one, other in zip(before, after, strict=True)].count(False) == 1


def test_new_latency_is_kept_where_the_answer_is_new(path: Path) -> None:
    """Only an answer that did not change keeps its old latency; two equal answers keep one each."""
    Recording.write(path, [exchange("q", "a", latency=1), exchange("q", "a", latency=2), exchange("r", "a", latency=3)])
    Recording.write(path, [exchange("q", "a", latency=8), exchange("q", "a", latency=9), exchange("r", "b", latency=9)])
    data = json.loads(path.read_text(encoding="utf-8"))
    assert [item["llmtune"]["latency"] for item in data["interactions"]] == [1, 2, 9]


def test_one_exchange_given_twice_is_written_once(path: Path) -> None:
    """Two examples that share one completion share its line, also when it was read twice from a cache."""
    shared, gathered = exchange("q", "a"), Gathered()
    for found in (shared, shared, replace(shared)):
        gathered.add(build(body_of("q"), 1), completion_of([found], 1))
    Recording.write(path, gathered.exchanges)
    assert len(Recording.load(path).interactions) == 1


def test_equal_answers_of_their_own_stay_two(path: Path) -> None:
    """Two exchanges that only say the same are two: they took different times, or no time was taken."""
    Recording.write(path, [exchange("q", "a", latency=0.1), exchange("q", "a", latency=0.1000001)])
    assert len(Recording.load(path).interactions) == 2
    Recording.write(path, [exchange("q", "a", latency=0), exchange("q", "a", latency=0)])
    assert len(Recording.load(path).interactions) == 2


def test_what_was_gathered_replays_draw_by_draw(path: Path) -> None:
    """Equal rows of a dataset get samples of their own: in a replay each gets its own again, whoever came first."""
    first, second = exchange("q", *"abcde"), exchange("q", *"fghij")
    other, gathered = exchange("r", "x"), Gathered()
    one, two = build(body_of("q"), 4), replace(build(body_of("q"), 4), sample_index=1)
    gathered.add(two, completion_of([first, second], 4, skip=4))
    gathered.add(build(body_of("r"), 1), completion_of([other], 1))
    gathered.add(one, completion_of([first], 4))
    gathered.add(build(body_of("q"), 2), completion_of([first], 2))
    found = list(gathered.exchanges)
    assert sorted(found, key=str) == sorted((first, second, other), key=str)
    assert found.index(first) < found.index(second)
    Recording.write(path, gathered.exchanges)
    recording = Recording.load(path)
    for request, answers in ((one, "abcd"), (two, "efgh")):
        completion = recording.lookup(request)
        assert completion is not None
        assert "".join(choice.text for choice in completion.choices) == answers
    assert len(recording.unused) == 1


def test_write_over_a_broken_file_mends_it(path: Path) -> None:
    """A file that cannot be read is no reason not to record anew."""
    path.parent.mkdir()
    path.write_text("<<<<<<< HEAD\n", encoding="utf-8")
    Recording.write(path, [exchange("q", "a")])
    assert texts(Recording.load(path), "q", 1) == ["a"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory_is_one_clear_error(path: Path) -> None:
    """Where nothing can be written, the message says so and the old file is whole."""
    Recording.write(path, [exchange("q", "a")])
    path.parent.chmod(0o500)
    try:
        with pytest.raises(RecordingError, match="cannot be written: Permission denied"):
            Recording.write(path, [exchange("q", "b")])
    finally:
        path.parent.chmod(0o700)
    assert texts(Recording.load(path), "q", 1) == ["a"]


def test_a_directory_in_the_way_is_one_clear_error(path: Path) -> None:
    """Neither reading nor writing lets an OSError escape."""
    path.mkdir(parents=True)
    with pytest.raises(RecordingError, match="cannot be read"):
        Recording.load(path)
    with pytest.raises(RecordingError, match="cannot be written"):
        Recording.write(path, [exchange("q", "a")])


def test_looking_up_does_not_depend_on_size(path: Path) -> None:
    """Taking the last of many costs what taking the first costs: no recorded body is read on the way."""
    Recording.write(path, [exchange(f"q{i:04}", "a") for i in range(1500)], NOTHING_SECRET)
    recording = Recording.load(path)
    read: list[int] = []
    original = type(recording)._exchange

    class Counting(Recording):
        __slots__ = ()

        def _exchange(self, position: int) -> object:
            read.append(position)
            return original(self, position)

    counting = Counting(path, recording.interactions, None, recording._index)
    assert texts(counting, "q1499", 1) == ["a"]
    assert len(read) == 1


def test_equal_answers_of_equal_rows_are_all_kept(path: Path) -> None:
    """Two draws that were answered alike, in no time: two exchanges, not one."""
    gathered = Gathered()
    for sample_index in (1, 0):
        gathered.add(replace(build(body_of("q"), 1), sample_index=sample_index), completion_of([exchange("q", "a")], 1))
    Recording.write(path, gathered.exchanges)
    recording = Recording.load(path)
    assert len(recording.interactions) == 2
    assert recording.lookup(replace(build(body_of("q"), 1), sample_index=1)) is not None


def test_much_is_gathered_on_disk(path: Path) -> None:
    """Past some megabytes nothing of it is in memory, and all of it is in the recording, in its order."""
    gathered, size = Gathered(), 300_000
    tracemalloc.start()
    for number in range(200):
        answer = exchange(f"q{number}", chr(97 + number % 26) * size)
        gathered.add(build(body_of(f"q{number}"), 1), completion_of([answer], 1))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100 * size
    found = {item.request["messages"][0]["content"]: len(str(item.response)) for item in gathered.exchanges}
    assert len(found) == 200
    assert min(found.values()) > size
