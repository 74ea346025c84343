"""OpenAI parameters: every spelling of a domain, and the numbers that each parameter takes."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite import Choice, Constant, Domain, LogRandInt, OneOf, QUniform, RandInt, Uniform, parse_domain
from pytest_llmtune.suite.domains import PARAMETERS, check_name


@pytest.mark.parametrize(
    ("name", "raw", "domain"),
    [
        ("temperature", 1, Constant(1)),
        ("temperature", None, Constant(None)),
        ("temperature", [0, 0.5], Choice((0, 0.5))),
        ("temperature", (0, 0.5), Choice((0, 0.5))),
        ("temperature", {"uniform": [0, 2]}, Uniform(0, 2)),
        ("temperature", {"quniform": [0, 2, 0.1]}, QUniform(0, 2, 0.1)),
        ("temperature", Uniform(0, 1), Uniform(0, 1)),
        ("temperature", {"choice": [0, None]}, Choice((0, None))),
        ("max_tokens", {"lograndint": [50, 1000]}, LogRandInt(50, 1000)),
        ("n", {"randint": [1, 10]}, RandInt(1, 10)),
        ("stop", "\n", Constant("\n")),
        ("stop", ["\n", "END"], Choice(("\n", "END"))),
        ("stop", [["\n", "END"]], Choice((["\n", "END"],))),
        ("stop", [["\n"], ["\n", "END"], None], Choice((["\n"], ["\n", "END"], None))),
        ("reasoning_effort", ["low", "high"], Choice(("low", "high"))),
        ("response_format", {"type": "json_object"}, Constant({"type": "json_object"})),
        (
            "response_format",
            [{"type": "text"}, {"type": "json_object"}],
            Choice(({"type": "text"}, {"type": "json_object"})),
        ),
        ("logit_bias", {"50256": -100}, Constant({"50256": -100})),
        ("tools", [{"type": "function"}], Constant([{"type": "function"}])),
        ("tools", [[{"type": "function"}], []], Choice(([{"type": "function"}], []))),
        ("top_k", [10, 40], Choice((10, 40))),
        ("parallel_tool_calls", [True, False], Choice((True, False))),
    ],
)
def test_spellings(name: str, raw: Any, domain: Domain) -> None:
    """Constants, lists, words with arguments and domains are all read; a list-valued parameter keeps its list."""
    assert parse_domain(name, raw) == domain


def test_given_choices_become_json_data() -> None:
    """What a lock file gives back as a list was not a tuple before."""
    assert parse_domain("stop", Choice((("a", "b"),))) == Choice((["a", "b"],))
    assert parse_domain("stop", Constant(("a",))) == Constant(["a"])


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [
        ("temperature", 3, "is 3; valid: a number from 0 to 2"),
        ("temperature", "hot", "is 'hot'; valid: a number from 0 to 2"),
        ("temperature", [0, 2.5], "is 2.5; valid: a number from 0 to 2"),
        ("temperature", {"uniform": [0, 3]}, "is 3; valid: a number from 0 to 2"),
        ("temperature", {"uniform": [-1, 1]}, "is -1; valid"),
        ("temperature", {"uniform": [0]}, "uniform takes [low, high], got [0]"),
        ("temperature", {"uniform": 1}, "uniform takes [low, high], got 1"),
        ("temperature", {"quniform": [0, 1]}, "quniform takes [low, high, step]"),
        ("temperature", {"uniform": ["a", 1]}, "uniform has the bound 'a'"),
        ("temperature", {"choice": 3}, "choice takes a list, got 3"),
        ("temperature", [], "an empty list of choices"),
        ("temperature", [0, 0], "duplicate choice 0"),
        ("temperature", OneOf(({"temperature": Constant(1)},)), "valid: a constant, a list of choices"),
        ("top_p", 1.5, "a number from 0 to 1"),
        ("n", 0, "is 0; valid: a whole number from 1"),
        ("n", 1.5, "is 1.5; valid: a whole number from 1"),
        ("n", True, "is True; valid: a whole number from 1"),
        ("n", {"uniform": [1, 5]}, "is uniform, which gives fractions"),
        ("max_tokens", {"loguniform": [1, 5]}, "is loguniform, which gives fractions"),
        ("top_logprobs", 21, "a whole number from 0 to 20"),
        ("presence_penalty", -3, "a number from -2 to 2"),
        ("stop", object(), "(object); valid: a constant"),
        ("stop", [object()], "(object); valid: a constant"),
        ("metadata", {1: "a"}, "(dict); valid: a constant"),
        ("stop", {"a"}, "(set); valid: a constant"),
        ("temperature", float("nan"), "(float); valid: a constant"),
    ],
)
def test_wrong_values_are_refused(name: str, raw: Any, says: str) -> None:
    """The error says what was got and what the parameter takes."""
    with pytest.raises(SuiteError) as caught:
        parse_domain(name, raw)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_may_be_left_out_of_the_request(name: str) -> None:
    """None means "not sent" for all of them."""
    assert parse_domain(name, None) == Constant(None)


@pytest.mark.parametrize(
    ("raw", "domain"),
    [
        (None, Constant(None)),
        (
            [{"temperature": {"uniform": [0, 1]}}, {"top_p": [0.5, 0.9]}],
            OneOf(({"temperature": Uniform(0, 1)}, {"top_p": Choice((0.5, 0.9))})),
        ),
        ({"temperature": 1}, OneOf(({"temperature": Constant(1)},))),
        (OneOf(({"top_p": Constant(1)},)), OneOf(({"top_p": Constant(1)},))),
    ],
)
def test_branches(raw: Any, domain: Domain) -> None:
    """A hierarchical choice is a list of mappings; one mapping is one branch."""
    assert parse_domain("temperature_or_top_p", raw) == domain


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (0.5, "is 0.5; valid: a list such as"),
        ([], "an empty list of branches"),
        ([{}], "is [{}]; valid: a list such as"),
        ([0.5], "is [0.5]; valid"),
        ([{"temp": 1}], "has 'temp'; valid: temperature, top_p"),
        ([{"temperature": 3}], "is 3; valid: a number from 0 to 2"),
    ],
)
def test_wrong_branches_are_refused(raw: Any, says: str) -> None:
    """The error says what a branch looks like."""
    with pytest.raises(SuiteError) as caught:
        parse_domain("temperature_or_top_p", raw)
    assert says in str(caught.value)


def test_the_path_of_a_wrong_branch_leads_to_the_value() -> None:
    """Nested problems know where they are, so that YAML can point at line and column."""
    with pytest.raises(SuiteError) as caught:
        parse_domain("temperature_or_top_p", [{"temperature": 1}, {"top_p": 7}])
    assert getattr(caught.value, "spot", "") == "[1].top_p"


def test_unknown_parameters_are_named_with_the_nearest() -> None:
    """A slip of the pen is told from a parameter of another server."""
    check_name("temperature")
    check_name("top_k", ["top_k"])
    with pytest.raises(SuiteError, match=r"unknown parameter \(did you mean 'reasoning_effort'\?\)"):
        check_name("reasoning_efort")
    with pytest.raises(SuiteError, match="put parameters that only your server knows into extra_body"):
        check_name("zzz")
