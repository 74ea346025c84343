"""Suites as a whole: every key, every contradiction, one line for each problem; and what load makes of the data."""

from __future__ import annotations

import re
import statistics
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.suites import SUMS, WHERE, complaint, keys, load_complaint, suite, write_jsonl

from pytest_llmtune import Suite as PublicSuite
from pytest_llmtune.errors import LLMTuneError, SuiteError
from pytest_llmtune.suite import Suite, Template, Threshold
from pytest_llmtune.suite.declaration import Declaration
from pytest_llmtune.suite.keys import KEYS, PARAMETER_KEYS, REQUIRED


def grade(responses: list[str], answer: str, question: str = "", **row: Any) -> dict[str, float]:
    return {"success": float(responses[0] == answer)}


def shout(values: list[float]) -> float:
    return max(values)


def test_defaults() -> None:
    """What keys mean that are not given."""
    made = suite()
    got = {
        name: getattr(made, name)
        for name in Suite.__slots__
        if name not in ("space", "declaration", "dataset", "grader")
    }
    assert got == {
        "name": "sums",
        "columns": None,
        "delimiter": None,
        "where": None,
        "shuffle": True,
        "seed": 0,
        "tune_size": 20,
        "test_size": None,
        "split": "random",
        "stratify": None,
        "duplicates": "refuse",
        "vote": "equivalence",
        "reasoning": True,
        "allow_vacuous": False,
        "allow_constant_prompt": False,
        "metric": "success_vote",
        "mode": "max",
        "aggregate": "mean",
        "group_by": None,
        "inference_budget": None,
        "optimization_budget": None,
        "num_samples": 20,
        "prices": {},
        "thresholds": (),
        "max_drop": "auto",
        "alpha": "auto",
        "max_cost_rise": "auto",
        "max_unknown": 0,
        "baselines": (),
        "base_url": None,
        "endpoints": None,
        "concurrency": None,
        "timeout": None,
        "deadline": None,
        "task": None,
        "cascade": False,
        "shots": (),
        "prefer": "quality",
        "within": 0.02,
    }
    assert (made.dataset, made.grader) == (SUMS, "exact")
    assert (made.where_declared, made.base_dir, made.root) == (WHERE, Path.cwd(), None)


def test_every_key_given() -> None:
    """Each lands under its own name, money exact."""
    made = suite(
        columns=["a"],
        where="question != 'x'",
        shuffle=False,
        seed=7,
        tune_size=0.5,
        test_size=3,
        split="hash",
        duplicates="allow",
        vote="medoid",
        allow_vacuous=True,
        metric="success",
        mode="min",
        aggregate="median",
        group_by="answer",
        inference_budget=0.004,
        optimization_budget="1.50",
        num_samples=5.0,
        prices={"m": {"input": 0.1, "output": "0.4", "cached_input": 0}, "alias": {"model": "m"}},
        max_drop=0.02,
        alpha=0.05,
        max_cost_rise=2,
        max_unknown=2,
        min_success=0.5,
        max_inference_cost=0.01,
        base_url="http://localhost:1/v1",
        concurrency=4,
        timeout=2.5,
        deadline=60,
    )
    assert (made.columns, made.where, made.shuffle, made.seed) == (("a",), "question != 'x'", False, 7)
    assert (made.tune_size, made.test_size, made.split, made.duplicates) == (0.5, 3, "hash", "allow")
    assert (made.vote, made.allow_vacuous, made.metric, made.mode) == ("medoid", True, "success", "min")
    assert (made.aggregate, made.group_by) == ("median", "answer")
    assert (made.inference_budget, made.optimization_budget) == (Decimal("0.004"), Decimal("1.50"))
    assert (made.num_samples, type(made.num_samples)) == (5, int)
    rates = {"input": Decimal("0.1"), "output": Decimal("0.4"), "cached_input": Decimal(0)}
    assert made.prices == {"m": rates, "alias": {"model": "m"}}
    assert (made.max_drop, made.alpha, made.max_cost_rise, made.max_unknown) == (0.02, 0.05, 2.0, 2)
    assert made.thresholds == (
        Threshold("success", "min", Decimal("0.5")),
        Threshold("inference_cost", "max", Decimal("0.01")),
    )
    assert (made.base_url, made.concurrency, made.timeout, made.deadline) == ("http://localhost:1/v1", 4, 2.5, 60)


