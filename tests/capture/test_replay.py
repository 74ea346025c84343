"""The calls of one test in every mode: what is asked, played, written, dropped, refused and told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import os
import queue
import threading
from typing import TYPE_CHECKING, Any

import openai
import pytest
from support.llm_server import Answer, Fault, LLMServer
from support.replaying import COMMAND, chat, replay_of

from pytest_llmtune.capture.call import CallRefusedError
from pytest_llmtune.capture.client import async_client, client
from pytest_llmtune.capture.matching import Matching
from pytest_llmtune.capture.netguard import Offline
from pytest_llmtune.errors import RecordingError, StaleRecordingError, SuiteError
from pytest_llmtune.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_llmtune.capture.session import Replay

PLAYING = (Mode.REPLAY, Mode.ACCEPT, Mode.DRY_RUN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmtune" / "test_app.cassette.json"


@pytest.fixture
def server() -> Iterator[LLMServer]:
    """Every answer is another one: its number and the question."""
    number = itertools.count(1)
    with LLMServer(answer=lambda body: f"#{next(number)}: {body['messages'][-1]['content']}") as running:
        yield running


def ask(replay: Replay, base_url: str | None, *questions: str, **parameters: Any) -> list[str]:
    """What the client is answered; without a server there is no URL to give."""
    url = base_url or "http://127.0.0.1:9/v1"
    with client(replay, base_url=url, api_key="any") as asking:
        said = [asking.chat.completions.create(**chat(question, **parameters)) for question in questions]
    return [completion.choices[0].message.content for completion in said]


def recorded(path: Path, server: LLMServer, *questions: str, mode: Mode = Mode.RECORD_ALL) -> list[str]:
    with replay_of(path, mode) as replay:
        return ask(replay, server.base_url, *questions)


def bodies(path: Path) -> list[str]:
    interactions = json.loads(path.read_text(encoding="utf-8"))["interactions"]
    return [json.loads(item["request"]["body"])["messages"][-1]["content"] for item in interactions]


@pytest.mark.parametrize("mode", PLAYING)
def test_what_was_recorded_is_played(path: Path, server: LLMServer, mode: Mode) -> None:
    """With the network shut and no key, in another order, each question gets its recorded answer."""
    recorded(path, server, "a", "b", "c")
    before = path.read_bytes()
    with Offline(COMMAND), replay_of(path, mode) as replay, client(replay) as asking:
        said = [asking.chat.completions.create(**chat(q)).choices[0].message.content for q in ("c", "a", "b")]
    assert said == ["#3: c", "#1: a", "#2: b"]
    assert server.count == 3
    assert path.read_bytes() == before
    assert replay.unused == ()


def test_samples_of_one_request_keep_their_order(path: Path, server: LLMServer) -> None:
    """The same request three times gives three recorded answers, first to last."""
    assert recorded(path, server, "q", "q", "q") == ["#1: q", "#2: q", "#3: q"]
    with replay_of(path) as replay:
        assert ask(replay, None, "q", "q", "q") == ["#1: q", "#2: q", "#3: q"]


def test_samples_keep_the_order_of_asking_not_of_answering(path: Path) -> None:
    """Asked together and answered in reverse, they are recorded in the order in which they were asked."""
    release = [threading.Event() for _ in range(3)]
    number = itertools.count()

    def slow(body: dict[str, Any]) -> str:
        mine = next(number)
        if mine < 2:
            release[mine + 1].wait(5)
        release[mine].set()
        return f"asked as {mine}"

    async def together(replay: Replay, url: str) -> list[str | None]:
        async with async_client(replay, base_url=url, api_key="any") as asking:
            jobs = []
            for arrived in (1, 2, 3):
                jobs.append(asyncio.ensure_future(asking.chat.completions.create(**chat("q"))))
                if replay.mode is Mode.RECORD_ALL:
                    await asyncio.to_thread(server.until, lambda wanted=arrived: server.count >= wanted)
            return [completion.choices[0].message.content for completion in await asyncio.gather(*jobs)]

    with LLMServer(answer=slow) as server:
        with replay_of(path, Mode.RECORD_ALL) as replay:
            first = asyncio.run(together(replay, server.base_url))
        assert first == ["asked as 0", "asked as 1", "asked as 2"]
        with replay_of(path) as replay:
            assert asyncio.run(together(replay, server.base_url)) == first


def test_a_call_without_a_recording_fails_the_test(path: Path, server: LLMServer) -> None:
    """The error says what is asked, how it differs from the nearest recorded request, and the command."""
    recorded(path, server, "What is 2 plus 2?", "Name a colour.")
    with pytest.raises(StaleRecordingError) as caught, replay_of(path) as replay:
        ask(replay, None, "What is 2 plus 3?", temperature=0.5)
    message = str(caught.value)
    assert "1 call of the test has no recording in" in message
    assert "POST /v1/chat/completions" in message
    assert '-messages[0].content: "What is 2 plus 2?"' in message
    assert '+messages[0].content: "What is 2 plus 3?"' in message
    assert "+temperature: 0.5" in message
    assert "colour" not in message
    assert message.endswith(f"record what it asks: {COMMAND}")


def test_a_call_too_many_has_its_own_error(path: Path, server: LLMServer) -> None:
    """A request that was recorded, but made once more than then, says so instead of showing an empty diff."""
    recorded(path, server, "q", "q")
    with pytest.raises(StaleRecordingError, match=r"was recorded 2 times, and is now made once more"):  # noqa: SIM117
        with replay_of(path) as replay:
            ask(replay, None, "q", "q", "q")


@pytest.mark.parametrize("swallow", [Exception, openai.APIError, BaseException])
def test_a_refused_call_cannot_be_swallowed(path: Path, swallow: type[BaseException]) -> None:
    """Code that falls back on any error does not hide that a call has no recording; nor is it retried."""
    with pytest.raises(StaleRecordingError, match="no recording"), replay_of(path) as replay:
        for _ in range(2):
            try:
                ask(replay, None, "q")
            except swallow:
                continue
    assert len(replay.missing) == (2 if swallow is BaseException else 1)


def test_the_error_of_the_test_itself_is_kept_as_cause(path: Path) -> None:
    """What the test raised because of the missing recording stays in sight."""
    with pytest.raises(StaleRecordingError) as caught, replay_of(path) as replay:
        try:
            ask(replay, None, "q")
        except CallRefusedError as error:
            raise ValueError("no answer") from error
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_failing_test_with_all_recordings_fails_by_itself(path: Path, server: LLMServer) -> None:
    """An assertion of the test is not replaced."""
    recorded(path, server, "q")
    with pytest.raises(AssertionError, match="wrong"), replay_of(path) as replay:
        ask(replay, None, "q")
        raise AssertionError("wrong")


@pytest.mark.parametrize("mode", [Mode.RECORD_MISSING, Mode.TUNE])
def test_missing_adds_what_is_missing_and_drops_what_is_stale(path: Path, server: LLMServer, mode: Mode) -> None:
    """Known questions are played, new ones asked, and what is asked no more is removed."""
    recorded(path, server, "a", "b", "old")
    assert recorded(path, server, "b", "new", "a", mode=mode) == ["#2: b", "#4: new", "#1: a"]
    assert server.count == 4
    assert bodies(path) == ["a", "b", "new"]


def test_missing_without_change_leaves_the_file_alone(path: Path, server: LLMServer) -> None:
    """Nothing new, nothing stale: no byte changes, and no request is sent."""
    recorded(path, server, "a", "b")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    recorded(path, server, "b", "a", mode=Mode.RECORD_MISSING)
    assert (path.read_bytes(), path.stat().st_mtime_ns, server.count) == (before, stamp, 2)


def test_all_requests_everything_again(path: Path, server: LLMServer) -> None:
    """Nothing of the old recording is played or kept."""
    recorded(path, server, "a", "b")
    assert recorded(path, server, "b") == ["#3: b"]
    assert bodies(path) == ["b"]


def test_live_neither_reads_nor_writes(path: Path, server: LLMServer) -> None:
    """Today's answers, and no byte of the recording changes; nor is one made."""
    assert recorded(path, server, "a", mode=Mode.LIVE) == ["#1: a"]
    assert not path.exists()
    recorded(path, server, "a")
    before = path.read_bytes()
    assert recorded(path, server, "a", mode=Mode.LIVE) == ["#3: a"]
    assert path.read_bytes() == before


