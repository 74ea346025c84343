"""The search space: its default, what a suite's keys make of it, conditions for single models, membership."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.suites import complaint, suite

from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.suite import (
    Choice,
    Config,
    Constant,
    LogRandInt,
    OneOf,
    RandInt,
    Space,
    SuiteWarning,
    Template,
    Uniform,
    choice,
    uniform,
)

TEMPERATURE_OR_TOP_P = OneOf(({"temperature": Uniform(0, 2)}, {"top_p": Uniform(0, 1)}))


def space(**changes: Any) -> Space:
    return suite(**changes).space


def test_default_space() -> None:
    """AutoGen's: temperature or top_p, max_tokens, n; one model and one prompt as given."""
    assert dict(space().parameters) == {
        "temperature_or_top_p": TEMPERATURE_OR_TOP_P,
        "max_tokens": LogRandInt(50, 1000),
        "n": RandInt(1, 100),
    }
    assert space().models == ("m",)
    assert space().templates == (Template.prompt("{question} = ?"),)


def test_temperature_alone_replaces_the_hierarchy() -> None:
    """Giving one of the two says which is meant; None says neither is sent."""
    assert space(temperature=uniform(0, 1)).for_model("m").keys() == {"max_tokens", "n", "temperature"}
    assert space(top_p=0.9).for_model("m").keys() == {"max_tokens", "n", "top_p"}
    assert space(temperature=None).for_model("m").keys() == {"max_tokens", "n"}
    assert space(temperature_or_top_p=None).for_model("m").keys() == {"max_tokens", "n"}


def test_both_temperature_and_top_p_are_kept_with_a_warning() -> None:
    """It is allowed, as in AutoGen, but rarely meant."""
    with pytest.warns(SuiteWarning, match="both temperature and top_p are given"):
        both = space(temperature=[0, 1], top_p=0.9)
    assert {"temperature", "top_p"} <= both.parameters.keys()
    assert "temperature_or_top_p" not in both.parameters


def test_the_warning_as_error_is_one_of_ours() -> None:
    """Under -W error the user sees a clean failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LLMTuneError, match="both temperature and top_p"):
            suite(temperature=1, top_p=1)


def test_the_hierarchy_may_be_given() -> None:
    """With branches of one's own."""
    given_space = space(temperature_or_top_p=[{"temperature": [0, 1]}, {"top_p": {"uniform": [0.5, 1]}}])
    assert given_space.parameters["temperature_or_top_p"] == OneOf(
        ({"temperature": Choice((0, 1))}, {"top_p": Uniform(0.5, 1)})
    )


def test_max_completion_tokens_takes_the_place_of_max_tokens() -> None:
    """Servers refuse both; None leaves the other alone."""
    assert space(max_completion_tokens=[100, 200]).for_model("m").keys() == {
        "temperature_or_top_p",
        "max_completion_tokens",
        "n",
    }
    assert "max_tokens" in space(max_completion_tokens=None).for_model("m")
    assert "max_tokens" not in space(max_tokens=None).for_model("m")


def test_any_openai_parameter_and_those_of_other_servers() -> None:
    """Known ones by their own key, others through extra_body; the latter stand beside the former in a request."""
    made = space(
        stop=[["\n"], ["END"]],
        reasoning_effort=["low", "high"],
        response_format={"type": "json_object"},
        extra_body={"top_k": [10, 40], "min_p": {"uniform": [0, 0.2]}, "chat_template_kwargs": {"thinking": False}},
    )
    assert made.parameters["stop"] == Choice((["\n"], ["END"]))
    assert made.parameters["reasoning_effort"] == Choice(("low", "high"))
    assert made.parameters["response_format"] == Constant({"type": "json_object"})
    assert made.parameters["top_k"] == Choice((10, 40))
    assert made.parameters["min_p"] == Uniform(0, 0.2)
    assert made.parameters["chat_template_kwargs"] == Constant({"thinking": False})


def test_conditions_for_single_models() -> None:
    """A reasoning model takes no temperature and its own name for the length."""
    made = space(
        model=[
            "gpt-4o-mini",
            {
                "model": "o3",
                "temperature": None,
                "max_completion_tokens": [500, 900],
                "reasoning_effort": ["low", "high"],
            },
        ]
    )
    assert made.models == ("gpt-4o-mini", "o3")
    assert made.for_model("gpt-4o-mini") == {
        "temperature_or_top_p": TEMPERATURE_OR_TOP_P,
        "max_tokens": LogRandInt(50, 1000),
        "n": RandInt(1, 100),
    }
    assert made.for_model("o3") == {
        "n": RandInt(1, 100),
        "max_completion_tokens": Choice((500, 900)),
        "reasoning_effort": Choice(("low", "high")),
    }