def test_none_is_as_if_not_given() -> None:
    """A marker may pass None, and YAML null, for any key, apart from those that None switches off."""
    needed = ("name", "dataset", "prompt", "model", "grader")
    optional = {key.name: None for key in KEYS if key.name not in needed and not key.off}
    made, plain = suite(**optional, min_success=None), suite()
    assert made == plain
    off = [key.name for key in KEYS if key.off]
    assert off == ["max_drop", "alpha", "max_cost_rise"]
    assert all(getattr(suite(**{name: None}), name) is None for name in off)
    assert all(getattr(suite(**{name: "auto"}), name) == "auto" for name in off)


def test_suites_are_frozen_values() -> None:
    """Equal by content, and nothing can be set."""
    assert suite() == suite()
    assert suite() != suite(seed=1)
    with pytest.raises(AttributeError):
        suite().seed = 5  # type: ignore[misc]


def test_the_constructor_of_the_python_api(tmp_path: Path) -> None:
    """The same keys as keyword arguments; paths are relative to base_dir."""
    write_jsonl(tmp_path / "d.jsonl", SUMS)
    made = PublicSuite(**keys(dataset="d.jsonl"), base_dir=tmp_path)
    assert isinstance(made, Suite)
    assert (made.name, made.base_dir, made.where_declared) == ("sums", tmp_path, "Suite('sums')")
    assert len(made.load().test) == 10
    with pytest.raises(SuiteError, match=r"Suite\('sums'\): seeed: unknown key \(did you mean 'seed'\?\)"):
        Suite(**keys(seeed=1))
    with pytest.raises(SuiteError, match=r"Suite\(None\): name is missing|Suite\(None\): name: is missing"):
        Suite(**keys(name=...))


def test_a_suite_shows_its_name_only() -> None:
    """Endpoints may hold keys, and a traceback shows values."""
    made = suite(endpoints=[{"api_key": "sk-very-secret"}])
    assert repr(made) == "Suite('sums')"