def test_a_test_without_calls_makes_no_file(path: Path) -> None:
    """Recording a test that asks nothing leaves nothing behind."""
    for mode in Mode:
        with replay_of(path, mode):
            pass
    assert not path.parent.exists()


def test_a_recording_that_became_empty_is_removed(path: Path, server: LLMServer) -> None:
    """A test that asks no more what it asked once needs no file."""
    recorded(path, server, "a")
    with replay_of(path, Mode.RECORD_MISSING):
        pass
    assert not path.exists()


def test_a_failing_test_removes_nothing(path: Path, server: LLMServer) -> None:
    """A test that stops in the middle did not ask everything: what it did not reach stays; what it paid for is kept."""
    recorded(path, server, "a", "b")
    with pytest.raises(AssertionError), replay_of(path, Mode.RECORD_MISSING) as replay:
        ask(replay, server.base_url, "new")
        raise AssertionError
    assert bodies(path) == ["a", "b", "new"]


def test_a_failing_test_leaves_the_old_recording_whole(path: Path, server: LLMServer) -> None:
    """Re-recording that did not come to its end leaves the old file."""
    recorded(path, server, "a", "b")
    before = path.read_bytes()
    with pytest.raises(AssertionError), replay_of(path, Mode.RECORD_ALL) as replay:
        ask(replay, server.base_url, "a")
        raise AssertionError
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [Mode.RECORD_ALL, Mode.RECORD_MISSING])
def test_an_interrupt_leaves_the_old_recording(path: Path, server: LLMServer, mode: Mode) -> None:
    """Ctrl-C stays Ctrl-C, and the file stays the file."""
    recorded(path, server, "a")
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), replay_of(path, mode) as replay:
        ask(replay, server.base_url, "b")
        raise KeyboardInterrupt
    assert path.read_bytes() == before


