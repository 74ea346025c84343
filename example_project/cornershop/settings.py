"""Where the app finds the server, and the configurations that tuning chose: the very files that its tests guard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from openai import OpenAI

__all__ = ["chosen", "connect"]

_LOCKS = Path(__file__).parent.parent / "tests" / "llmtune"


def chosen(task: str) -> dict[str, Any]:
    """The tuned configuration of ``till`` or ``korean``: OpenAI parameters and ``messages``."""
    text = (_LOCKS / f"{task}.lock.yaml").read_text(encoding="utf-8")
    config: dict[str, Any] = yaml.safe_load(text)["config"]
    return config


def connect() -> OpenAI:
    """A client for ``OPENAI_BASE_URL``; a server on this machine needs no real key."""
    base_url = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8090/v1")
    return OpenAI(base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
