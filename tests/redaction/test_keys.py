"""Keys in the wrong place, in a broken list, in the locals of a traceback, in a log: nobody shows them."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune import Suite
from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.redaction.keys import shown
from pytest_llmtune.redaction.redactor import redactor_of
from pytest_llmtune.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "sk-live-SECRET-0123456789"
AZURE_KEY = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"  # what Azure gives out


def shown_by(work: Callable[[], object]) -> str:
    """What ``pytest --showlocals`` could show of the error that ``work`` raises, but for this test's own frames."""
    with pytest.raises(SuiteError) as caught:
        work()
    parts: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        parts.append("".join(traceback.format_exception_only(error)))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != __file__:
                parts += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


WRONG: dict[str, Any] = {
    "a number": [{"api_key": KEY, "max_n": 0}],
    "a field": [{"api_key": KEY, "nmae": "x"}],
    "an address": [{"api_key": KEY, "base_url": "h/v1"}],
    "a second entry": [{"api_key": KEY}, 5],
    "JSON": json.dumps([{"api_key": KEY}])[:-1],
    "JSON, a number": json.dumps([{"api_key": KEY, "max_n": 0}]),
    "a price": [{"api_key": KEY, "prices": {"m": {}}}],
    "a line break in it": [{"api_key": KEY + "\nX-Evil: yes"}],
    "no ASCII in it": [{"api_key": KEY + "\u200b"}],
    "as the list": KEY,
    "as a variable's name": [{"api_key_env": KEY}],
    "as a file's name": [{"api_key_file": KEY}],
    "as an address": [{"base_url": KEY, "api_key": "k"}],
    "as a kind": [{"kind": KEY, "api_key": "k"}],
    "as a field": [{KEY: 1}],
    "its file as the list": "key_openai.txt",
    "key files swapped": "swapped",
    "an empty variable": [{"api_key": KEY}, {"api_key_env": "NO_API_KEY"}],
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("key", [KEY, AZURE_KEY])
def test_no_mistake_shows_a_key_in_any_frame(tmp_path: Path, given: Any, key: str) -> None:
    """Neither the message nor a local of any frame of ours holds the key, nor any other of the environment's."""
    given = json.loads(json.dumps(given).replace(KEY, key))
    (tmp_path / "key_openai.txt").write_text(key)
    (tmp_path / "swapped").mkdir()
    (tmp_path / "swapped" / "key_aoai.txt").write_text("https://r.openai.azure.com")
    (tmp_path / "swapped" / "base_aoai.txt").write_text(key)
    text = shown_by(lambda: endpoints_of(given, root=tmp_path, environ={"OTHER_TOKEN": "SECRET-of-others"}))
    assert key not in text
    assert "SECRET" not in text
    assert "valid" in text or "no key" in text or "line 1" in text or "holds a" in text


def test_settings_and_suites_show_no_key(tmp_path: Path) -> None:
    """Their texts, and the frames of a suite that is declared wrongly."""
    listed = [{"base_url": "http://127.0.0.1:9/v1", "api_key": KEY}]
    assert "SECRET" not in repr(Settings(endpoints=json.dumps(listed)))
    keys = {"name": "x", "dataset": [{"q": "1", "answer": "1"}], "prompt": "{q}", "model": "m", "grader": "exact"}
    assert "SECRET" not in repr(Suite(**keys, endpoints=listed))
    assert "SECRET" not in shown_by(lambda: Suite(**keys, endpoints=listed, bogus=1))
    where = {"where": "here", "base_dir": tmp_path}
    assert "SECRET" not in shown_by(lambda: Suite.from_mapping({**keys, "endpoints": listed, "n": -1}, **where))


def test_a_pattern_that_is_none_shows_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llmtune_redact is read before the keys are."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (tmp_path / ".env").write_text(f"OTHER_API_KEY={KEY}\n")
    text = shown_by(lambda: redactor_of(Settings(root=tmp_path, redact=("[",))))
    assert "is not a valid regular expression" in text
    assert "SECRET" not in text


@pytest.mark.parametrize(
    "text", ["nowhere.yaml", "keys/list.json", "OAI_CONFIG_LIST", "AWS_SECRET_ACCESS_KEY", "../outside.txt", "kind"]
)
def test_what_is_no_key_is_shown(text: str) -> None:
    """A message that hides everything helps nobody."""
    assert shown(text) == repr(text)


def test_white_space_around_a_key_does_not_count(tmp_path: Path) -> None:
    """A key that was pasted with its line break is the key."""
    [endpoint] = endpoints_of([{"api_key": f" {KEY}\n"}], root=tmp_path, environ={})
    assert endpoint.keys[0].reveal() == KEY