@pytest.mark.parametrize("fault", [Fault.http(500), Fault.busy(retry_after_ms="1"), Fault.http(409)])
def test_only_the_successful_answer_is_recorded(path: Path, fault: Fault) -> None:
    """What a retry made good is one interaction, and one call."""
    with LLMServer(faults=[fault]) as server, replay_of(path, Mode.RECORD_ALL) as replay:
        ask(replay, server.base_url, "a")
    assert (server.count, replay.meter.calls) == (2, 1)
    assert len(bodies(path)) == 1


@pytest.mark.parametrize("kind", ["truncated", "not_json", "empty_choices", "reset_mid_body"])
def test_incomplete_answers_fail_the_recording_run(path: Path, kind: Any) -> None:
    """A body that was cut, is no JSON or holds no answer is not kept, whatever its status: the run says so."""
    bad = Fault(kind)
    with (
        LLMServer(fault=lambda body: bad if "bad" in str(body) else None) as server,
        pytest.raises(RecordingError, match=r"the response to POST /v1/chat/completions .* cannot be recorded"),
        replay_of(path, Mode.RECORD_ALL) as replay,
        client(replay, base_url=server.base_url, api_key="any") as asking,
    ):
        with contextlib.suppress(openai.APIError, ValueError):
            asking.with_options(max_retries=0).chat.completions.create(**chat("bad"))
        asking.chat.completions.create(**chat("good"))
    assert server.count == 2
    assert bodies(path) == ["good"]


@pytest.mark.parametrize("kind", ["truncated", "not_json", "empty_choices", "reset_mid_body"])
def test_incomplete_answers_that_were_asked_for_again_are_left_out(path: Path, kind: Any) -> None:
    """What the app made good by asking again is recorded as one answer."""
    with (
        LLMServer(faults=[Fault(kind)]) as server,
        replay_of(path, Mode.RECORD_ALL) as replay,
        client(replay, base_url=server.base_url, api_key="any") as asking,
    ):
        with contextlib.suppress(openai.APIError, ValueError):
            asking.with_options(max_retries=0).chat.completions.create(**chat("q"))
        asking.chat.completions.create(**chat("q"))
    assert bodies(path) == ["q"]


