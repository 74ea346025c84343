"""What is read without PyYAML has the value that PyYAML reads."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_llmtune._util.plain_yaml import UnknownSyntaxError, read

EXAMPLES = Path(__file__).parents[2] / "example_project" / "tests" / "llmtune"
TEXTS = (
    """a: 1
b:
  c: text and more
  d: 'quoted: it''s'
  e: "esc \\n \\" x"
list:
- role: user
  content: |
    one

      two
    three
- x
- {a: 1, b: [x, 2.5, null], c: 'q', d: {}}
- []
f: -0.5
g: 6.4e-05
h: 861b1e4de654
i: true
""",
    """t:
- {number: 5, config: {stop: '

        ', n: 9}, s: <|im_end|>}
- |-
  x
  y
k/a.b-c:d: 2 + 3 = 5. The \\boxed{{5}}
z: $5 (a)
""",
    "a:\n- b\n-c: d\n",
    "a: 한국어 글\nb: '한 국'\n",
)
CHARACTERS = "ab01 \n:-'\"{}[],#|&*!>%@`?=<~.+_eEx\\nyoN/\t\xa0\x85가"
PIECES = [
    "- ",
    "\n  ",
    "\n- ",
    ": ",
    "''",
    ", ",
    "|",
    "|-",
    "|\n",
    " #",
    "0x1",
    "0b1",
    "1:2",
    "1e5",
    "1.5e+3",
    "2001-01-01",
]
PIECES += ["no", "null", "~", "<<", "---", "\n---\n", "...", "a: b", "- a: b", "\\u00e9", "? ", "&a ", "*a", "!!int "]


def ours(text: str) -> Any:
    return read(text, max_depth=50, max_nodes=200_000)


def exact(value: Any) -> Any:
    """With the types, and the order of keys."""
    if isinstance(value, dict):
        return [(key, exact(item)) for key, item in value.items()]
    return [exact(item) for item in value] if isinstance(value, list) else (type(value), value)


@pytest.mark.parametrize("name", ["korean", "mood", "orders", "till"])
def test_the_lock_files_of_the_example_are_read(name: str) -> None:
    head, mark, _ = (EXAMPLES / f"{name}.lock.yaml").read_text(encoding="utf-8").partition("\nexamples:\n")
    assert mark
    assert exact(ours(head)) == exact(yaml.safe_load(head))


@pytest.mark.parametrize("text", TEXTS)
def test_changed_texts_are_read_as_by_pyyaml_or_left_to_it(text: str) -> None:
    """Two of three mistakes make other YAML, or none."""
    draw, understood = random.Random(text), 0
    for _ in range(1_000):
        changed = text
        for _ in range(draw.randint(0, 2)):
            start = draw.randrange(len(changed) + 1)
            new = draw.choice(CHARACTERS) if draw.random() < 0.6 else draw.choice([*PIECES, text[start : start + 9]])
            changed = f"{changed[:start]}{new}{changed[start + draw.choice([0, 0, 1, 2, 5]) :]}"
        try:
            found = ours(changed)
        except UnknownSyntaxError:
            continue
        understood += 1
        assert exact(found) == exact(yaml.load(changed, yaml.CSafeLoader)), changed  # a safe one
    assert understood > 10


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2",
        "a: {b: 1, b: 2}",
        "a: no",
        "a: 0o7",
        "a: 010",
        "a: 1_000",
        "a: 12:30",
        "a: 2001-01-01",
        "a: .5",
        "no: 1",
        "1: a",
        "a: {b: c?}",
        "a: b: c",
        "a: b # c",
        "a: &b c",
        "a: !!str b",
        "a: <<",
        "a: =",
        "a: |\n  b",
        "a: |2\n  b\nc: d",
        "a: >\n  b\nc: d",
        "a: b\n  c",
        'a: "\\ud83d\\ude00"',
        "a:\n",
        "",
        "[a]",
        "a: [" + "[" * 60 + "]" * 60 + "]",
        "a: [" + "b, " * 200_000 + "b]",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_what_may_mean_something_else_is_left_to_pyyaml(text: str) -> None:
    with pytest.raises(UnknownSyntaxError):
        ours(text)