def test_one_model_may_be_a_mapping() -> None:
    """Also without a list, and with parameters of extra_body."""
    made = space(model={"model": "o3", "top_k": None, "n": 1}, extra_body={"top_k": 5})
    assert made.models == ("o3",)
    assert "top_k" not in made.for_model("o3")
    assert made.for_model("o3")["n"] == Constant(1)


def test_choices_may_be_spelled_as_choice() -> None:
    """The word choice works for models and prompts too."""
    assert space(model=choice(["a", "b"])).models == ("a", "b")
    assert space(model={"choice": ["a", "b"]}).models == ("a", "b")
    assert len(space(prompt=choice(["{question}", "{question}?"])).templates) == 2


def test_messages_as_choices() -> None:
    """One list of messages is one template; a list of lists is a choice."""
    one = [{"role": "user", "content": "{question}"}]
    other = [{"role": "user", "content": "{question}!"}]
    assert len(space(prompt=..., messages=one).templates) == 1
    assert len(space(prompt=..., messages=[one, other]).templates) == 2
    assert space(prompt=..., messages=[one, other]).templates[1].to_lock() == other


def test_config_of_a_draw() -> None:
    """A draw's branch is sent under its parameters' own names, and None is not sent."""
    made = space(stop=[None, "\n"])
    config = made.config(
        {"model": "m", "temperature_or_top_p": {"top_p": 0.4}, "n": 3, "max_tokens": 70, "stop": None},
        made.templates[0],
    )
    assert config.params == {"model": "m", "top_p": 0.4, "n": 3, "max_tokens": 70}
    assert made.contains(config)


def test_the_untuned_configuration() -> None:
    """Constants are sent, choices are the server's; but the length is always bounded, because its cost must be."""
    assert space().first().params == {"model": "m", "max_tokens": 999}
    assert space(temperature=0, n=[2, 5], max_tokens=[50, 80]).first().params == {
        "model": "m",
        "temperature": 0,
        "max_tokens": 80,
    }
    assert space(max_completion_tokens={"randint": [10, 20]}).first().params == {
        "model": "m",
        "max_completion_tokens": 19,
    }
    assert space(max_tokens=None).first().params == {"model": "m"}


def test_constant_spaces() -> None:
    """Where nothing is to be chosen, the only configuration is known without a search."""
    fixed = space(temperature=0, n=1, max_tokens=50)
    assert fixed.is_constant
    assert fixed.constant.params == {"model": "m", "temperature": 0, "n": 1, "max_tokens": 50}
    assert fixed.contains(fixed.constant)
    single = space(temperature_or_top_p=[{"top_p": 0.5}], n=[1], max_tokens=50)
    assert single.constant.params == {"model": "m", "top_p": 0.5, "n": 1, "max_tokens": 50}
    for changes in ({"model": ["a", "b"]}, {"prompt": ["{question}", "{answer}"]}, {"n": [1, 2]}):
        varied = space(**{"temperature": 0, "n": 1, "max_tokens": 50, **changes})
        assert not varied.is_constant
        with pytest.raises(SuiteError, match="several configurations"):
            _ = varied.constant


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"model": "m", "temperature": 1, "n": 5, "max_tokens": 50}, None),
        ({"model": "m", "top_p": 1, "n": 5, "max_tokens": 50, "stop": "\n"}, None),
        ({"model": "x", "n": 1}, "the model 'x' is not one of 'm'"),
        ({"n": 1}, "the model None is not one of 'm'"),
        ({"model": "m", "temperature": 1, "n": 100, "max_tokens": 50}, "n is 100, outside {'randint': [1, 100]}"),
        ({"model": "m", "temperature": 3, "n": 5, "max_tokens": 50}, "temperature_or_top_p is {'temperature': 3}"),
        ({"model": "m", "temperature": 1, "top_p": 1, "n": 5, "max_tokens": 50}, "temperature_or_top_p is"),
        ({"model": "m", "n": 5, "max_tokens": 50}, "temperature_or_top_p is {}"),
        ({"model": "m", "temperature": 1, "max_tokens": 50}, "n is None, outside"),
        (
            {"model": "m", "temperature": 1, "n": 5, "max_tokens": 50, "user": "a"},
            "user is 'a', which the suite does not send",
        ),
        ({"model": "m", "temperature": 1, "n": 5, "max_tokens": 50, "stop": "x"}, "stop is 'x', outside"),
    ],
)
def test_membership(params: dict[str, Any], why: str | None) -> None:
    """A configuration outside of the declared space is told from one inside, and why."""
    made = space(stop=[None, "\n"])
    config = Config(params, made.templates[0])
    assert made.contains(config) is (why is None)
    assert (made.why_not(config) or "").startswith(why or "")


def test_membership_of_the_template() -> None:
    """A prompt that the suite no longer has is outside."""
    made = space(temperature=0, n=1, max_tokens=50)
    config = Config(dict(made.constant.params), Template.prompt("{question}, please"))
    assert made.why_not(config) == "the prompt '{question}, please' is not among the suite's"