def failing(replay: Replay, server: LLMServer, *questions: str, max_retries: int = 0) -> list[str]:
    """What the client says of each question: the answer, or the error's status, code and request id."""
    said = []
    with client(replay, base_url=server.base_url, api_key="any") as asking:
        for question in questions:
            try:
                reply = asking.with_options(max_retries=max_retries).chat.completions.create(**chat(question))
                said.append(str(reply.choices[0].message.content))
            except openai.APIStatusError as error:
                said.append(f"{error.status_code} {error.code} {error.response.headers.get('retry-after-ms')}")
    return said


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_final_errors_are_recorded_and_replayed(path: Path, status: int) -> None:
    """Code that handles an error of the server's is tested against that error, and none of them counts as a call."""
    fault = Fault("status", status, {"retry-after-ms": "1"}, "the server had an error", "a_code")
    with LLMServer(fault=lambda body: fault if "bad" in str(body) else None) as server:
        with replay_of(path, Mode.RECORD_ALL) as replay:
            first = failing(replay, server, "bad", "good")
        assert first == [f"{status} a_code 1", "ok"]
        assert replay.meter.calls == 1
        with replay_of(path) as replay:
            assert failing(replay, server, "bad", "good") == first
        assert (server.count, replay.meter.calls) == (2, 1)


def test_the_last_of_several_retries_is_what_is_recorded(path: Path) -> None:
    """The client gave up after three: one error is recorded, and each attempt of the replay gets it."""
    with LLMServer(fault=lambda _: Fault.busy(retry_after_ms="1")) as server:
        with replay_of(path, Mode.RECORD_ALL) as replay:
            first = failing(replay, server, "q", max_retries=2)
        assert (server.count, bodies(path)) == (3, ["q"])
        with replay_of(path) as replay:
            assert failing(replay, server, "q", max_retries=2) == first
        assert server.count == 3


def test_retries_are_recorded_where_they_are_asked_for(path: Path) -> None:
    """``keep_retries``: the error that a retry made good is played before the answer."""
    with LLMServer(faults=[Fault.busy(retry_after_ms="1")]) as server:
        with replay_of(path, Mode.RECORD_ALL, keep_retries=True) as replay:
            assert failing(replay, server, "q", max_retries=1) == ["ok"]
        assert bodies(path) == ["q", "q"]
        with replay_of(path) as replay:
            assert failing(replay, server, "q", "q") == ["429 rate_limit_exceeded 1", "ok"]
        assert server.count == 2


def test_a_stream_is_recorded_whole(path: Path) -> None:
    """Streamed answers play event by event, with usage where it was asked for."""

    def words(replay: Replay, url: str) -> list[Any]:
        with client(replay, base_url=url, api_key="any") as asking:
            stream = asking.chat.completions.create(**chat("q"), stream=True, stream_options={"include_usage": True})
            return [(c.choices[0].delta.content if c.choices else c.usage.total_tokens) for c in stream]

    with LLMServer(answer="three little words", gzip=True) as server:
        with replay_of(path, Mode.RECORD_ALL) as replay:
            first = words(replay, server.base_url)
        with replay_of(path) as replay:
            assert words(replay, server.base_url) == first
    assert first == ["", "three ", "little ", "words", None, 13]
    assert replay.meter.usage["small"].completion_tokens == 5


def test_a_broken_recording_is_one_clear_error(path: Path) -> None:
    """It is reported before any test runs, and re-recording fixes it."""
    path.parent.mkdir()
    path.write_text("<<<<<<< HEAD\n", encoding="utf-8")
    with pytest.raises(RecordingError, match="git conflict markers"), replay_of(path):
        pytest.fail("the test must not run")
    with LLMServer() as server, replay_of(path, Mode.RECORD_ALL) as replay:
        ask(replay, server.base_url, "a")
    assert bodies(path) == ["a"]


