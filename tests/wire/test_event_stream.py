"""AWS event streams: read, rewritten with right checksums, and known when they are cut."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.providers import message

from pytest_llmtune.wire.body import text_or_data, why_incomplete
from pytest_llmtune.wire.event_stream import is_complete, payloads, rewritten

EVENTS: list[dict[str, Any]] = [{"delta": {"text": "forty-two"}, "p": "abc"}, {"metrics": {"latencyMs": 7}}]
STREAM = b"".join(message("event", event) for event in EVENTS)


def named(event: dict[str, Any]) -> dict[str, Any]:
    return {**event, "changed": True}


def test_a_rewritten_stream_has_right_lengths_and_checksums() -> None:
    """The padding is gone; the headers are those that were there."""
    data = rewritten(STREAM, named)
    assert list(payloads(data)) == [named({"delta": EVENTS[0]["delta"]}), named(EVENTS[1])]
    position = 0
    while position < len(data):
        length, headers, checksum = struct.unpack_from(">III", data, position)
        assert checksum == zlib.crc32(data[position : position + 8])
        whole = data[position : position + length]
        assert struct.unpack(">I", whole[-4:])[0] == zlib.crc32(whole[:-4])
        assert b":event-type" in whole[12 : 12 + headers]
        position += length
    assert position == len(data)


@pytest.mark.parametrize("cut", [1, 4, 30, len(STREAM) - 1])
def test_a_stream_that_was_cut_is_known_and_left_alone(cut: int) -> None:
    """Within a message's prelude, payload or checksum."""
    assert is_complete(STREAM)
    assert not is_complete(STREAM[:-cut])
    assert rewritten(STREAM[:-cut], named) == STREAM[:-cut]


@given(st.binary(max_size=200))
def test_other_bytes_are_left_alone(data: bytes) -> None:
    """Speech and images go the same way."""
    assert rewritten(data, named) == data
    assert list(payloads(data)) == []


def test_a_stream_is_binary_and_incomplete_where_it_was_cut() -> None:
    """Also where its bytes happen to be UTF-8; a server's error is text, whatever type it claims."""
    events = "application/vnd.amazon.eventstream"
    assert text_or_data(b"{}", 200, events) == ("", b"{}")
    assert text_or_data(b"{}", 400, events) == text_or_data(b"{}", 200, "application/json") == ("{}", b"")
    assert why_incomplete("/model/m/converse-stream", 200, "", events, STREAM) == ""
    assert why_incomplete("/model/m/converse-stream", 200, "", events, STREAM[:-1]) == "was cut"
