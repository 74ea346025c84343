"""The language of where=: comparisons of columns and constants, and no way to anything else."""

from __future__ import annotations

import ast
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.data.where import compile_condition
from pytest_llmtune.errors import LLMTuneError, SuiteError

ROW = {
    "level": 3,
    "score": 0.5,
    "topic": "algebra",
    "csv": "7",
    "money": "0.1",
    "none": None,
    "flag": True,
    "off": False,
    "tags": ["a", "b"],
    "two words": "x",
    "구분": "감정/우울",
    "row": "a column called row",
    "empty": "",
    "neg": -2,
}


def holds(text: str, row: dict[str, Any] | None = None) -> bool:
    return compile_condition(text)[0](ROW if row is None else row)


@pytest.mark.parametrize(
    "text",
    [
        "level == 3",
        "level != 4",
        "level >= 3 and level <= 3",
        "2 < level < 4",
        "3 > 2",
        "level in [1, 2, 3]",
        "level in (3,)",
        "level in {3, 4}",
        "topic in ['algebra', 'geometry']",
        "topic not in ['geometry']",
        "'alg' in topic",
        "'x' not in topic",
        "'a' in tags",
        "topic == 'algebra' or level == 99",
        "not level == 4",
        "not (level == 3 and topic == 'geometry')",
        "none is None",
        "none == null",
        "topic is not None",
        "level is not None and level > 2",
        "flag",
        "flag == True",
        "flag == true",
        "not off",
        "off == false",
        "True",
        "neg == -2",
        "neg < -1.5",
        "score >= 0.5",
        "row['two words'] == 'x'",
        'row["level"] == 3',
        "row == 'a column called row'",
        "구분 == '감정/우울'",
        "'감정' in 구분",
        "empty == ''",
        "not empty",
        "topic",
        "level == 3.0",
        "topic == topic",
        "topic > 'aaa'",
    ],
)
def test_true(text: str) -> None:
    """Columns in any script, constants, comparisons, and, or, not, in."""
    assert holds(text) is True
    assert holds(f"not ({text})") is False


@pytest.mark.parametrize(
    "text",
    [
        "level == 4",
        "level > 3",
        "1 < level < 3",
        "topic == 'Algebra'",
        "level in []",
        "none > 1",
        "none < 1",
        "none <= none",
        "none in ['a']",
        "'a' in none",
        "3 in topic",
        "flag == 1",
        "level == '3x'",
        "False",
        "none",
        "empty",
    ],
)
def test_false(text: str) -> None:
    """A comparison with what is missing is false; a flag is no number."""
    assert holds(text) is False


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("csv > 5", True),
        ("csv == 7", True),
        ("csv == 7.0", True),
        ("7 == csv", True),
        ("csv in [6, 7]", True),
        ("5 < csv < 10", True),
        ("csv >= 10", False),
        ("money == 0.1", True),
        ("money < 0.2", True),
        ("csv == '7'", True),
        ("csv == '7.0'", False),
    ],
)
def test_cells_of_tables_compare_as_numbers_with_numbers(text: str, result: bool) -> None:
    """The cells of a CSV are text; beside a number they are read as one."""
    assert holds(text) is result


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("level > 1 and topic in ['a']", {"level", "topic"}),
        ("row['two words'] == row['x']", {"two words", "x"}),
        ("a or not b or c is None", {"a", "b", "c"}),
        ("True", set()),
        ("none_such == None", {"none_such"}),
    ],
)
def test_columns_asked_for(text: str, columns: set[str]) -> None:
    """Known beforehand, so that a slip of the pen is no empty data set."""
    assert compile_condition(text)[1] == columns


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("__import__('os').system('x')", "__import__('os').system('x')"),
        ("open('/etc/passwd')", "open('/etc/passwd')"),
        ("topic.upper() == 'X'", "topic.upper()"),
        ("topic.__class__ == 1", "topic.__class__"),
        ("level + 1 == 4", "level + 1"),
        ("level ** 99999999 > 1", "level ** 99999999"),
        ("'a' * 999999999 == topic", "'a' * 999999999"),
        ("tags[0] == 'a'", "tags[0]"),
        ("row[0] == 'a'", "row[0]"),
        ("row[level] == 'a'", "row[level]"),
        ("row['a']['b'] == 1", "row['a']['b']"),
        ("[x for x in tags]", "[x for x in tags]"),
        ("lambda: 1", "lambda: 1"),
        ("(x := 1)", "x := 1"),
        ("level if topic else 1", "level if topic else 1"),
        ("f'{topic}' == 'a'", "f'{topic}'"),
        ("level == 1j", "1j"),
        ("topic == b'a'", "b'a'"),
        ("level in [topic.x]", "topic.x"),
        ("level in [[topic]]", "topic"),
        ("{'a': 1} == 1", "{'a': 1}"),
        ("-level == 1", "-level"),
        ("~level == 1", "~level"),
        ("level == ...", "..."),
        ("await topic", "await topic"),
        ("'text'", "'text'"),
        ("5", "5"),
        ("-True == 1", "-True"),
    ],
)
def test_everything_else_is_refused(text: str, part: str) -> None:
    """Calls, attributes, arithmetic, indexes: the part is named, and what is valid."""
    with pytest.raises(SuiteError) as caught:
        compile_condition(text)
    assert str(caught.value).startswith(f"{part!r} is not allowed in") or "is not an expression" in str(caught.value)
    assert "valid: " in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "   ", "level =", "level = 3", "(level == 3", "a; b", "import os", "level == 'x", "\0"]
)
def test_no_expression(text: str) -> None:
    """Syntax errors carry Python's reason."""
    with pytest.raises(SuiteError, match="is not an expression: "):
        compile_condition(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a == 1" + " or a == 1" * 2000, "more than the limit of 10,000"),
        ("a in [" + ",".join(["1"] * 3000) + "]", "exceeds the limit of 2,000 parts"),
        ("not " * 2400 + "a", "exceeds the limit"),
        ("(" * 4000 + "a" + ")" * 4000, "is not an expression"),
    ],
)
def test_limits(text: str, says: str) -> None:
    """Neither length nor depth exhausts anything."""
    with pytest.raises(SuiteError) as caught:
        compile_condition(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("topic > 5", "'algebra' > 5 cannot be compared"),
        ("tags < 1", "['a', 'b'] < 1 cannot be compared"),
        ("level >= 'x'", "3 >= 'x' cannot be compared"),
        ("1 in level", "3 is not a list or string, as `in` requires"),
    ],
)
def test_what_cannot_be_compared_says_so(text: str, says: str) -> None:
    """An error with both values, rather than a silent False."""
    with pytest.raises(SuiteError) as caught:
        holds(text)
    assert says in str(caught.value)


