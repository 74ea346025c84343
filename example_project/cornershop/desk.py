"""What the shop's assistant does.

Each function takes an OpenAI client, and most take the configuration that tuning chose for their task. The moods' is a
cascade of two models, which ``moods.py`` runs: `llmtune export mood --to=python > cornershop/moods.py` wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cornershop import moods
from cornershop.answers import boxed_number, elect, stated_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openai import OpenAI

__all__ = ["KOREAN_LABELS", "MOODS", "ask", "korean_label", "mood", "needs_a_person", "total"]

MOODS = ("positive", "negative")
KOREAN_LABELS = ("칭찬", "불만")
"""Praise, complaint."""


def ask(client: OpenAI, config: Mapping[str, Any], **fields: str) -> list[str]:
    """All ``config["n"]`` answers of a model.

    Args:
        config: OpenAI parameters by their own names, and ``messages``, whose contents are filled with ``fields``.
    """
    messages: Any = [{**message, "content": message["content"].format(**fields)} for message in config["messages"]]
    parameters = {name: value for name, value in config.items() if name != "messages"}
    response = client.chat.completions.create(messages=messages, **parameters)
    return [choice.message.content or "" for choice in response.choices]


def total(client: OpenAI, config: Mapping[str, Any], problem: str) -> int | None:
    """The answer to a sum told in words; None where the model gives none."""
    return elect(boxed_number(answer) for answer in ask(client, config, problem=problem))


def mood(client: OpenAI, message: str) -> str | None:
    """``positive`` or ``negative``; None where the models do not say."""
    return elect(map(_mood, moods.complete(client, {"message": message}, _mood)))


def _mood(answer: str) -> str | None:
    return stated_label(answer, MOODS)


def needs_a_person(client: OpenAI, message: str) -> bool:
    """Whether somebody should answer this message at once: an unhappy customer, or one we cannot read."""
    return mood(client, message) != "positive"


def korean_label(client: OpenAI, config: Mapping[str, Any], product: str, message: str) -> str | None:
    """``칭찬`` (praise) or ``불만`` (complaint); None where the model does not say."""
    return elect(stated_label(answer, KOREAN_LABELS) for answer in ask(client, config, 상품=product, 문의=message))
