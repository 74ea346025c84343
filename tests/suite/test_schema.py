"""The JSON Schema for editors: shipped as generated, and of one mind with the parser."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from support.suites import keys, suite

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.suite.keys import KEYS, PARAMETER_KEYS
from pytest_llmtune.suite.schema import PATH, schema, text

jsonschema = pytest.importorskip("jsonschema")


def accepts(data: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema()).is_valid(data))


def test_the_shipped_file_is_the_generated_one() -> None:
    """After a change of the table: python -m pytest_llmtune.suite.schema."""
    assert PATH.read_text(encoding="utf-8") == text()


def test_it_is_a_schema() -> None:
    """Valid by its own standard, with a sentence for every key."""
    jsonschema.Draft202012Validator.check_schema(schema())
    properties = schema()["properties"]
    assert properties.keys() == {"extends", *(key.name for key in KEYS), *PARAMETER_KEYS}
    assert all(property_["description"] for property_ in properties.values())


def test_defaults_stand_in_it() -> None:
    """Editors show them."""
    properties = json.loads(text())["properties"]
    assert properties["tune_size"]["default"] == 20
    assert properties["metric"]["default"] == "success_vote"
    assert "default" not in properties["dataset"]


GOOD: list[dict[str, Any]] = [
    {},
    {"prompt": ["{question}", "{question}?"], "model": ["a", {"model": "o3", "temperature": None}]},
    {"prompt": ..., "messages": [{"role": "user", "content": "{question}"}]},
    {"prompt": ..., "messages": [[{"role": "user", "content": "{question}"}], [{"role": "user", "content": "a"}]]},
    {"temperature": {"uniform": [0, 2]}, "n": {"randint": [1, 10]}, "max_tokens": [50, 100], "top_p": None},
    {"max_tokens": {"choice": [50, 100]}, "temperature": {"quniform": [0, 1, 0.25]}},
    {"temperature_or_top_p": [{"temperature": 1}, {"top_p": {"uniform": [0, 1]}}]},
    {"stop": ["a", ["b", "c"], None], "response_format": {"type": "json_object"}, "extra_body": {"top_k": [1, 2]}},
    {"grader": {"math": {"reference": "answer"}}},
    {"grader": ["math", {"exact": {}}]},
    {"min_success": 0.5, "max_inference_cost": "0.01", "group_by": "answer", "min_success_vote": {"1": 0.5}},
    {"inference_budget": 0.004, "optimization_budget": "1.5", "num_samples": -1, "tune_size": 0.5, "test_size": None},
    {"prices": {"m": {"input": 0.1, "output": "0.4"}}, "baselines": [{"n": 2}], "aggregate": "median"},
    {"split": "hash", "duplicates": "drop", "shuffle": False, "where": "answer > 3", "seed": 3},
    {"concurrency": 4, "timeout": 2.5, "deadline": 60, "base_url": "http://x", "max_drop": 0.02, "alpha": 0.05},
]


@pytest.mark.parametrize("changes", GOOD)
def test_what_the_parser_reads_the_schema_accepts(changes: dict[str, Any]) -> None:
    """An editor never marks a good suite."""
    suite(**changes)
    assert accepts(json.loads(json.dumps(keys(**changes))))


def test_null_is_as_if_not_given() -> None:
    """For every key that has a default."""
    required = {"dataset", "prompt", "messages", "model", "grader"}
    optional = {key.name: None for key in KEYS if key.name not in required} | dict.fromkeys(PARAMETER_KEYS)
    assert accepts(keys(**optional))
    assert not any(accepts(keys(**{name: None})) for name in ("dataset", "model", "grader"))


BAD: list[dict[str, Any]] = [
    {"promt": "x"},
    {"prompt": ...},
    {"model": ...},
    {"dataset": ...},
    {"grader": ...},
    {"messages": [{"role": "user", "content": "a"}]},
    {"model": []},
    {"model": [{"temperature": 1}]},
    {"prompt": []},
    {"seed": -1},
    {"num_samples": 0},
    {"split": "hasch"},
    {"shuffle": "yes"},
    {"temperature": 3},
    {"temperature": {"uniform": [0]}},
    {"temperature": {"uniforn": [0, 1]}},
    {"n": 0},
    {"n": 1.5},
    {"top_p": [0.5, 2]},
    {"prices": {"m": {"input": 1}}},
    {"prices": {"m": {"input": 1, "output": 1, "cached": 1}}},
    {"baselines": 5},
    {"max_drop": 2},
    {"min_success": [1]},
    {"concurrency": 0},
    {"inference_budget": 0},
    {"endpoints": 5},
    {"aggregate": 5},
    {"vote": "majority"},
]


@pytest.mark.parametrize("changes", BAD)
def test_what_the_schema_marks_the_parser_refuses(changes: dict[str, Any]) -> None:
    """And an editor marks what it can know."""
    with pytest.raises(SuiteError):
        suite(**changes)
    assert not accepts(json.loads(json.dumps(keys(**changes))))


def test_what_is_extended_may_bring_the_rest() -> None:
    """With extends, no key is required; a place for anchors is allowed."""
    assert accepts(yaml.safe_load("extends: base.yaml\nseed: 1\nx-shared: {a: 1}\n"))
    assert not accepts({"extends": 5})