def test_binary_answers_are_recorded(path: Path) -> None:
    """Speech and pictures are kept byte by byte."""
    from pytest_llmtune.capture.matching import ClientRequest

    speech, audio = (
        ClientRequest.of("POST", "https://h/v1/audio/speech", b'{"model": "tts", "input": "q"}'),
        b"\xff\xfb\x90\x00",
    )
    with replay_of(path, Mode.RECORD_ALL) as replay:
        replay.answer(replay.begin(speech), 200, "OK", {"content-type": "audio/mpeg"}, audio)
    with replay_of(path) as replay:
        played = replay.begin(speech).interaction
    assert played is not None
    assert (played.content, played.headers["content-type"]) == (audio, "audio/mpeg")
    assert replay.meter.calls == 1


def test_headers_that_apps_read_survive(path: Path) -> None:
    """Limits and ids; never cookies or the organisation."""
    from pytest_llmtune.capture.matching import ClientRequest

    headers = {"x-request-id": "req_1", "x-ratelimit-remaining-requests": "59", "retry-after": "1"}
    private = {"set-cookie": "a=b", "openai-organization": "mine", "content-type": "application/json"}
    asked = ClientRequest.of("POST", "https://h/v1/chat/completions", json.dumps(chat("q")))
    with replay_of(path, Mode.RECORD_ALL) as replay:
        replay.answer(replay.begin(asked), 429, "Too Many Requests", headers | private, b'{"error": {"message": "no"}}')
    with replay_of(path) as replay:
        played = replay.begin(asked).interaction
    assert played is not None
    assert played.headers == headers | {"content-type": "application/json"}


def test_a_worker_that_reports_only_exceptions_does_not_hang(path: Path) -> None:
    """A refused call in a thread ends it with an error of the client's, which it can hand over; the test fails."""
    answers: queue.Queue[str] = queue.Queue()

    def work(replay: Replay) -> None:
        try:
            answers.put(ask(replay, None, "q")[0])
        except Exception as error:  # noqa: BLE001
            answers.put(str(error))

    with pytest.raises(StaleRecordingError, match="no recording"), replay_of(path) as replay:
        thread = threading.Thread(target=work, args=(replay,), daemon=True)
        thread.start()
        assert "has no recording" in answers.get(timeout=5)


def test_a_task_that_reports_only_exceptions_does_not_hang(path: Path) -> None:
    """The same in an event loop."""

    async def work(replay: Replay, answers: asyncio.Queue[str]) -> None:
        async with async_client(replay, base_url="http://127.0.0.1:9/v1", api_key="any") as asking:
            try:
                await asking.chat.completions.create(**chat("q"))
            except Exception as error:  # noqa: BLE001
                await answers.put(str(error))

    async def supervise(replay: Replay) -> str:
        answers: asyncio.Queue[str] = asyncio.Queue()
        task = asyncio.create_task(work(replay, answers))
        try:
            return await asyncio.wait_for(answers.get(), 5)
        finally:
            await task

    with pytest.raises(StaleRecordingError, match="no recording"), replay_of(path) as replay:
        assert "has no recording" in asyncio.run(supervise(replay))


def test_endless_retries_are_stopped(path: Path) -> None:
    """A loop that retries after any error is ended."""

    async def insist(replay: Replay) -> None:
        async with async_client(replay, base_url="http://127.0.0.1:9/v1", api_key="any") as asking:
            while True:
                with contextlib.suppress(Exception):
                    await asking.chat.completions.create(**chat("q"))

    with pytest.raises(StaleRecordingError, match="21 calls of the test have no recording"), replay_of(path) as replay:
        asyncio.run(insist(replay))


def test_spelling_and_host_do_not_matter(path: Path, server: LLMServer) -> None:
    """Another host, other key order and another spelling of numbers are the same request; another path is not."""
    with replay_of(path, Mode.RECORD_ALL) as replay:
        ask(replay, server.base_url, "q", temperature=1.0, seed=3)
    with replay_of(path) as replay:
        assert ask(replay, "https://api.example.com/v1", "q", seed=3, temperature=1) == ["#1: q"]
    with pytest.raises(StaleRecordingError), replay_of(path) as replay:
        ask(replay, "https://api.example.com/v2", "q", temperature=1, seed=3)