def test_the_default_name() -> None:
    """Of the test or the file; the key wins."""
    options: dict[str, Any] = {"where": WHERE, "base_dir": Path.cwd(), "default_name": "from_test"}
    assert Suite.from_mapping(keys(name=...), **options).name == "from_test"
    assert Suite.from_mapping(keys(), **options).name == "sums"
    with pytest.raises(SuiteError, match="name is 'a/b'; '/' cannot be part of a file name"):
        Suite.from_mapping(keys(name=...), where=WHERE, base_dir=Path.cwd(), default_name="a/b")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": 5}, "name is 5; valid: a text"),
        ({"name": "a:b"}, "name is 'a:b'; ':' cannot be part of a file name"),
        ({"dataset": "nowhere.jsonl"}, "dataset: no file"),
        ({"dataset": "*.nothing"}, "dataset: no file matches"),
        ({"dataset": []}, "dataset is an empty list"),
        ({"dataset": 5}, "dataset is 5; valid: a path"),
        ({"dataset": __file__}, "dataset: "),
        ({"columns": "a"}, "columns is 'a'; valid: a list of column names"),
        ({"columns": []}, "columns is []; valid: a list of column names"),
        ({"delimiter": ";;"}, "delimiter is ';;'; valid: one character, such as"),
        ({"delimiter": "a"}, "delimiter is 'a'; valid: one character, such as"),
        (
            {"delimiter": "\\t"},
            "delimiter is '\\\\t'; valid: one character, such as ';', '|' or a tab ('\\t', in YAML in double",
        ),
        ({"where": 5}, "where is 5; valid: an expression"),
        ({"where": "  "}, "where is '  '; valid: an expression"),
        ({"where": "a = 1"}, "where: 'a = 1' is not an expression"),
        ({"where": "a.b == 1"}, "where: 'a.b' is not allowed in"),
        ({"shuffle": "yes"}, "shuffle is 'yes'; valid: true, false"),
        ({"shuffle": 1}, "shuffle is 1; valid: true, false"),
        ({"seed": -1}, "seed is -1; valid: a seed, a whole number from 0"),
        ({"seed": 0.5}, "seed is 0.5; valid"),
        ({"seed": True}, "seed is True; valid"),
        ({"tune_size": -1}, "tune_size is -1; valid: rows, a whole number from 0, or a share"),
        ({"tune_size": 1.5}, "tune_size is 1.5; valid"),
        ({"tune_size": "20"}, "tune_size is '20'; valid"),
        ({"test_size": 0}, "test_size is 0; valid: rows, a whole number from 1"),
        ({"split": "stratified"}, "split is 'stratified'; valid: random, hash"),
        ({"split": "hasch"}, "split is 'hasch' (did you mean 'hash'?)"),
        ({"stratify": 5}, "stratify is 5; valid: a column's name"),
        ({"duplicates": "keep"}, "duplicates is 'keep'; valid: refuse, drop, allow"),
        ({"prompt": "{a.b}"}, "prompt: the field {a.b} reaches into a value"),
        ({"system": ""}, "system is ''; valid: the system message"),
        ({"grader": ...}, "grader is missing; a suite needs dataset, prompt or messages, model and grader"),
        ({"grader": False}, "grader is False; valid: a grader's name, {name: {option: value}}"),
        ({"grader": {"math": {}, "exact": {}}}, "grader is {'math': {}, 'exact': {}}; valid"),
        ({"grader": {5: {}}}, "grader is {5: {}}; valid"),
        ({"grader": ["math", " "]}, "grader[1] is ' '; valid"),
        ({"grader": []}, "grader is an empty list"),
        ({"dataset": ...}, "dataset is missing"),
        ({"model": ...}, "model is missing"),
        ({"vote": "majority"}, "vote is 'majority'; valid: equivalence, medoid, or a function"),
        ({"allow_vacuous": "true"}, "allow_vacuous is 'true'; valid: true, false"),
        ({"metric": ""}, "metric is ''; valid: a metric's name"),
        ({"metric": "sucess_vote"}, "metric is 'sucess_vote' (did you mean 'success_vote'?)"),
        ({"metric": "inference_cost"}, "mode is 'max', which makes inference_cost as high as can be"),
        (
            {"metric": "inference_cost", "mode": "min"},
            "metric is 'inference_cost': nothing would weigh against it; tune a score (success_vote, success, "
            "expected_success, or what the grader returns), and limit this one: inference_budget=...",
        ),
        ({"metric": "latency_p95", "mode": "min"}, "metric is 'latency_p95': nothing would weigh against it; tune a"),
        ({"mode": "maximum"}, "mode is 'maximum' (did you mean 'max'?); valid: max, min"),
        ({"aggregate": "meen"}, "aggregate is 'meen' (did you mean 'mean'?); valid: mean, median"),
        ({"aggregate": 5}, "aggregate is 5; valid: mean, median, module:function, or a function"),
        ({"aggregate": "nowhere_at_all:f"}, "aggregate: no module 'nowhere_at_all'"),
        ({"inference_budget": 0}, "inference_budget is 0; valid: USD per instance, above 0"),
        ({"inference_budget": "cheap"}, "inference_budget is 'cheap'; valid: USD per instance"),
        ({"optimization_budget": -1}, "optimization_budget is -1; valid: USD for the whole search"),
        ({"num_samples": 0}, "num_samples is 0; valid: trials, a whole number from 1, or -1"),
        ({"num_samples": -1}, "num_samples is -1 (no limit), so that optimization_budget must limit the search"),
        ({"prices": 5}, "prices is 5; valid: {model:"),
        ({"prices": {"m": 5}}, "prices.m is 5; valid: {'input'"),
        ({"prices": {"m": {"model": ""}}}, "prices.m is {'model': ''}; valid: {'input'"),
        ({"prices": {"m": {"model": "x", "input": 1, "output": 1}}}, "prices.m has 'model'; valid: input, output"),
        ({"prices": {"m": {"input": 1}}}, "prices.m is {'input': 1}; valid"),
        ({"prices": {"m": {"input": 1, "output": "x"}}}, "prices.m.output is 'x'; valid: USD per 1M tokens"),
        ({"prices": {"m": {"input": -1, "output": 1}}}, "prices.m.input is -1; valid"),
        (
            {"prices": {"m": {"input": 1, "output": 1, "cached": 1}}},
            "prices.m has 'cached' (did you mean 'cached_input'?)",
        ),
        ({"max_drop": 2}, "max_drop is 2; valid: a drop of the metric, a number from 0 to 1"),
        ({"alpha": "5%"}, "alpha is '5%'; valid: a significance level"),
        ({"max_unknown": -1}, "max_unknown is -1; valid: examples"),
        ({"min_success_vote": 85}, "min_success_vote is 85 (did you mean 0.85?)"),
        ({"min_sucess_vote": 0.5}, "min_sucess_vote: no metric 'sucess_vote' (did you mean 'success_vote'?)"),
        ({"min_success_vote": {"a": 0.5}}, "min_success_vote has a limit for each group; give group_by"),
        (
            {"min_success_vote": {"a": 7}, "group_by": "answer"},
            "min_success_vote.a is 7 (did you mean 0.07?); success_vote is between 0 and 1",
        ),
        ({"min_success": 0.9, "max_success": 0.5}, "min_success is 0.9, above max_success=0.5; no value passes both"),
        ({"max_dorp": 0.1}, "max_dorp: unknown key (did you mean 'max_drop'?)"),
        ({"max_token": 5}, "max_token: unknown key (did you mean 'max_tokens'?)"),
        ({"min_p": 0.1}, "min_p: unknown key"),
        ({"promt": "x"}, "promt: unknown key (did you mean 'prompt'?); valid: name, dataset, columns, delimiter"),
        ({"stream": True}, "stream: unknown key"),
        ({"baselines": 5}, "baselines is 5; valid: a list of configurations"),
        ({"baselines": [5]}, "baselines is [5]; valid"),
        ({"baselines": [{"model": 5}]}, "baselines[0].model is 5; valid: a model's name"),
        (
            {"baselines": [{}, {"temprature": 1}]},
            "baselines[1].temprature: unknown parameter (did you mean 'temperature'?)",
        ),
        ({"baselines": [{"temperature": 7}]}, "baselines[0].temperature is 7; valid"),
        ({"baselines": [{"n": [1, 2]}]}, "baselines[0].n is [1, 2]; a baseline has one value"),
        ({"baselines": [{"prompt": "{a.b}"}]}, "baselines[0]: the field {a.b}"),
        ({"base_url": ""}, "base_url is ''; valid: a URL"),
        ({"base_url": "http://a", "endpoints": "e.yaml"}, "base_url: cannot be given together with endpoints"),
        ({"endpoints": 5}, "endpoints is not usable; valid: the path"),
        ({"endpoints": [5]}, "endpoints is not usable"),
        ({"concurrency": 0}, "concurrency is 0; valid: requests in flight, a whole number from 1"),
        ({"timeout": 0}, "timeout is 0; valid: seconds for one request, a number above 0"),
        ({"deadline": "1h"}, "deadline is '1h'; valid: seconds"),
        ({"tune_size": 0}, "tune_size is 0, but there is something to choose"),
        ({"split": "hash", "stratify": "answer"}, "stratify: with split='hash' takes tune_size as a share"),
    ],
)
def test_one_line_for_one_mistake(changes: dict[str, Any], says: str) -> None:
    """What, where, what was got, what is valid; and nothing else is complained of."""
    said = complaint(**changes)
    assert said.startswith(says)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("floor", "ceiling", "contradict"),
    [
        (0.5, 0.5, False),
        ({"1": 0.9}, 0.5, False),
        (0.9, {"1": 0.5}, False),
        ({"1": 0.9}, {"2": 0.5}, False),
        ({"1": 0.5}, {"1": 0.5}, False),
        ({"1": 0.9, "2": 0.1}, {"2": 0.5, "1": 0.5}, True),
    ],
)
def test_contradicting_thresholds(floor: Any, ceiling: Any, contradict: bool) -> None:
    """A floor above the ceiling of the same group; a group's limit says nothing of the whole."""
    changes = {"min_success": floor, "max_success": ceiling, "group_by": "answer"}
    if contradict:
        assert complaint(**changes) == "min_success is 0.9, above max_success=0.5; no value passes both"
    else:
        assert len(suite(**changes).thresholds) == 2


