"""What becomes of a customer's order: two calls of a model with a look-up between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openai import OpenAI

__all__ = ["ORDERS", "REPLIES", "handle"]

ORDERS = {"A1": "sent", "A2": "lost", "B3": "sent", "B4": "lost", "C5": "packed", "C6": "packed"}
"""Number of an order to its state; a shop has this in a database."""
REPLIES = ("wait", "refund", "cancel")

_READ = (
    ("Has parcel A2 left?", "A2"),
    ("I still wait for C5.", "C5"),
    ("My friend says B3 is late.", "B3"),
    ("What is with order A1?", "A1"),
)
_DECIDE = (("lost", "refund"), ("sent", "wait"), ("packed", "cancel"), ("lost", "refund"))


def handle(message: str, config: Mapping[str, Any], client: OpenAI) -> str:
    """``wait``, ``refund`` or ``cancel``: what to answer to a message about an order.

    Args:
        config: ``model``, ``temperature``, and in ``examples`` how many examples each prompt shows.
        client: of OpenAI.
    """
    shown = config["examples"]
    order = _ask(client, config, "Message", "Order", _READ[:shown], message, tuple(ORDERS))
    return _ask(client, config, "State", "Reply", _DECIDE[:shown], ORDERS[order], REPLIES)


def _ask(
    client: OpenAI,
    config: Mapping[str, Any],
    question: str,
    answer: str,
    examples: tuple[tuple[str, str], ...],
    asked: str,
    choices: tuple[str, ...],
) -> str:
    """One of the choices; the schema leaves a small model no other way."""
    lines = [f"{question}: {given}\n{answer}: {said}" for given, said in examples]
    response = client.chat.completions.create(
        model=config["model"],
        temperature=config["temperature"],
        max_tokens=8,
        messages=[{"role": "user", "content": "\n".join([*lines, f"{question}: {asked}\n{answer}:"])}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "choice", "schema": {"type": "string", "enum": list(choices)}},
        },
    )
    return (response.choices[0].message.content or "").strip().strip('"')
