"""Which parameter a refusal is about, in the words of several servers."""

from __future__ import annotations

import pytest

from pytest_llmtune.completions.failures import refused_parameter

SENT = ("temperature", "top_p", "max_tokens", "reasoning_effort", "stop")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is supported.", "temperature"),
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "top_p"),
        ("temperature: range: 0..1", ("temperature", 1.0)),
        ("Invalid 'temperature': decimal above maximum value. Expected a value <= 1.0, but got 2 instead.", ("temperature", 1.0)),
        ("max_tokens is too large: 5000. This model supports at most 4096 completion tokens.", ("max_tokens", 4096.0)),
        ("body.stop: Extra inputs are not permitted", "stop"),
        ("Unsupported value (parameter reasoning_effort)", "reasoning_effort"),
        ("This model's maximum context length is 4097 tokens.", None),
        ("stopped: unsupported", None),
    ],
)  # fmt: skip
def test_the_parameter_and_the_most_it_takes(said: str, found: str | tuple[str, float] | None) -> None:
    wanted = (found, None) if isinstance(found, str) else found
    assert refused_parameter(f"big at http://x: HTTP 400: {said}", SENT) == wanted
    assert refused_parameter(f"big at http://x: HTTP 500: {said}", SENT) is None
