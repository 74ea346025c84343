"""YAML from strangers."""

from __future__ import annotations

import sys
import unittest.mock
from subprocess import run
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune._util import yaml as ours
from pytest_llmtune._util.yaml import load

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
plain = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(plain)
def test_plain_data_are_read_as_yaml_wrote_them(data: Any) -> None:
    """What a safe dumper writes without aliases comes back equal."""

    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    assert load(yaml.dump(data, Dumper=NoAliases)) == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "line 2: duplicate key 'a'"),
        ("a: &x 1\nb: *x\n", "line 1: anchors and aliases are not allowed here"),
        ("a: 1\nb: *x\n", "line 2: anchors and aliases are not allowed here"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1: tags are not allowed here"),
        ("a: !!binary zz\n", "line 1: tags are not allowed here"),
        ("? [1]\n: 2\n", "line 1: a key is not a string"),
        ("? {a: b}\n: 2\n", "line 1: a key is not a string"),
        ("a: [1, 2\nb: 3\n", "line 2: "),
        ("a: 1\n---\nb: 2\n", "line 2: expected a single document in the stream but found another document"),
        ("a: \x00\n", "line 1: "),
        ("a: 2026-99-99\n", "a value cannot be read: month must be in 1..12"),
        (f"a: {'9' * 5000}\n", "a value cannot be read: Exceeds the limit"),
        ("[" * 1000, "line 1: nested too deeply"),
        ("- " * 100_000, "line 1: nested too deeply"),
        ("x" * 5_000_000, "5,000,000 characters are more than the limit of 4,000,000"),
        ("a: '", "line 1: "),
        ("\ta: 1", "line 1: "),
        ("%YAML 3.0\n---\na: 1\n", "line 1: "),
    ],
)
def test_anything_but_plain_data_is_refused_with_its_line(text: str, message: str) -> None:
    """Tags, aliases, duplicate keys, deep nesting and broken text are refused, with the line where there is one."""
    with pytest.raises(ValueError, match=r".") as caught:
        load(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet=st.sampled_from("ab:-[]{}!&*?|>'\"%@`#,\n \t0123456789.\\~<=\x00\x85\ufeff")))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever the text, it is read or refused with a ValueError."""
    try:
        message = repr(load(text))
    except ValueError as error:
        message = str(error)
    assert message


def test_yaml_is_imported_only_when_it_is_read() -> None:
    """Importing the module costs no yaml."""
    code = "import sys, pytest_llmtune._util.yaml, pytest_llmtune.guard.lockfile; sys.exit('yaml' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


@given(plain, st.sampled_from([None, True, False]))
def test_libyaml_reads_what_the_other_parser_reads(data: Any, flow: bool | None) -> None:
    """Lock files are read by the fast parser, where PyYAML has it."""

    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    text = yaml.dump(data, Dumper=NoAliases, allow_unicode=True, default_flow_style=flow)
    with unittest.mock.patch.object(ours, "_fast_loader_class", return_value=None):
        slow = load(text)
    assert load(text) == slow
    if not any(mark in text for mark in "\x85\u2028\u2029\ufeff"):  # which this dumper, unlike ours, loses
        assert slow == data


def test_the_error_of_what_libyaml_refuses_is_the_other_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        "a: 1\na: 2",
        "a: &x 1\nb: *x",
        "a: !!int 1",
        "- [",
        "a: \x07",
        "[" * 60 + "]" * 60,
        "a: b: c",
        "? [1]\n: 2",
    ]

    def said() -> list[str]:
        found = []
        for text in texts:
            with pytest.raises(ValueError, match=r".") as error:
                load(text)
            found.append(str(error.value))
        return found

    fast = said()
    monkeypatch.setattr(ours, "_fast_loader_class", lambda: None)
    assert said() == fast
