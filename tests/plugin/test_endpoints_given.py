"""Endpoints in every place and form, as a user gives them, against a server that takes one key only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.llm_server import LLMServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Project

    Giving = Callable[[Project, list[dict[str, Any]], pytest.MonkeyPatch], list[str]]

KEY = "right-key-0123456789"


def _file(project: Project, name: str, text: str) -> None:
    path = project.pytester.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _ini(project: Project, listed: list[dict[str, Any]], _: pytest.MonkeyPatch) -> list[str]:
    _file(project, "pytest.ini", f"[pytest]\nllmtune_endpoints = {json.dumps(listed)}\n")
    return []


def _ini_names_yaml(project: Project, listed: list[dict[str, Any]], _: pytest.MonkeyPatch) -> list[str]:
    _file(project, "endpoints.yaml", "".join(f"- {json.dumps(entry)}\n" for entry in listed))
    _file(project, "pyproject.toml", '[tool.pytest.ini_options]\nllmtune_endpoints = "endpoints.yaml"\n')
    return []


def _json_file(project: Project, listed: list[dict[str, Any]], _: pytest.MonkeyPatch) -> list[str]:
    _file(project, "OAI_CONFIG_LIST", json.dumps(listed))
    return ["--llm-endpoints=OAI_CONFIG_LIST"]


def _variable(project: Project, listed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("LLMTUNE_ENDPOINTS", json.dumps(listed))
    return []


def _named_variable(project: Project, listed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("OAI_CONFIG_LIST", json.dumps(listed))
    return ["--llm-endpoints", "OAI_CONFIG_LIST"]


def _marker(project: Project, listed: list[dict[str, Any]], _: pytest.MonkeyPatch) -> list[str]:
    project.write_suite(more=f"min_success_vote=0.9, endpoints={listed!r},")
    return []


def _dotenv_key(project: Project, listed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("OPENAI_API_KEY")
    _file(project, ".env", f"export OPENAI_API_KEY='{KEY}'  # mine\n")
    return [f"--llm-base-url={listed[0]['base_url']}"]


def _key_file(project: Project, listed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("OPENAI_API_KEY")
    _file(project, "keys/key_openai.txt", f"# old\nrevoked-key-0123456789\n{KEY}\n")
    entry = {"base_url": listed[0]["base_url"], "api_key_file": "keys/key_openai.txt"}
    return [f"--llm-endpoints={json.dumps([entry])}"]


def _key_variable(project: Project, listed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("MY_API_KEY", f"{KEY}\n")
    entry = {"base_url": listed[0]["base_url"], "api_key_env": "MY_API_KEY"}
    _file(project, "endpoints.json", json.dumps([entry]))
    return ["--llm-endpoints=endpoints.json"]


GIVEN = {
    "ini": _ini,
    "ini names YAML": _ini_names_yaml,
    "JSON file": _json_file,
    "environment": _variable,
    "named variable": _named_variable,
    "marker": _marker,
    "key in .env": _dotenv_key,
    "key file": _key_file,
    "key variable": _key_variable,
}


@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN.keys())
def test_endpoints_are_taken_from_everywhere(project: Project, monkeypatch: pytest.MonkeyPatch, give: Giving) -> None:
    """A search reaches the server with the key, past wrong ones in the environment; nothing shows or keeps the key."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    project.server.api_keys = {KEY}
    listed = [{"base_url": project.server.base_url, "api_key": KEY, "concurrency": 8}]
    result = project.run("--llm-tune", *give(project, listed, monkeypatch), "-l", "-vv")
    result.assert_outcomes(passed=1)
    assert KEY in project.server.keys
    assert project.server.keys.count("revoked-key-0123456789") <= 2  # by the search, and for the winner's rows
    assert KEY not in result.stdout.str() + result.stderr.str()
    kept = [path for name in ("llmtune", ".llmtune") for path in (project.pytester.path / name).rglob("*")]
    assert not [path for path in kept if path.is_file() and KEY.encode() in path.read_bytes()]


def test_the_ancestor_s_directory_of_keys_is_an_endpoint_list(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """base_aoai.txt names two Azure resources, with a key each: the first is asked, the second takes over."""
    answer = project.server.answer
    with LLMServer(answer, api_key="first-key-0123") as first, LLMServer(answer, api_key="second-key-0123") as second:
        _file(project, "keys/key_aoai.txt", "stale-key-0123\nsecond-key-0123\n")
        _file(project, "keys/base_aoai.txt", f"{first.root_url}\n{second.root_url}\n")
        result = project.run("--llm-tune", "--llm-endpoints=keys")
    assert first.count <= 2  # by the search, and for the winner's rows
    assert {path.split("/")[1] for path in second.paths} == {"openai"}
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.yaml", "endpoints are 'nowhere.yaml'; valid: a YAML or JSON file"),
        ('[{"base_ulr": "http://h/v1"}]', "has the unknown field 'base_ulr' (did you mean 'base_url'?); valid:"),
        ('[{"base_url": "http://127.0.0.1:9/v1", "models": ["other"]}]', "no endpoint serves the model"),
        ("sk-live-SECRET-0123456789", "endpoints are a text that looks like a key; valid:"),
    ],
)
def test_a_mistake_is_one_clear_error(project: Project, given: str, said: str) -> None:
    """What, where, and the valid values; no traceback, no key, no request."""
    result = project.run("--llm-tune", f"--llm-endpoints={given}")
    result.assert_outcomes(failed=1)
    text = " ".join(result.stdout.str().split())
    assert said in text
    assert "Traceback" not in text
    assert "SECRET" not in text
    assert project.server.count == 0
