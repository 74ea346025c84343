"""Templates: format strings, functions and chat messages; what they need, say and are told apart by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite import Template

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROW = {"question": "1+1", "유저": "민수", "url": "http://x/y.png"}


def terse(row: Mapping[str, Any]) -> str:
    return f"{row['question']}="


def chat(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["question"]}]


def broken(row: Mapping[str, Any]) -> str:
    return str(row["nothing"])


def number(row: Mapping[str, Any]) -> int:
    return 5


class Shouting:
    def __call__(self, row: Mapping[str, Any]) -> str:
        return str(row["question"]).upper()


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_text_is_the_users_message() -> None:
    """A format string becomes one message."""
    template = Template.prompt("{question} by {유저}")
    assert template.render(ROW) == (user("1+1 by 민수"),)
    assert (template.kind, template.fields, template.is_function) == ("prompt", {"question", "유저"}, False)


def test_a_function_gives_the_users_message() -> None:
    """A function of the row gives the text; its columns are not known beforehand."""
    template = Template.prompt(terse)
    assert template.render(ROW) == (user("1+1="),)
    assert (template.fields, template.is_function) == (frozenset(), True)
    assert Template.prompt(Shouting()).render({"question": "a"}) == (user("A"),)


def test_a_function_may_give_all_messages() -> None:
    """A function as whole prompt may return the chat."""
    assert Template.prompt(chat).render(ROW) == ({"role": "system", "content": "Be brief."}, user("1+1"))
    assert Template.messages(chat).render(ROW) == Template.prompt(chat).render(ROW)


def test_a_system_message_stands_before_the_prompt_as_it_is() -> None:
    """It is fixed: braces in it are braces."""
    template = Template.prompt("{question}", system='Answer as {"a": 1}')
    assert template.render(ROW) == ({"role": "system", "content": 'Answer as {"a": 1}'}, user("1+1"))
    assert template.kind == "messages"
    assert Template.prompt(terse, system="S").render(ROW)[1] == user("1+1=")


def test_messages_are_filled_one_by_one() -> None:
    """Contents are texts, functions or parts; other keys of a message stay."""
    template = Template.messages(
        [
            {"role": "system", "content": "For {유저}."},
            {"role": "user", "content": terse, "name": "ann"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is on {url}?"},
                    {"type": "image_url", "image_url": {"url": "{url}"}},
                ],
            },
        ]
    )
    assert template.render(ROW) == (
        {"role": "system", "content": "For 민수."},
        {"role": "user", "content": "1+1=", "name": "ann"},
        user(
            [
                {"type": "text", "text": "What is on http://x/y.png?"},
                {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
            ]
        ),
    )
    assert template.fields == {"유저", "url"}
    assert template.is_function


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        (5, "is 5; valid: a format string such as '{question}', or a function of the row"),
        (None, "is None; valid: a format string"),
        (["{a}"], "valid: a format string"),
        ("{a.b}", "reaches into a value"),
        ({"callable": 5}, "valid: a format string"),
        ({"callable": "nowhere_at_all:f"}, "no module 'nowhere_at_all'"),
        ({"callable": "json:nothing"}, "json has no function 'nothing'"),
        ({"text": "x"}, "valid: a format string"),
    ],
)
def test_wrong_prompts_are_refused(raw: Any, says: str) -> None:
    """Each with what it is and what is valid."""
    with pytest.raises(SuiteError) as caught:
        Template.prompt(raw)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "spot", "says"),
    [
        ("text", "", "is 'text'; valid: a list of {'role': ..., 'content': ...}"),
        ([], "", "is []; valid"),
        (["text"], "[0]", "is 'text'; valid: {'role': ..., 'content': ...}"),
        ([{"role": "user"}], "[0]", "valid: {'role'"),
        ([user("a"), {"role": "usr", "content": "a"}], "[1].role", "is 'usr' (did you mean 'user'?); valid: system"),
        ([user(5)], "[0].content", "is 5; valid: a format string"),
        ([user("{a[0]}")], "[0].content", "reaches into a value"),
        ([user([{"type": "text", "text": 5}])], "[0].content", "is 5; valid"),
    ],
)
def test_wrong_messages_are_refused(raw: Any, spot: str, says: str) -> None:
    """The problem knows which message it is in."""
    with pytest.raises(SuiteError) as caught:
        Template.messages(raw)
    assert says in str(caught.value)
    assert getattr(caught.value, "spot", None) == spot


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (Template.prompt(broken), "test_prompt:broken raised KeyError: 'nothing'; on the row {'question': '1+1'"),
        (Template.prompt(number), "returned 5; valid: the prompt's text, or a list of"),
        (Template.messages([user(number)]), "returned 5; within messages it must return a string"),
        (Template.prompt(lambda _: []), "returned []; valid: the prompt's text"),
        (Template.prompt(lambda _: [{"role": "boss"}]), "valid: the prompt's text"),
        (Template.prompt("{nothing}"), "names {nothing}, but the row has"),
    ],
)
def test_what_fails_on_a_row_says_so(template: Template, says: str) -> None:
    """A user's function never breaks through with its own error."""
    with pytest.raises(SuiteError) as caught:
        template.render(ROW)
    assert says in str(caught.value)


