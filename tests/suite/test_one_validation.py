"""Marker, YAML and JSON Schema are of one mind: the same keys, the same values, the same sentences."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.suite_files import read_suites
from support.suites import SUMS, WHERE, keys, refusal, write_jsonl

from pytest_llmtune.suite import Suite
from pytest_llmtune.suite.domains import PARAMETERS, WORDS
from pytest_llmtune.suite.keys import KEYS, PARAMETER_KEYS, REQUIRED
from pytest_llmtune.suite.schema import schema

if TYPE_CHECKING:
    from pathlib import Path

jsonschema = pytest.importorskip("jsonschema")
VALIDATOR = jsonschema.Draft202012Validator(schema())

NUMBERS = st.integers(-2, 3) | st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 50, 1000])
WORD_VALUES = st.one_of(
    st.builds(lambda word, low, high: {word: [low, high]}, st.sampled_from([*WORDS, "uniforn"]), NUMBERS, NUMBERS),
    st.builds(lambda low, high, step: {"quniform": [low, high, step]}, NUMBERS, NUMBERS, NUMBERS),
    st.builds(lambda options: {"choice": options}, st.lists(NUMBERS, max_size=3)),
)
PARAMETER_VALUES = (
    st.none() | NUMBERS | st.booleans() | st.text(max_size=3) | st.lists(NUMBERS, max_size=3) | WORD_VALUES
)
SCALARS = (
    st.none()
    | st.booleans()
    | NUMBERS
    | st.sampled_from(["", "a", "hash", "random", "drop", "medoid", "max", "min", "0.5", "math"])
)
KEY_VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(st.sampled_from(["m", "input", "output", "n", "model"]), SCALARS)
)
SIMPLE = [key.name for key in KEYS if key.name not in ("dataset", "prompt", "messages")]


@st.composite
def declarations(draw: st.DrawFn) -> dict[str, Any]:
    """A small suite with up to three keys set to anything."""
    names = draw(
        st.lists(st.sampled_from([*SIMPLE, *PARAMETER_KEYS, "min_success", "max_inference_cost", "prompt"]), max_size=3)
    )
    mapping: dict[str, Any] = {}
    for name in names:
        if name in PARAMETERS:
            mapping[name] = draw(PARAMETER_VALUES)
        elif name == "prompt":
            mapping[name] = draw(st.sampled_from(["{question}", "{x}", "{a.b}", "", ["{question}", "{answer}"], 5]))
        elif name == "temperature_or_top_p":
            mapping[name] = draw(st.sampled_from([None, {"temperature": 1}, [{"top_p": 0.5}], [{"n": 1}], 5]))
        elif name.startswith(("min_", "max_")):
            mapping[name] = draw(NUMBERS | st.dictionaries(st.sampled_from(["1", "2"]), NUMBERS))
        else:
            mapping[name] = draw(KEY_VALUES)
    return keys(**mapping)


def said_of_mapping(mapping: dict[str, Any], base_dir: Path) -> list[str]:
    """What is said of a marker, without the places."""
    said = refusal(lambda: Suite.from_mapping(mapping, where=WHERE, base_dir=base_dir, default_name="sums"))
    return [] if said is None else [line.removeprefix(f"{WHERE}: ") for line in said.split("\n")]


def said_of_yaml(mapping: dict[str, Any], base_dir: Path) -> list[str]:
    """What is said of the same as a YAML document, without the places."""
    path = base_dir / "sums.llmtune.yaml"
    path.write_text(yaml.safe_dump(mapping, allow_unicode=True, sort_keys=False), encoding="utf-8")
    said = refusal(lambda: read_suites(path, shown_as="t.yaml", root=base_dir))
    return [] if said is None else [line.split(": ", 1)[1] for line in said.split("\n")]


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("one")
    write_jsonl(directory / "sums.jsonl", SUMS)
    (directory / "app_of_tests.py").write_text("def handle(question):\n    return question\n", encoding="utf-8")
    return directory


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(mapping=declarations())
def test_marker_and_yaml_say_the_same(base_dir: Path, mapping: dict[str, Any]) -> None:
    """The same sentences, in the same order, or both nothing."""
    mapping["dataset"] = "sums.jsonl"
    assert said_of_yaml(mapping, base_dir) == said_of_mapping(mapping, base_dir)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(mapping=declarations())
def test_an_editor_never_marks_what_the_parser_accepts(base_dir: Path, mapping: dict[str, Any]) -> None:
    """The schema may let more through, never less."""
    mapping["dataset"] = "sums.jsonl"
    if not said_of_mapping(mapping, base_dir):
        assert VALIDATOR.is_valid(json.loads(json.dumps(mapping)))


SAMPLES: dict[str, Any] = {
    "name": "other",
    "columns": ["a", "b"],
    "delimiter": ";",
    "where": "answer > 3",
    "shuffle": False,
    "seed": 5,
    "tune_size": 7,
    "test_size": 3,
    "split": "hash",
    "stratify": "answer",
    "duplicates": "allow",
    "extra_body": {"top_k": [1, 2]},
    "vote": "medoid",
    "reasoning": {"open": "<plan>", "close": "</plan>"},
    "allow_vacuous": True,
    "allow_constant_prompt": True,
    "metric": "success",
    "mode": "min",
    "aggregate": "median",
    "group_by": "answer",
    "inference_budget": 0.25,
    "optimization_budget": 2,
    "num_samples": 9,
    "prices": {"m": {"input": 1, "output": 2}, "alias": {"model": "m"}},
    "max_drop": 0.5,
    "alpha": 0.25,
    "max_cost_rise": 0.5,
    "max_unknown": 4,
    "thresholds": {"min_success": 0.5},
    "baselines": [{"n": 2}],
    "cascade": True,
    "prefer": "cost",
    "within": 0.05,
    "base_url": "http://localhost/v1",
    "endpoints": [{"base_url": "http://localhost/v1"}],
    "concurrency": 3,
    "timeout": 1.5,
    "deadline": 9.5,
    "system": "Be brief.",
    "prompt": ["{question}", "{question}?"],
    "shots": [0, 2],
    "model": ["m", {"model": "o3", "temperature": None}],
    "grader": {"exact": {"reference": "answer"}},
    "dataset": "sums.jsonl",
    "messages": [{"role": "user", "content": "{question}"}],
    "task": "app_of_tests:handle",
    "params": {"style": ["short", "kind"]},
    "pass_at_k": {"2": 0.5},
    "pass_hat_k": {"2": 0.5},
}
BESIDE: dict[str, dict[str, Any]] = {
    "messages": {"prompt": ...},
    "task": {"prompt": ...},
    "params": {"prompt": ..., "task": "app_of_tests:handle"},
    "pass_at_k": {"n": 2},
    "pass_hat_k": {"n": 2},
}
"""What goes with a key, or must not stand beside it."""


def test_a_sample_for_every_key() -> None:
    """The table and these samples grow together."""
    assert SAMPLES.keys() == {key.name for key in KEYS}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_key_means_the_same_in_yaml(base_dir: Path, name: str) -> None:
    """A key's value read from YAML makes the same suite as from a marker, and another than without it."""
    mapping = keys(**{"dataset": "sums.jsonl", name: SAMPLES[name]}, **BESIDE.get(name, {}))
    path = base_dir / "sums.llmtune.yaml"
    path.write_text(yaml.safe_dump(mapping, allow_unicode=True), encoding="utf-8")
    [(from_yaml, _)] = read_suites(path, root=base_dir)
    from_marker = Suite.from_mapping(mapping, where=WHERE, base_dir=base_dir)
    assert from_yaml == from_marker
    assert VALIDATOR.is_valid(mapping)
    plain = Suite.from_mapping(keys(dataset=SUMS), where=WHERE, base_dir=base_dir)
    assert from_marker != plain


@pytest.mark.parametrize("key", [key for key in KEYS if key.default is not REQUIRED], ids=lambda key: key.name)
def test_every_default_is_what_leaving_out_means(base_dir: Path, key: Any) -> None:
    """A key given with its default makes the same suite."""
    if key.default in (None, (), {}):
        return
    assert Suite.from_mapping(keys(**{key.name: key.default}), where=WHERE, base_dir=base_dir) == Suite.from_mapping(
        keys(), where=WHERE, base_dir=base_dir
    )