def test_n_matters(path: Path, server: LLMServer) -> None:
    """For client code another n is another request: nothing is cut or joined behind its back."""
    recorded(path, server, "q")
    with pytest.raises(StaleRecordingError, match=r"\+n: 2"), replay_of(path) as replay:
        ask(replay, None, "q", n=2)


@pytest.mark.parametrize(
    ("match_on", "asked", "found"),
    [
        (("method", "path"), ("http://127.0.0.1:9/v1", "another"), True),
        (("method", "host", "body"), ("http://127.0.0.1:9/v9", "q"), True),
        (("host", "body"), ("http://localhost:9/v1", "q"), False),
        (("body", "port"), ("http://127.0.0.1:9/v1", "q"), False),
        (("uri", "body"), ("http://127.0.0.1:9/v1", "q"), False),
        ("body", ("https://h/other", "q"), True),
        (("scheme", "body"), ("https://h/v1", "q"), False),
        (("query", "body"), ("https://h/v1", "q"), True),
    ],
)
def test_the_user_says_what_is_compared(
    path: Path, server: LLMServer, match_on: Any, asked: tuple[str, str], found: bool
) -> None:
    """``match_on`` of the marker, with vcrpy's names."""
    recorded(path, server, "q")
    replay = replay_of(path, matching=Matching.on(match_on))
    if found:
        with replay:
            assert ask(replay, *asked) == ["#1: q"]
    else:
        with pytest.raises(StaleRecordingError), replay:
            ask(replay, *asked)


@pytest.mark.parametrize("match_on", [["bdoy"], [], "url", ["body", "headers"]])
def test_unknown_parts_are_refused(match_on: Any) -> None:
    """The message lists the valid names."""
    with pytest.raises(SuiteError, match="valid: method, path, body, uri, scheme, host, port, query"):
        Matching.on(match_on)


def test_threads_share_one_recording(path: Path, server: LLMServer) -> None:
    """Eight threads ask through one client: every answer is recorded once, and goes back to its question."""
    questions = [f"q{i}" for i in range(64)]

    def together(replay: Replay) -> dict[str, str]:
        with client(replay, base_url=server.base_url, api_key="any") as asking:

            def one(question: str) -> str:
                return str(asking.chat.completions.create(**chat(question)).choices[0].message.content)

            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                return dict(zip(questions, pool.map(one, questions), strict=True))

    with replay_of(path, Mode.RECORD_ALL) as replay:
        first = together(replay)
    assert all(answer.endswith(f": {question}") for question, answer in first.items())
    with replay_of(path) as replay:
        assert together(replay) == first
    assert (server.count, replay.meter.calls, replay.unused) == (64, 64, ())


def test_each_sample_is_played_to_one_thread(path: Path, server: LLMServer) -> None:
    """Forty equal requests from eight threads play forty different recorded answers."""
    recorded(path, server, *["q"] * 40)
    with replay_of(path) as replay, client(replay) as asking, concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(asking.chat.completions.create, **chat("q")) for _ in range(40)]
        said = {job.result().choices[0].message.content for job in jobs}
    assert len(said) == 40


def test_two_recordings_do_not_mix(tmp_path: Path, server: LLMServer) -> None:
    """Two suites record at once, in threads of their own: each file holds its own questions."""
    barrier = threading.Barrier(2)

    def suite(name: str) -> list[str]:
        with replay_of(tmp_path / f"{name}.cassette.json", Mode.RECORD_ALL) as replay:
            barrier.wait(5)
            return ask(replay, server.base_url, *[f"{name}{i}" for i in range(10)])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(suite, ("a", "b")))
    for name in ("a", "b"):
        assert bodies(tmp_path / f"{name}.cassette.json") == [f"{name}{i}" for i in range(10)]