def test_our_own_errors_pass_through() -> None:
    """A prompt function that uses this package says what it says."""

    def refusing(row: Mapping[str, Any]) -> str:
        raise SuiteError(f"no prompt for {row['question']}")

    with pytest.raises(SuiteError, match=r"^no prompt for 1\+1$"):
        Template.prompt(refusing).render(ROW)


def test_check_names_the_columns_that_are_not_there() -> None:
    """One error for all fields of a template, with the nearest column."""
    Template.prompt("{question}").check(["question"])
    with pytest.raises(SuiteError) as caught:
        Template.prompt("{qestion} {zzz}").check(["question", "answer"], "here")
    assert str(caught.value) == (
        "here: the prompt '{qestion} {zzz}' names {qestion} (did you mean 'question'?), {zzz}, "
        "but the columns are 'question', 'answer'; literal braces are written {{ }}"
    )


def test_json_in_a_prompt_is_answered_with_how_to_write_braces() -> None:
    """The commonest slip: an example of JSON in the prompt."""
    with pytest.raises(SuiteError, match=r"did you mean 'answer'.*literal braces are written \{\{ \}\}"):
        Template.prompt('Answer as {"answer": 1}').check(["answer"])


@pytest.mark.parametrize(
    ("template", "locked"),
    [
        (Template.prompt("{question}"), "{question}"),
        (Template.prompt(terse), {"callable": f"{__name__}:terse"}),
        (Template.prompt(Shouting()), {"callable": f"{__name__}:Shouting"}),
        (
            Template.prompt("{question}", system="S {x}"),
            [{"role": "system", "content": "S {{x}}"}, user("{question}")],
        ),
        (Template.messages([user(terse)]), [user({"callable": f"{__name__}:terse"})]),
        (Template.messages([user([{"type": "text", "text": "{a}"}])]), [user([{"type": "text", "text": "{a}"}])]),
        (Template.messages(chat), {"callable": f"{__name__}:chat"}),
    ],
)
def test_lock_form(template: Template, locked: Any) -> None:
    """The lock file holds the template itself, in plain data; a function by its name."""
    assert template.to_lock() == locked


def test_the_lock_form_of_texts_reads_back() -> None:
    """What the lock file holds is a valid declaration."""
    template = Template.messages([{"role": "system", "content": "S {{}}"}, user("{question}")])
    assert Template.messages(template.to_lock()) == template


def test_fingerprints_tell_templates_apart() -> None:
    """By text, kind and a function's source; equal templates have equal ones."""
    templates = [
        Template.prompt("{question}"),
        Template.prompt("{question} "),
        Template.messages([user("{question}")]),
        Template.prompt(terse),
        Template.prompt(broken),
    ]
    assert len({template.fingerprint for template in templates}) == len(templates)
    assert Template.prompt("{question}").fingerprint == templates[0].fingerprint
    assert all(len(template.fingerprint) == 64 for template in templates)


def test_a_changed_function_changes_the_fingerprint(tmp_path: Path) -> None:
    """The source counts, not only the name."""
    prints = set()
    for number_, body in enumerate(["return 'a'", "return 'b'"]):
        directory = tmp_path / str(number_)
        directory.mkdir()
        (directory / "prompts_under_test.py").write_text(f"def ask(row):\n    {body}\n")
        template = Template.prompt({"callable": "prompts_under_test:ask"}, base_dir=directory)
        assert template.to_lock() == {"callable": "prompts_under_test:ask"}
        prints.add(template.fingerprint)
    assert len(prints) == 2


def test_labels_are_one_line() -> None:
    """For tables: the text without its line breaks, or the function's name."""
    assert Template.prompt("{question}\n\n=  ?").label == "{question} = ?"
    assert Template.prompt(terse).label == f"{__name__}:terse"
    assert Template.messages([{"role": "system", "content": "S"}, user("{a}")]).label == "S"