def test_no_value_is_ever_called() -> None:
    """Objects in a row are compared, never run."""

    class Trap:
        def __call__(self) -> None:
            raise AssertionError

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    assert holds("trap is not None", {"trap": Trap()}) is True


NUMBERS = st.integers(-5, 5)


@given(left=NUMBERS, right=NUMBERS, op=st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
def test_comparisons_of_numbers_are_pythons(left: int, right: int, op: str) -> None:
    """Against Python itself, with the column as number and as text."""
    expected = {
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[op]
    assert holds(f"x {op} {right}", {"x": left}) is expected
    assert holds(f"x {op} {right}", {"x": str(left)}) is expected


@given(a=st.booleans(), b=st.booleans(), c=st.booleans())
def test_logic_is_pythons(a: bool, b: bool, c: bool) -> None:
    """And binds stronger than or, not strongest."""
    assert holds("a or not b and c", {"a": a, "b": b, "c": c}) is (a or (not b and c))


@given(st.text(alphabet=string.ascii_lowercase + " ()[]'\"=<>!.,_0123456789+-*{}:", max_size=30))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    """Whatever is written ends in true, false, or our own error."""
    try:
        result = holds(text)
    except LLMTuneError:
        result = False
    assert result in (True, False)


@given(st.sampled_from([node for node in vars(ast).values() if isinstance(node, type) and issubclass(node, ast.expr)]))
def test_only_the_named_nodes_are_let_through(node: type[ast.expr]) -> None:
    """Every kind of expression that Python knows, put in the place of a condition."""
    samples = {
        "BoolOp": "a and b",
        "NamedExpr": "(a := 1)",
        "BinOp": "a + b",
        "UnaryOp": "not a",
        "Lambda": "lambda: a",
        "IfExp": "a if b else c",
        "Dict": "{}",
        "Set": "{1}",
        "ListComp": "[a for a in b]",
        "SetComp": "{a for a in b}",
        "DictComp": "{a: a for a in b}",
        "GeneratorExp": "(a for a in b)",
        "Await": "await a",
        "Yield": "(yield)",
        "YieldFrom": "(yield from a)",
        "Compare": "a == 1",
        "Call": "a()",
        "JoinedStr": "f'{a}'",
        "Constant": "1",
        "Attribute": "a.b",
        "Subscript": "a[0]",
        "Starred": "[*a]",
        "Name": "a",
        "List": "[1]",
        "Tuple": "(1, 2)",
    }
    if node.__name__ not in samples:
        return
    try:
        compile_condition(samples[node.__name__])
        allowed = True
    except SuiteError:
        allowed = False
    assert allowed is (node.__name__ in {"BoolOp", "UnaryOp", "Compare", "Name"})