def test_all_problems_at_once() -> None:
    """One line for each, so that nobody mends a suite one run at a time."""
    said = complaint(promt="x", num_samples=0, temperature=9, min_success=7, model=["a", "a"], grader=...)
    assert [line.partition(" ")[0].rstrip(":") for line in said.split("\n")] == [
        "promt",
        "grader",
        "num_samples",
        "min_success",
        "temperature",
        "model[1]",
    ]


def test_keys_that_are_no_text() -> None:
    """A mapping from YAML may hold anything."""
    with pytest.raises(SuiteError, match="keys must be strings, got 5"):
        Suite.from_mapping({**keys(), 5: 1}, where=WHERE, base_dir=Path.cwd())


def test_secrets_of_endpoints_are_not_shown() -> None:
    """Neither in errors about them nor beside them."""
    said = complaint(endpoints=["sk-very-secret"], base_url=5)
    assert "sk-very-secret" not in said


def test_the_table_and_the_attributes_agree() -> None:
    """Each key is an attribute, but those that make up the space."""
    made = {"prompt", "messages", "system", "model", "extra_body", "params", "pass_at_k", "pass_hat_k"}
    own = {"space", "declaration"}
    assert {key.name for key in KEYS} - made == set(Suite.__slots__) - own


def test_the_table_is_in_order() -> None:
    """Unique names, a sentence for each, defaults that their own form accepts."""
    names = [key.name for key in KEYS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(PARAMETER_KEYS)
    for key in KEYS:
        assert re.fullmatch(r"[A-Z`].*\.", key.doc, re.DOTALL), key.name
        if key.default not in (None, REQUIRED, (), {}):
            assert key.form.parse(key.default) == key.default


def test_a_place_for_every_problem() -> None:
    """A declaration that knows its lines points at the nearest one."""
    places = {"model": "a.yaml:3:1", "model[1].stop": "a.yaml:5:7"}
    declaration = Declaration("a.yaml:1 (a)", Path(), positions=places)
    with pytest.raises(SuiteError) as caught:
        Suite.from_mapping(
            keys(model=["a", {"model": "b", "stop": []}, {"model": "c", "n": 0}], seed=-1),
            where=declaration.where,
            base_dir=Path(),
            positions=places,
        )
    assert [line.partition(": ")[0] for line in str(caught.value).split("\n")] == [
        "a.yaml:1 (a)",
        "a.yaml:5:7",
        "a.yaml:3:1",
    ]


def test_baselines_fill_in_the_untuned_configuration() -> None:
    """n=2 and n=5 beside the first model and the first prompt; a length bound is always sent."""
    made = suite(
        model=["a", "b"],
        temperature=[0, 1],
        baselines=[
            {},
            {"n": 2},
            {"model": "b", "temperature": 1, "n": 5, "stop": ["\n"]},
            {"max_completion_tokens": 7},
        ],
    )
    assert [dict(config.params) for config in made.baselines] == [
        {"model": "a", "max_tokens": 999},
        {"model": "a", "max_tokens": 999, "n": 2},
        {"model": "b", "max_tokens": 999, "temperature": 1, "n": 5, "stop": ["\n"]},
        {"model": "a", "max_completion_tokens": 7},
    ]
    assert {config.template for config in made.baselines} == {Template.prompt("{question} = ?")}


def test_a_baseline_chooses_one_branch_of_temperature_or_top_p() -> None:
    """Its parameters are sent, not the key itself, which no server knows."""
    made = suite(baselines=[{"temperature_or_top_p": {"top_p": 0.5}}, {"temperature_or_top_p": None}])
    assert [config.params.get("top_p") for config in made.baselines] == [0.5, None]
    assert not any("temperature_or_top_p" in config.params for config in made.baselines)
    with pytest.raises(SuiteError, match="a baseline has one value per parameter"):
        suite(baselines=[{"temperature_or_top_p": [{"temperature": 1}, {"top_p": 0.5}]}])


def test_baselines_with_a_prompt_of_their_own() -> None:
    """A text or messages; the suite's system message stands before a text."""
    made = suite(system="S", baselines={"prompt": "{question}!", "model": "z"})
    [config] = made.baselines
    assert config.model == "z"
    assert config.template == Template.prompt("{question}!", system="S")
    messages = [{"role": "user", "content": "{question}?"}]
    assert suite(baselines=[{"messages": messages}]).baselines[0].template == Template.messages(messages)


@pytest.mark.parametrize(
    ("aggregate", "value"), [("mean", 2.0), ("median", 1), (shout, 5), (f"{__name__.rpartition('.')[2]}:shout", 5)]
)
def test_aggregates(aggregate: Any, value: float) -> None:
    """Named, given, or found beside the suite."""
    made = suite(Path(__file__).parent, aggregate=aggregate)
    assert made.aggregator([1, 1, 1, 2, 5]) == value
    assert suite().aggregator is statistics.fmean


def test_load() -> None:
    """Rows, divided, with what was left out."""
    made = suite(tune_size=5, where="answer < 21").load()
    assert (len(made.tune), len(made.test), made.reused) == (5, 15, False)
    assert made.dataset is not None
    assert (made.dataset.filtered, made.dataset.dropped) == (10, 0)


def test_rows_without_what_the_prompt_or_the_reference_needs_are_dropped() -> None:
    """Templates, baselines' templates and the reference decide what is needed; other columns may be empty."""
    rows = [
        {"question": "a", "answer": "1", "hint": "h", "note": None},
        {"question": None, "answer": "1", "hint": "h"},
        {"question": "b", "answer": None, "hint": "h"},
        {"question": "c", "answer": "1", "hint": None},
    ]
    plain = suite(dataset=rows).load().dataset
    hinted = suite(dataset=rows, baselines=[{"prompt": "{question} {hint}"}]).load().dataset
    assert plain is not None
    assert hinted is not None
    assert (plain.dropped, dict(plain.lacking)) == (2, {"question": 1, "answer": 1})
    assert (hinted.dropped, dict(hinted.lacking)) == (3, {"question": 1, "answer": 1, "hint": 1})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"prompt": "{qestion}"},
            "the prompt '{qestion}' names {qestion} (did you mean 'question'?), but the columns are",
        ),
        ({"prompt": ["{question}", "{x}"]}, "the prompt '{x}' names {x}, but the columns are"),
        ({"baselines": [{"prompt": "{y}"}]}, "the prompt '{y}' names {y}"),
        ({"prompt": ..., "messages": [{"role": "user", "content": "{z}"}]}, "the messages '{z}' names {z}"),
        ({"group_by": "topic"}, "group_by is 'topic'; the columns are 'question', 'answer'"),
        ({"stratify": "anwser"}, "stratify is 'anwser' (did you mean 'answer'?)"),
        ({"grader": {"exact": {"reference": "solution"}}}, "the list of rows has no column 'solution'"),
        ({"where": "level > 3"}, "where='level > 3' names 'level', but the columns are"),
        ({"where": "question == 'x'"}, "the list of rows: no row of 30 is left"),
        (
            {"group_by": "answer", "min_success": {"3": 0.5, "thirty": 0.5}},
            "min_success names the group 'thirty'; answer has '1', '10', '11'",
        ),
        ({"dataset": [*SUMS, SUMS[0]], "shuffle": False}, "1 of the test rows are tuning rows too"),
    ],
)
def test_what_load_refuses(changes: dict[str, Any], says: str) -> None:
    """Each with the place of the declaration and one sentence."""
    assert load_complaint(**changes).startswith(says)


