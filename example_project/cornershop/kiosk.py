"""The kiosk at the door: a small machine with bare Python, so it asks the model with the standard library alone."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import TYPE_CHECKING, Any

from cornershop.answers import boxed_number, elect

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["price_check"]


def price_check(config: Mapping[str, Any], problem: str) -> str:
    """What the kiosk shows for a sum told in words."""
    messages = [{**message, "content": message["content"].format(problem=problem)} for message in config["messages"]]
    request = urllib.request.Request(  # a server of ours
        os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8090/v1") + "/chat/completions",
        data=json.dumps({**config, "messages": messages}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}",
        },
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        choices = json.load(response)["choices"]
    total = elect(boxed_number(choice["message"]["content"]) for choice in choices)
    return "please ask at the till" if total is None else f"That makes {total}."