def test_membership_heeds_conditions() -> None:
    """What one model may not be sent is outside for it alone."""
    made = space(model=["a", {"model": "o3", "temperature": None}], temperature=[0, 1], n=1, max_tokens=5)
    rest = {"n": 1, "max_tokens": 5}
    assert made.contains(Config({"model": "a", "temperature": 1, **rest}, made.templates[0]))
    assert not made.contains(Config({"model": "o3", "temperature": 1, **rest}, made.templates[0]))
    assert made.contains(Config({"model": "o3", **rest}, made.templates[0]))


def test_fingerprint_is_of_content() -> None:
    """The order of models and prompts does not matter, a bound does."""
    base = space(model=["a", "b"], prompt=["{question}", "{question}?"])
    assert base.fingerprint == space(model=["b", "a"], prompt=["{question}?", "{question}"]).fingerprint
    assert base.fingerprint != space(model=["a", "b"], prompt=["{question}", "{question}?"], n=[1, 2]).fingerprint
    assert space(user="u", stop="s").fingerprint == space(stop="s", user="u").fingerprint
    assert base.fingerprint != space(model=["a"], prompt=["{question}", "{question}?"]).fingerprint


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": []}, "model is an empty list"),
        ({"model": 5}, "model is 5; valid: a model's name"),
        ({"model": ["a", " "]}, "model[1] is ' '; valid"),
        ({"model": ["a", "a"]}, "model[1] is 'a', a duplicate"),
        ({"model": [{"temperature": 1}]}, "model[0] is {'temperature': 1}; valid"),
        (
            {"model": [{"model": "a", "temprature": 1}]},
            "model[0].temprature: unknown parameter (did you mean 'temperature'?)",
        ),
        ({"model": [{"model": "a", "temperature": 5}]}, "model[0].temperature is 5; valid"),
        ({"model": {"model": "a", "n": 0}}, "model.n is 0; valid"),
        (
            {"model": [{"model": "a", "max_tokens": 5, "max_completion_tokens": 5}]},
            "model[0].max_tokens: cannot be given together with max_completion_tokens",
        ),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens: cannot be given together"),
        ({"temperature_or_top_p": {"top_p": 1}, "temperature": 1}, "temperature_or_top_p: cannot be given together"),
        ({"extra_body": {"temperature": 1}}, "extra_body.temperature is a suite key"),
        ({"extra_body": {"stream": True}}, "extra_body.stream is a suite key"),
        ({"extra_body": {"top_k": []}}, "extra_body.top_k: an empty list of choices"),
        ({"extra_body": [1]}, "extra_body is [1]; valid: a mapping"),
        ({"n": {"uniform": [1, 5]}}, "n is uniform, which gives fractions"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": ["{question}", "{question}"]}, "prompt[1] is '{question}', a duplicate"),
        ({"prompt": ["{question}", "{a.b}"]}, "prompt[1]: the field {a.b} reaches"),
        ({"prompt": ...}, "prompt: give either prompt or messages"),
        ({"messages": [{"role": "user", "content": "a"}]}, "prompt: give either prompt or messages, not both"),
        ({"prompt": ..., "messages": []}, "messages is an empty list"),
        ({"prompt": ..., "messages": "as in {question}"}, "messages is 'as in {question}'; valid: a list of"),
        ({"prompt": ..., "messages": 5}, "messages is 5; valid: a list of"),
        ({"prompt": ..., "messages": [{"role": "usr", "content": "a"}]}, "messages[0].role is 'usr'"),
        ({"prompt": ..., "messages": [[{"role": "user"}]]}, "messages[0][0] is {'role': 'user'}; valid"),
        (
            {"prompt": ..., "messages": [{"role": "user", "content": "a"}], "system": "S"},
            "system: goes with prompt",
        ),
    ],
)
def test_wrong_spaces_are_refused(changes: dict[str, Any], says: str) -> None:
    """One line that leads to the value and says what is valid."""
    assert complaint(**changes).startswith(says)


def test_functions_of_one_name_are_refused() -> None:
    """The lock file tells functions apart by name, so two lambdas cannot be choices."""
    said = complaint(prompt=[lambda _: "a", lambda _: "b"])
    assert "a duplicate; functions are distinguished by name: define them with def" in said


@given(
    temperature=st.floats(0, 2) | st.none(),
    top_p=st.floats(0, 1) | st.none(),
    n=st.integers(1, 99),
    max_tokens=st.integers(50, 999),
)
def test_every_draw_of_the_default_space_is_inside(
    temperature: float | None, top_p: float | None, n: int, max_tokens: int
) -> None:
    """Exactly the configurations with one of temperature and top_p belong to the default space."""
    made = Space(("m",), (Template.prompt("{q}"),))
    params = {"model": "m", "temperature": temperature, "top_p": top_p, "n": n, "max_tokens": max_tokens}
    assert made.contains(Config(params, made.templates[0])) is ((temperature is None) != (top_p is None))