def test_one_recording_is_written_by_one_run(path: Path, tmp_path: Path) -> None:
    """A second recording run of the same test is refused with the holder's process; replay needs no lock."""
    locks = tmp_path / "locks"
    with (
        replay_of(path, Mode.RECORD_ALL, lock_directory=locks),
        pytest.raises(RecordingError, match=rf"being written by another run \(process {os.getpid()}\)"),
        replay_of(path, Mode.RECORD_MISSING, lock_directory=locks),
    ):
        pytest.fail("the test must not run")
    with replay_of(path, Mode.RECORD_ALL, lock_directory=locks), replay_of(path, lock_directory=locks):
        pass


def test_calls_before_the_test_are_played_too(path: Path, server: LLMServer) -> None:
    """A fixture may ask before the context is entered: the recording is read when it is first needed."""
    recorded(path, server, "early", "late")
    replay = replay_of(path)
    assert ask(replay, None, "early") == ["#1: early"]
    with replay:
        assert ask(replay, None, "late") == ["#2: late"]
    assert replay.unused == ()


def test_the_client_needs_no_key_to_replay(path: Path, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no URL: replay works; recording says what is missing; a key of the environment is used."""
    recorded(path, server, "q")
    with replay_of(path) as replay, client(replay) as asking:
        assert asking.chat.completions.create(**chat("q")).choices[0].message.content == "#1: q"
    with pytest.raises(openai.OpenAIError, match="OPENAI_API_KEY"), replay_of(path, Mode.RECORD_ALL) as replay:
        client(replay)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    with replay_of(path, Mode.RECORD_ALL) as replay, client(replay) as asking:
        asking.chat.completions.create(**chat("q"))
    assert server.keys[-1] == "sk-of-the-environment"


def test_a_refused_answer_is_an_answer(path: Path) -> None:
    """A completion that a filter stopped is complete: it is recorded and played as it was."""

    def reasons(replay: Replay, url: str) -> list[str]:
        with client(replay, base_url=url, api_key="any") as asking:
            return [choice.finish_reason for choice in asking.chat.completions.create(**chat("q", n=2)).choices]

    with LLMServer(answer=[Answer("", "content_filter"), Answer("cut", "length")]) as server:
        with replay_of(path, Mode.RECORD_ALL) as replay:
            assert reasons(replay, server.base_url) == ["content_filter", "length"]
        with replay_of(path) as replay:
            assert reasons(replay, server.base_url) == ["content_filter", "length"]


def test_conversations_with_tools_replay(path: Path) -> None:
    """The id of a tool call differs in every answer, and the next request sends it back: it is found again."""
    from pytest_llmtune.capture.matching import ClientRequest

    def converse(answers: Callable[[ClientRequest], dict[str, Any]]) -> str:
        first = answers(ClientRequest.of("POST", "https://h/v1/chat/completions", json.dumps({"messages": ["q"]})))
        call = first["choices"][0]["message"]["tool_calls"][0]["id"]
        body = {"messages": ["q", {"role": "tool", "tool_call_id": call, "content": "7"}]}
        return str(
            answers(ClientRequest.of("POST", "https://h/v1/chat/completions", json.dumps(body)))["choices"][0][
                "message"
            ]
        )

    def served(asked: ClientRequest) -> dict[str, Any]:
        call = replay.begin(asked)
        tool = {"id": f"call_{os.urandom(12).hex()}9", "type": "function"}
        message = {"content": "it is 7"} if "tool_call_id" in asked.body else {"tool_calls": [tool]}
        reply = {
            "id": f"chatcmpl-{os.urandom(12).hex()}9",
            "object": "chat.completion",
            "choices": [{"message": message}],
        }
        replay.answer(call, 200, "OK", {"content-type": "application/json"}, json.dumps(reply).encode())
        return reply

    def played(asked: ClientRequest) -> dict[str, Any]:
        interaction = replay.begin(asked).interaction
        assert interaction is not None
        reply = json.loads(interaction.text)
        assert isinstance(reply, dict)
        return reply

    with replay_of(path, Mode.RECORD_ALL) as replay:
        converse(served)
    before = path.read_bytes()
    with replay_of(path) as replay:
        assert converse(played) == "{'content': 'it is 7'}"
    with replay_of(path, Mode.RECORD_ALL) as replay:
        converse(served)
    assert path.read_bytes() == before
