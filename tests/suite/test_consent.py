"""What in a YAML suite would run code is found, wherever it stands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.suite_files import read_suites

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import resolve
from pytest_llmtune.suite.yaml import code_in

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"dataset": "m:f"}, [("dataset", "m:f")]),
        ({"dataset": "hf:openai/gsm8k", "grader": "math", "prompt": "{a}: b", "aggregate": "mean"}, []),
        ({"aggregate": "a.b:c.d"}, [("aggregate", "a.b:c.d")]),
        ({"prompt": ["x", {"callable": "m:f"}]}, [("prompt", "m:f")]),
        ({"messages": [[{"role": "user", "content": {"callable": "m:f"}}]]}, [("messages", "m:f")]),
        ({"baselines": [{"model": "m", "prompt": {"callable": "m:f"}}]}, [("baselines", "m:f")]),
        ({"grader": "m:f"}, [("grader", "m:f")]),
        (
            {"grader": ["exact", "m:f", {"python": {"allow_code_execution": True}}]},
            [("grader", "m:f"), ("grader", "python")],
        ),
        ({"grader": [["m:f"]]}, [("grader", "m:f")]),
        ({"grader": {"regex": {"pattern": "a:b"}}}, []),
        ({"grader": [{"judge": {"prompt": {"callable": "m:f"}}}]}, [("grader", "m:f")]),
        ({"grader": {"tools": {"args": {"call": {"callable": "m:f"}}}}}, []),
        ({"cascade": {"accept": {"function": "m:f"}}}, [("cascade", "m:f")]),
        ({"cascade": [{"model": "a", "accept": {"function": "m:f"}}, {"model": "b"}]}, [("cascade", "m:f")]),
        ({"cascade": {"accept": {"regex": "m:f"}}}, []),
        ({"grader": None, "prompt": 3, "dataset": ["m:f"]}, []),
    ],
)
def test_what_runs_code(keys: dict[str, Any], found: list[tuple[str, str]]) -> None:
    """Functions by name, and the python grader; nothing that only looks like one."""
    assert list(code_in(keys)) == found


JUDGE = {"judge": {"model": "m", "rubric": "Right?", "prompt": {"callable": "trap:f"}}}


@pytest.mark.parametrize("keys", [{"cascade": {"accept": {"function": "trap:f"}}}, {"grader": JUDGE}])
def test_a_function_of_a_cascade_or_of_a_judge_needs_leave_too(tmp_path: Path, keys: dict[str, Any]) -> None:
    """Without it, nothing is imported; with it, only the project's own modules are."""
    (tmp_path / "trap.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\ndef f(*a, **k): return '{{response}}'\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"question": "1", "answer": "1"}\n{"question": "2", "answer": "2"}\n')
    usual = {"dataset": "rows.jsonl", "prompt": "{question}", "model": ["m", "n"], "grader": "exact"}
    path = tmp_path / "a.llmtune.yaml"

    def graded(text: str) -> None:
        path.write_text(text)
        for suite, _ in read_suites(path, root=tmp_path, allow_code=allowed):
            resolve(suite.grader, base_dir=suite.base_dir, root=suite.root).reference({"question": "1", "answer": "1"})

    allowed: tuple[str, ...] = ()
    with pytest.raises(SuiteError, match="trap:f', which runs code"):
        graded(json.dumps(usual | keys))
    assert not (tmp_path / "ran").exists()
    allowed = ("a",)
    with pytest.raises(SuiteError, match="outside the project"):
        graded(json.dumps(usual | keys).replace("trap:f", "os:getcwd"))
    graded(json.dumps(usual | keys))
    assert (tmp_path / "ran").exists()


places = st.sampled_from(["dataset", "prompt", "messages", "grader", "aggregate", "baselines", "cascade", "model", "n"])
values = st.recursive(
    st.sampled_from(["trap:f", "python", "exact", "{q}", "rows.jsonl", "m", 1, None, True]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["callable", "role", "content", "python", "prompt", "trap:f", "model"]), inner
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(places, values, max_size=5))
def test_without_leave_no_suite_runs_anything(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Any]) -> None:
    """No value of any key imports the project's module: the result is a suite, or one of our errors."""
    directory = tmp_path_factory.mktemp("consent")
    (directory / "trap.py").write_text(f"open({str(directory / 'ran')!r}, 'w')\ndef f(*a, **k): return []\n")
    (directory / "rows.jsonl").write_text('{"q": "1", "answer": "1"}\n{"q": "2", "answer": "2"}\n')
    usual = {"dataset": "rows.jsonl", "prompt": "{q}", "model": "m", "grader": "exact"}
    path = directory / "a.llmtune.yaml"
    path.write_text(json.dumps(usual | keys))
    try:
        for suite, _ in read_suites(path, root=directory, allow_code=()):
            suite.load()
    except SuiteError:
        pass
    assert not (directory / "ran").exists()


def test_with_leave_it_does_run(tmp_path: Path) -> None:
    """The same trap goes off for a suite that may run code."""
    (tmp_path / "trap.py").write_text(
        "ran = []\ndef f():\n    return [{'q': '1', 'answer': '1'}, {'q': '2', 'answer': '2'}]\n"
    )
    path = tmp_path / "a.llmtune.yaml"
    path.write_text("{dataset: 'trap:f', prompt: '{q}', model: m, grader: exact}")
    with pytest.raises(
        SuiteError, match=r"a\.llmtune\.yaml:1:2: dataset is 'trap:f', which runs code; .*_allow_code = a"
    ):
        read_suites(path, root=tmp_path, allow_code=("b",))
    [(suite, _)] = read_suites(path, root=tmp_path, allow_code=("a",))
    assert len(suite.load().tune) == 2


@pytest.mark.parametrize("said", ["none", "bubblewrap", "docker:evil/image", 3])
@pytest.mark.parametrize("grader", ["{{python: {}}}", "[exact, {{python: {}}}]"])
def test_no_yaml_chooses_how_code_is_isolated(tmp_path: Path, grader: str, said: object) -> None:
    """Not even a suite that may run code: neither to have no walls, nor to name an image."""
    options = json.dumps({"allow_code_execution": True, "isolation": said})
    path = tmp_path / "a.llmtune.yaml"
    path.write_text(
        f"{{dataset: [{{q: '1', answer: '1'}}], prompt: '{{q}}', model: m, grader: {grader.format(options)}}}"
    )
    with pytest.raises(SuiteError, match=r"a\.llmtune\.yaml:1:\d+: grader: isolation is .*declare the suite in Python"):
        read_suites(path, root=tmp_path, allow_code=("a",))
