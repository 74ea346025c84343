"""The canonical form of a request: equal requests are equal texts, and only those."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune._util.jsonhash import build, canonical_json, request_key, safe_json, without_n
from pytest_llmtune.errors import SuiteError

if TYPE_CHECKING:
    import random

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.text(), values, max_size=5)


def shuffled(value: Any, seed: random.Random) -> Any:
    """The same data with its keys in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, seed)) for key, item in value.items()]
        seed.shuffle(items)
        return dict(items)
    return [shuffled(item, seed) for item in value] if isinstance(value, list) else value


@given(bodies, st.randoms())
def test_order_of_keys_does_not_matter(body: dict[str, Any], seed: random.Random) -> None:
    """Any order of keys, at any depth, gives the same text."""
    assert canonical_json(shuffled(body, seed)) == canonical_json(body)


@given(bodies)
def test_canonical_text_is_json_of_the_same_data(body: dict[str, Any]) -> None:
    """The text is one line of JSON that any file can hold, and says exactly what was put in."""
    text = canonical_json(body)
    assert json.loads(text) == json.loads(json.dumps(body))
    assert "\n" not in text
    assert len(text.splitlines()) == 1
    assert text.encode().decode() == text


@given(bodies)
def test_canonical_form_is_a_fixed_point(body: dict[str, Any]) -> None:
    """Reading the text and writing it again changes nothing."""
    text = canonical_json(body)
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize("spelling", ["1", "1.0", "1e0", "10e-1", "1.000"])
def test_spelling_of_numbers_does_not_matter(spelling: str) -> None:
    """1, 1.0 and 1e0 are one number."""
    assert canonical_json(json.loads(f'{{"t": {spelling}}}')) == '{"t":1}'


@pytest.mark.parametrize(("one", "other"), [(0.1, 1e-1), (-0.0, 0), (1e22, 10**22), (2.0**60, 2**60), (0.30, 0.3)])
def test_equal_numbers_are_equal_texts(one: float, other: float) -> None:
    """Numbers that are equal are written equally, however large."""
    assert canonical_json([one]) == canonical_json([other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (1, "1"),
        (None, ""),
        (2**63, 2**63 - 1),
        (0.1, 0.1000001),
        ([], {}),
        ("\u00e4", "a\u0308"),
    ],
)
def test_different_values_are_different_texts(one: Any, other: Any) -> None:
    """What differs stays different; Unicode is not normalised."""
    assert canonical_json([one]) != canonical_json([other])


@pytest.mark.parametrize("text", ["\u2028", "\x85", "\x7f", "\ud83d", "\u202e", "a\nb", "\x1b[31m", "\r"])
def test_unsafe_characters_are_escaped(text: str) -> None:
    """Characters that break lines, hide text or no file can hold are escaped, and come back as they were."""
    written = safe_json(text)
    assert written.isascii()
    assert json.loads(written) == text


def test_any_script_stays_readable() -> None:
    """A Korean prompt is Korean in the file, so that a diff can be read."""
    assert canonical_json({"질문": "오늘 날씨는? 😀"}) == '{"질문":"오늘 날씨는? 😀"}'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"messages": [{"content": object()}]}, r"messages\[0\]\.content is <object"),
        ({"stop": {"a"}}, r"stop is \{'a'\} \(set\)"),
        ({"logit_bias": {50256: -100}}, r"logit_bias has the key 50256"),
        ({"x": b"bytes"}, "x is b'bytes'"),
        (float("inf"), "body is inf"),
    ],
)
def test_what_json_cannot_say_is_refused(value: Any, said: str) -> None:
    """The message names the parameter, what it is, and what is valid."""
    with pytest.raises(SuiteError, match=said):
        canonical_json(value)


def test_a_body_that_holds_itself_is_refused() -> None:
    """No endless recursion, and no RecursionError."""
    body: dict[str, Any] = {}
    body["body"] = body
    with pytest.raises(SuiteError, match="nested too deeply"):
        canonical_json(body)


def test_key_is_the_hash_of_the_canonical_body_without_n() -> None:
    """The documented recipe, done by hand."""
    body = {"model": "m", "n": 5, "temperature": 1.0}
    assert request_key(body) == hashlib.sha256(b'{"model":"m","temperature":1}').hexdigest()
    assert request_key(body) == request_key(without_n(body)) == request_key(body | {"n": 9})


def test_key_depends_on_every_parameter() -> None:
    """A parameter more, or another value, is another request; None is a value of its own."""
    body = {"model": "m", "temperature": 0}
    keys = {
        request_key(b) for b in (body, body | {"top_p": 1}, body | {"temperature": 1}, body | {"temperature": None})
    }
    assert len(keys) == 4


def test_build_takes_n_out_of_the_body() -> None:
    """The number of answers is kept separately; an n in the body is ignored."""
    body = {"model": "m", "n": 3}
    request = build(body, 2)
    assert (dict(request.body), request.n) == ({"model": "m"}, 2)
    assert request.key == request_key(body)
    assert body == {"model": "m", "n": 3}


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True, None])
def test_build_refuses_a_useless_n(n: Any) -> None:
    """n is a whole number from 1."""
    with pytest.raises(SuiteError, match="a whole number of answers from 1"):
        build({"model": "m"}, n)