def test_duplicates_settled_by_the_key() -> None:
    """As the error says."""
    rows = [*SUMS, SUMS[0]]
    assert suite(dataset=rows, shuffle=False, duplicates="drop").load().doubled == 1
    assert len(suite(dataset=rows, shuffle=False, duplicates="allow").load().test) == 11


def test_duplicates_are_found_by_what_the_model_is_asked() -> None:
    """The same question with another id is the same question; a function of the row may look at anything."""
    rows = [{"question": f"q{number % 30}", "answer": "x", "id": number} for number in range(60)]
    assert "of the test rows are tuning rows too" in load_complaint(dataset=rows, shuffle=False)
    for prompt in (lambda _: "", ["{question}", lambda _: ""]):
        said = load_complaint(dataset=rows, shuffle=False, prompt=prompt)
        assert "is the same for every row; name a column in it, as in {question}" in said
        assert len(suite(dataset=rows, shuffle=False, prompt=prompt, allow_constant_prompt=True).load().test) == 40
    assert len(suite(dataset=rows, shuffle=False, prompt=lambda row: f"{row['id']}").load().test) == 40


@pytest.mark.parametrize("name", ["math500.jsonl", "wellness.csv", "sst2_dev.tsv"])
def test_shapes_of_published_files(tmp_path: Path, name: str) -> None:
    """A LaTeX column, a Korean CSV with BOM and trailing comma, a TSV without header."""
    contents = {
        "math500.jsonl": '{"problem": "Convert $(0,3)$ to $(r,\\\\theta)$", "answer": "\\\\frac{\\\\pi}{2}"}\n',
        "wellness.csv": "\ufeff구분,유저,챗봇,\n감정,안녕,네,\n감정,응,,\n",
        "sst2_dev.tsv": "one long string of cliches\t0\ngreat fun\t1\n",
    }
    declared: dict[str, dict[str, Any]] = {
        "math500.jsonl": {"prompt": "{problem} Put it in \\boxed{{}}.", "grader": "math"},
        "wellness.csv": {"prompt": "{유저}", "grader": {"exact": {"reference": "챗봇"}}},
        "sst2_dev.tsv": {"columns": ["text", "label"], "prompt": "{text}"},
    }
    (tmp_path / name).write_text(contents[name], encoding="utf-8")
    made = suite(tmp_path, dataset=name, **declared[name])
    loaded = made.load()
    assert loaded.test[0].row.keys() >= made.space.templates[0].fields
    assert made.space.templates[0].render(loaded.test[0].row)[0]["content"]


VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
ANY = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
)
NAMES = st.sampled_from(
    [*(key.name for key in KEYS), *PARAMETER_KEYS, "min_success", "max_cost", "min_", "min_p", "x"]
) | st.text(max_size=6)


@given(st.dictionaries(NAMES, ANY, max_size=4))
def test_any_mapping_is_a_suite_or_one_clear_error(mapping: dict[str, Any]) -> None:
    """No value of any key lets anything but our own error escape."""
    try:
        made = Suite.from_mapping({**keys(), **mapping}, where=WHERE, base_dir=Path("/nonexistent"))
        made.load()
    except LLMTuneError as error:
        said = str(error)
    else:
        said = WHERE
    assert said.startswith((WHERE, "both temperature"))


def test_grader_functions_name_the_columns_they_need() -> None:
    """A required argument of the user's grading function is a needed column."""
    rows = [{"question": "a", "answer": None}, {"question": "b", "answer": "x"}]
    made = suite(dataset=rows, grader=grade).load()
    assert made.dataset is not None
    assert made.dataset.dropped == 1
