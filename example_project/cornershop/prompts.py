"""What the shop's assistant may say to a model.

Each list is a choice: ``pytest --llm-tune`` finds out which of its prompts works best.
The models are small, so most prompts show the task by a few solved cases, as turns of a conversation.
``{problem}``, ``{상품}`` (product) and ``{문의}`` (message) are columns of the data; literal braces are doubled.
"""

from __future__ import annotations

__all__ = ["KOREAN", "TILL"]

Messages = list[dict[str, str]]


def _by_example(cases: list[tuple[str, str]], question: str) -> Messages:
    turns = [turn for asked, answer in cases for turn in (_turn("user", asked), _turn("assistant", answer))]
    return [*turns, _turn("user", question)]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


_SUMS = [
    ("Ann buys 2 pens and 3 books. How many items does she buy?", "2 + 3 = 5. The answer is \\boxed{{5}}."),
    (
        "A pie costs 4 dollars and a drink costs 2 dollars. How many dollars do they cost together?",
        "4 + 2 = 6. The answer is \\boxed{{6}}.",
    ),
    (
        "Ron buys 1 knife, 4 forks and 3 spoons. How many things does he buy?",
        "1 + 4 + 3 = 8. The answer is \\boxed{{8}}.",
    ),
    ("The shop sells 4 cans and then 5 more. How many cans does it sell?", "4 + 5 = 9. The answer is \\boxed{{9}}."),
]

TILL: list[Messages] = [
    [_turn("user", "{problem} Put the final answer in \\boxed{{}}.")],
    _by_example(_SUMS[:2], "{problem}"),
    _by_example(_SUMS, "{problem}"),
]
"""Sums at the till; the answer stands in \\boxed{}."""

_LABELLED = [
    ("빗", "빗이 예쁘고 좋아요.", "칭찬"),
    ("바지", "바지가 찢어져서 왔어요. 화가 나요.", "불만"),
    ("건전지", "금방 닳아요. 실망이에요.", "불만"),
    ("장갑", "따뜻하고 선물하기 좋아요. 감사해요.", "칭찬"),
]


def _korean(form: str) -> Messages:
    cases = [(form.format(상품=product, 문의=message), label) for product, message, label in _LABELLED]
    return _by_example(cases, form)


KOREAN: list[Messages] = [
    _korean("상품: {상품}\n문의: {문의}\n분류:"),
    _korean("[{상품}] {문의}"),
    _korean("{문의}"),
]
"""Is a message praise (칭찬) or a complaint (불만)?"""
