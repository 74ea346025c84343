"""OpenAI parameters: every spelling of a domain, and the numbers that each takes; parameters and models of a task; ``propose``."""

from __future__ import annotations

from typing import Any

import pytest
from support.suites import complaint

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite import (
    Choice,
    Constant,
    Domain,
    LogRandInt,
    OneOf,
    QUniform,
    RandInt,
    Uniform,
    models,
    parse_domain,
    propose,
)
from pytest_llmtune.suite.domains import PARAMETERS, Models, check_parameter, parse_param, read_params
from pytest_llmtune.suite.propose import read_prompt


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
    check_parameter("temperature")
    check_parameter("top_k", ["top_k"])
    with pytest.raises(SuiteError, match=r"unknown parameter \(did you mean 'reasoning_effort'\?\)"):
        check_parameter("reasoning_efort")
    with pytest.raises(SuiteError, match="put parameters that only your server knows into extra_body"):
        check_parameter("zzz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "models(): valid: models(['small', 'big'])"),
        (("a", ["b"], "c"), "models('a', ['b'], 'c'): valid"),
        ((7,), "models(7,): valid"),
        ((["small", ""],), "valid: models(['small', 'big'])"),
        ((["small", 3],), "valid: models(['small', 'big'])"),
        ((3, ["small"]), "models(3, ...): the name of a parameter is text"),
        ((["small", "small"],), "duplicate choice 'small'"),
        (([],), "an empty list of choices"),
    ],
)
def test_models_that_are_none_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    """Each must have a price before anything is spent, so a model has a name."""
    with pytest.raises(SuiteError) as caught:
        models(*arguments)
    assert message in str(caught.value)


def test_spellings_of_a_tasks_models() -> None:
    """A list of named ones, a mapping, one alone, and YAML's mapping are the same parameters."""
    small = Models(("small", "big"))
    for params in (
        [models("writer", ["small", "big"])],
        models("writer", ["small", "big"]),
        {"writer": models(["small", "big"])},
        {"writer": {"models": ["small", "big"]}},
    ):
        assert {name: parse_param(name, raw) for name, raw in read_params(params).items()} == {"writer": small}
    assert small.to_plain() == {"models": ["small", "big"]}
    assert models("small") == Models(("small",))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("text", "valid: a mapping of names to a constant"),
        ([], "valid: a mapping of names to a constant"),
        ({"": 1}, "valid: a mapping of names to a constant"),
        ([models(["small"])], "in a list each is models('name', ['small', 'big'])"),
        (["small"], "in a list each is models('name', ['small', 'big'])"),
    ],
)
def test_params_that_are_none_are_refused(params: Any, message: str) -> None:
    """The error says what params look like."""
    with pytest.raises(SuiteError) as caught:
        read_params(params)
    assert message in str(caught.value)


def test_models_of_another_name_are_refused() -> None:
    """The name stands twice, and one of them is wrong."""
    with pytest.raises(SuiteError, match=r"is models\('other', \.\.\.\), which has a different name"):
        parse_param("writer", models("other", ["small"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "propose: seeds is []; valid: a format string"),
        ({"seeds": ["{q}", 3]}, "propose: seeds is ['{q}', 3]"),
        ({"model": " "}, "propose: model is ' '; valid: the name of the model"),
        ({"model": None}, "propose: model is None"),
        ({"rounds": 0}, "propose: rounds is 0; valid: a whole number from 1 to 20"),
        ({"rounds": 21}, "propose: rounds is 21"),
        ({"per_round": True}, "propose: per_round is True; valid: a whole number from 1 to 50"),
        ({"per_round": 51}, "propose: per_round is 51"),
        ({"by": "gepu"}, "propose: by is 'gepu' (did you mean 'gepa'?); valid: model, gepa"),
        ({"by": object()}, "an object with prompt and read"),
    ],
)
def test_wrong_arguments_of_propose_are_refused(changes: dict[str, Any], message: str) -> None:
    """In Python and in YAML, with the valid values."""
    arguments = {"seeds": ["{q}"], "model": "writer"} | changes
    for create in (lambda: propose(**arguments), lambda: read_prompt({"propose": arguments})):
        with pytest.raises(SuiteError) as caught:
            create()
        assert message in str(caught.value)


@pytest.mark.parametrize("raw", [{"model": "m"}, {"seeds": "{q}"}, {"seeds": "{q}", "model": "m", "round": 1}, 3])
def test_propose_in_yaml_takes_these_keys(raw: Any) -> None:
    """An unknown key is no argument of ours."""
    with pytest.raises(SuiteError, match="propose takes seeds and model, and may have rounds, per_round and by"):
        read_prompt({"propose": raw})


def test_the_ends_of_proposed_prompts() -> None:
    """The largest and the smallest numbers are allowed."""
    for number, per_round in ((1, 1), (20, 50)):
        proposed = propose("{q}", model="m", rounds=number, per_round=per_round)
        assert (proposed.rounds, proposed.per_round, proposed.seeds) == (number, per_round, ("{q}",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"row": 1}}, "params.row is a reserved name; choose another"),
        ({"params": {"temperature": 1}}, "params.temperature is a reserved name"),
        ({"params": {"k": object()}}, "params.k is <object"),
        ({"shots": 2}, "shots: are added to prompts that are sent from here; a task has its own"),
        ({"system": "x"}, "system: applies only without a task"),
        ({"prompt": 3}, "prompt is 3; valid: a text, or a function"),
        ({"prompt": ["a", "a"]}, "prompt[1] is 'a', a duplicate"),
        ({"model": ..., "task": "json:nothing"}, "task: json has no function 'nothing'"),
        ({"task": 3}, "task is 3; valid: 'module:function', or a function"),
    ],
)
def test_what_a_task_cannot_have(changes: dict[str, Any], message: str) -> None:
    """A task makes its requests itself."""
    assert message in complaint(**{"prompt": ..., "task": "json:dumps"} | changes)


def test_params_need_a_task() -> None:
    """Without one, nobody would get them."""
    assert complaint(params={"k": 1}) == "params: are passed to the function that task= names; there is none"
