"""What becomes of a customer's message about an order: one call of a model, and a second one if it is a complaint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cornershop.answers import stated_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openai import OpenAI

__all__ = ["REPLIES", "handle"]

REPLIES = {"delivery": "trace", "product": "replace"}
"""What a complaint is about, and what the shop does: look for the parcel, or send the thing again."""

_MOODS = (
    ("The towels are soft and I love them.", "positive"),
    ("The package with my lamp never came, I am angry.", "negative"),
    ("The bell is broken, a waste of money.", "negative"),
    ("Thank you for the quick help, wonderful shop!", "positive"),
    ("I still wait for my stamps. How disappointing.", "negative"),
    ("My sister is so happy with the drum. Great quality!", "positive"),
)
_TOPICS = (
    ("The package with my lamp never came, I am angry.", "delivery"),
    ("The bell is broken, a waste of money.", "product"),
    ("The shirt is torn and I am disappointed.", "product"),
    ("I still wait for my stamps. How disappointing.", "delivery"),
    ("The parcel should have been here last week!", "delivery"),
    ("The pen does not write, I am upset.", "product"),
)


def handle(message: str, config: Mapping[str, Any], client: OpenAI) -> str:
    """``thank``, ``trace`` or ``replace``: what to do about a message; ``ask`` where the model cannot be understood.

    Args:
        config: ``mood_model`` and ``topic_model``, ``temperature``, and in ``examples`` how many a prompt shows.
        client: of OpenAI.
    """
    shown = config["examples"]
    mood = _ask(client, config, config["mood_model"], "The customer is", _MOODS[:shown], message)
    if mood == "positive":
        return "thank"
    topic = _ask(client, config, config["topic_model"], "Topic:", _TOPICS[:shown], message)
    return REPLIES.get(topic or "", "ask")


def _ask(
    client: OpenAI,
    config: Mapping[str, Any],
    model: str,
    question: str,
    examples: tuple[tuple[str, str], ...],
    message: str,
) -> str | None:
    """The label that the model states; None where it states none of the examples' labels."""
    turns: list[Any] = []
    for text, label in examples:
        turns += [_turn("user", f"Message: {text}\n{question}"), _turn("assistant", label)]
    response = client.chat.completions.create(
        model=model,
        temperature=config["temperature"],
        max_tokens=8,
        stop=["\n", "<|im_end|>"],
        messages=[*turns, _turn("user", f"Message: {message}\n{question}")],
    )
    return stated_label(response.choices[0].message.content or "", sorted({label for _, label in examples}))


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
