"""The pages about providers: their variables, against a server on loopback in the provider's shape."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.live import Live, request
from support.llm_server import LLMServer

from pytest_llmtune.completions.endpoint_files import endpoints_of
from pytest_llmtune.completions.source import LiveSource
from pytest_llmtune.money.prices import PriceBook

PAGES = Path(__file__).parents[2] / "docs" / "providers"
SHAPES: dict[str, tuple[str, dict[str, Any], str]] = {
    "openai": ("gpt-4o-mini", {}, "/v1/chat/completions"),
    "azure": ("gpt-4o-mini", {}, "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21"),
    "anthropic": (
        "claude-sonnet-4-5",
        {"max_n": 1, "n_message": "n: Must be exactly 1"},
        "/v1/chat/completions",
    ),
    "gemini": ("gemini-2.5-flash", {}, "/v1beta/openai/chat/completions"),
    "ollama": ("llama3.2:1b", {"ignore_n": True}, "/v1/chat/completions"),
    "vllm": ("qwen", {}, "/v1/chat/completions"),
    "llama-cpp": (
        "local",
        {
            "max_n": 2,
            "usage": "llama.cpp",
            "n_message": "Field 'n': Value must be between 1 <= value <= {max_n}, but got {n}",
        },
        "/v1/chat/completions",
    ),
    "litellm": ("fast", {}, "/chat/completions"),
    "openrouter": ("openai/gpt-4o-mini", {"ignore_n": True}, "/api/v1/chat/completions"),
}
"""By page: a model it names or stands for, how the server behaves, and the path that must be asked."""


def test_every_page_is_tried() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} - {"index"} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_the_variables_are_enough(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three responses come from the page's address and with its key, priced by the page or by genai-prices."""
    model, shape, asked = SHAPES[name]
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^export (\w+)=(.*)$", text, re.MULTILINE))
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    own = next((block["prices"] for block in blocks if isinstance(block, dict)), {})
    key = next((value for variable, value in variables.items() if variable.endswith("_KEY")), "none")
    with LLMServer("42", api_key=key if key != "none" else None, **shape) as server:
        for variable, value in variables.items():
            if value.startswith("http"):
                variables[variable] = re.sub(r"^https?://[^/]+", server.root_url, value)
        if name == "openai":
            monkeypatch.setattr("pytest_llmtune.completions.endpoint_files.OPENAI_URL", server.base_url)
        source = LiveSource(endpoints_of(None, base_url=None, root=tmp_path, environ=variables), prices=PriceBook(own))
        [completion] = Live.run(source, request(n=3, model=model))
    assert completion.texts == ("42", "42", "42")
    assert set(server.paths) == {asked}
    assert completion.paid > 0
    assert completion.usage.completion_tokens == 3


@pytest.mark.parametrize("name", ["azure", "anthropic"])
def test_the_lists_of_endpoints_are_read(name: str, tmp_path: Path) -> None:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    [listed] = re.findall(r"^```yaml\n(- .*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "endpoints.yaml").write_text(listed, encoding="utf-8")
    environ = {"AZURE_OPENAI_API_KEY": "k", "OPENAI_API_KEY": "k"}
    [endpoint] = endpoints_of("endpoints.yaml", root=tmp_path, environ=environ)
    if name == "azure":
        assert "/deployments/my-deployment/" in endpoint.url("gpt-4o-mini")
    else:
        assert endpoint.max_n == 1
