"""Where JSON and code stand in a response."""

from __future__ import annotations

from typing import Any

import pytest
from support.graders import shared

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve
from pytest_llmtune.grading.code.extract import code_in
from pytest_llmtune.grading.workers import jobs

FITS: Any = {"json": {"schema": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}}}


@pytest.mark.parametrize(
    ("grader", "reference", "response", "expected"),
    [
        ("json", '{"a": 1}', '{"a": 1}\n\nReferences: [1]', True),
        ("json", '{"a": 1}', 'As [2] says: {"a": 1}. No lists ([]) were used.', True),
        ("json", '{"a": 1}', '```json\n{"a": 1}\n```\nSee [docs].', True),
        ("json", '{"a": 1}', '- here:\n  ```json\n  {"a": 1}\n  ```', True),
        ("json", '{"a": 1}', 'Fill in {name}: {"a": 1} for $x \\in [0]$', True),
        ("json", "[1, 2]", "The answer: [1, 2]. See [3].", True),
        ("json", "[]", "The answer: []", True),
        ("json", '{"a": {"b": 1}}', '{"a": {"b": 1}', False),
        ("json", '{"b": 1}', '{"a": {"b": 1}', False),
        ("json", '{"b": 1}', '{"a": 2, c: {"b": 1}}', False),
        ("json", '{"b": 1}', '{"b": 1}\n\nor rather {"b": 2, "c": "no en', False),
        (FITS, "", '{"items": [{"id": 1}, {"id": 2}, {"id"', False),
        (FITS, "", '```json\n{"items": [{"id": 1}, {"id": 2}', False),
        (FITS, "", '```json\n{"id": 1}\n```', True),
        ("json", '{"a": 1}', '{"a": 2, "a": 1}', False),
        ("json", '{"a": [1, 2]}', '> ```json\n> {"a": [1,\n> 2]}\n> ```', True),
        ("json", '{"a": 1e300}', '{"a": 1e400}', False),
    ],
)
def test_the_document_that_is_the_answer(grader: Any, reference: str, response: str, expected: bool) -> None:
    """Not a footnote; whole, without a doubled key or a number past all bounds."""
    assert (shared(grader).grade([response], {"answer": reference}).metrics["success_vote"] == 1) is expected


@pytest.mark.parametrize("reference", ['{"a": 1e400}', '{"a": 1, "a": 2}', '{"a": 1'])
def test_references_are_read_as_strictly(reference: str) -> None:
    """They are told before anything is paid for."""
    with pytest.raises(SuiteError, match="not JSON"):
        resolve("json").reference({"answer": reference})


FUNCTION = "def one():\n    return 1\n"
DOCUMENTED = (
    'def one():\n    """One.\n\n    ```python\n    one()\n    ```\n\n    or\n```\none()\n```\n    """\n    return 1\n'
)


@pytest.mark.parametrize(
    "response",
    [
        f"```python\n{FUNCTION}```",
        f"```py title=one.py\n{FUNCTION}```\nOutput:\n```\n1\n```",
        f"```\n{FUNCTION}```\nIt prints\n```\nHello, World!\n```",
        f"```python\n{FUNCTION}```\n```python\n>>> one()\n1\n```",
        f"```pycon\n>>> one()\n1\n```\n```python\n{FUNCTION}```",
        "1. First:\n   ```python\n   def one():\n       return 1\n   ```\n2. Done",
        "- ```python\n  def one():\n      return 1\n  ```",
        "> ```python\n> def one():\n>     return 1\n> ```",
        f"~~~python\n{FUNCTION}~~~",
        f"````python\n{FUNCTION}````",
        f"```python\ndef one(:\n```\nThat has a slip:\n```python\n{FUNCTION}```",
        f"```bash\npip install x\n```\n```python\n{FUNCTION}```",
        f"<answer>\n```python\n{FUNCTION}```\n</answer>",
        FUNCTION,
        f"```\n{FUNCTION}```\nTests:\n```python\nassert one() == 1\n```",
        f"```python\n{DOCUMENTED}```",
        f"```python\n{DOCUMENTED}```\nOutput:\n```\n1\n```",
        f"```\n{DOCUMENTED}```\n```python\nassert one() == 1\n```",
        DOCUMENTED,
        "> ```python\n" + "".join(f"> {line}\n" for line in DOCUMENTED.splitlines()) + "> ```",
    ],
)
def test_the_code_of_a_response(response: str) -> None:
    """Sessions, outputs and shells left out, lists and quotations brought back to the margin."""
    names: dict[str, Any] = {}
    exec(code_in(response) or "", names)  # noqa: S102 - our own texts
    assert names["one"]() == 1


def test_imports_from_the_future_stand_first() -> None:
    """Of several blocks that are one program."""
    code = code_in(f"```python\n{FUNCTION}```\n```python\nfrom __future__ import annotations\nx: nowhere = one()\n```")
    names: dict[str, Any] = {}
    exec(code or "", names)  # noqa: S102 - our own texts
    assert names["x"] == 1


