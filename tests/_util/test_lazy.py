"""Patterns that are compiled when they are first used."""

from __future__ import annotations

import copy
import pickle
import re

from pytest_llmtune._util.lazy import lazy_regex


def test_it_is_compiled_once_and_used_as_any_pattern() -> None:
    pattern = lazy_regex("(?P<word>a+)b", re.IGNORECASE)
    assert "match" not in vars(pattern)
    found = pattern.fullmatch("AAB")
    assert found is not None
    assert found["word"] == "AA"
    assert pattern.sub("-", "abxab") == "-x-"
    assert pattern.groupindex == {"word": 1}
    assert pattern.fullmatch is pattern.fullmatch
    assert pickle.loads(pickle.dumps(pattern)).search("xab").group() == "ab"  # noqa: S301
    assert copy.deepcopy(pattern).search("xab").group() == "ab"