@pytest.mark.parametrize("response", ["I cannot.", ">>> one()\n1", "```text\nno code\n```", "```pycon\n>>> 1\n1\n```"])
def test_what_is_no_code(response: str) -> None:
    """Prose, and sessions."""
    assert code_in(response) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "#/$defs/nowhere"},
        {"properties": {"a": {"items": {"$ref": "other.json"}}}},
    ],
)
def test_a_schema_refers_only_to_what_is_in_it(schema: dict[str, Any]) -> None:
    """A worker is no way past the closed network, and a wrong reference is no wrong answer."""
    with pytest.raises(SuiteError, match=r"refers to '.*', which is not in it"):
        resolve({"json": {"schema": schema}})
    with pytest.raises(Exception, match=r"Unresolvable|PointerToNowhere"):
        jobs.validate({"schema": schema, "value": {"a": [1]}})


NAME = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"name": NAME}, "properties": {"a": {"$ref": "#/$defs/name"}}},
        {
            "$id": "http://h/a.json",
            "$defs": {"n": {"$id": "n.json", **NAME}},
            "properties": {"a": {"$ref": "n.json"}},
        },
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": {"n": NAME},
            "properties": {"a": {"$ref": "#/definitions/n"}},
        },
    ],
)
def test_references_within_a_schema(schema: dict[str, Any]) -> None:
    """By pointer, by identifier, of an older draft."""
    answers = resolve({"json": {"schema": schema}}).answers(['{"a": "x"}', '{"a": 1}'], {})
    assert [answer.correct for answer in answers] == [True, False]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('Not {"a": 1}', None),
        ('It is not `{"a": 1}`', None),
        ('{"a": 1} is wrong', None),
        ('{"a": 1}. That is wrong.', None),
        ('{"a": 1}, but that is incorrect', None),
        ('```json\n{"a": 1}\n```\nThat is wrong.', None),
        ('{"a": 2} is wrong. It is {"a": 1}', "1"),
        ('{"a": 1}, not {"a": 2}', "1"),
        ('{"a": 1} is right', "1"),
        ('{"a": 1}\nIf this is wrong, tell me.', "1"),
        ('{"a": 1}. It is not wrong.', "1"),
        ('```json\n{"a": 2}\n```\nCorrection: {"a": 1}', "1"),
        ('```json\n{"a": 2}\n```\nSorry, I meant\n{"a": 1}', "1"),
        ('```json\n{"a": 2}\n```\nActually, it should be `{"a": 1}`.', "1"),
        ('```json\n{"a": 2}\n```\nCorrection: {"a": 1', None),
        ('```json\n{"a": 1}\n```\nAn empty list would be {"a": 2}.', "1"),
        ('```json\n{"a": 1}\n```\nActually, see [1].', "1"),
    ],
)
def test_a_document_that_is_denied_is_no_answer(response: str, expected: str | None) -> None:
    """And a correction after a fenced one is the answer."""
    [one] = resolve("json").answers([response], {"answer": '{"a": 1}'})
    assert (one.correct, one.key) == (expected is not None, expected and '{"a": 1}')


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("date", "2024-02-29", "2023-02-29"),
        ("email", "a@b.org", "nobody"),
        ("ipv4", "127.0.0.1", "127.0.0.256"),
        ("ipv6", "::1", ":::1"),
        ("uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08"),
        ("regex", "a*", "*a"),
    ],
)
def test_formats_are_checked(name: str, right: str, wrong: str) -> None:
    """Those that need no further package."""
    schema = {"type": "string", "format": name}
    answers = resolve({"json": {"schema": schema}}).answers([f'"{right}"', f'"{wrong}"'], {})
    assert [answer.correct for answer in answers] == [True, False]


DRAFT_2019 = "https://json-schema.org/draft/2019-09/schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$recursiveRef": "#"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"$recursiveRef": "#"}}},
        {"$schema": DRAFT_2019, "properties": {"a": {"$dynamicRef": "#"}}},
        {"$schema": DRAFT_2019, "$recursiveRef": "#/$defs/n", "$defs": {"n": NAME}},
        {"$dynamicRef": "#nowhere"},
    ],
)
def test_references_that_the_draft_would_ignore(schema: dict[str, Any]) -> None:
    """They would let anything pass."""
    with pytest.raises(SuiteError, match="the schema"):
        resolve({"json": {"schema": schema}})


def test_a_recursive_reference_is_followed() -> None:
    """In the draft that has it."""
    schema = {"$schema": DRAFT_2019, "required": ["x"], "properties": {"a": {"$recursiveRef": "#"}}}
    answers = resolve({"json": {"schema": schema}}).answers(['{"x": 1, "a": {"x": 1}}', '{"x": 1, "a": {}}'], {})
    assert [answer.correct for answer in answers] == [True, False]
