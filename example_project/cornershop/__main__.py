"""Try it against a running server: ``python -m cornershop mood "The lamp arrived broken."``"""

from __future__ import annotations

import argparse

from cornershop import desk, settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="cornershop", description="Ask the shop's assistant.")
    parser.add_argument("task", choices=("till", "mood", "korean"))
    parser.add_argument("text", help="a sum in words, or a customer's message")
    parser.add_argument("--product", default="상품", help="what a Korean message is about")
    given = parser.parse_args()
    client = settings.connect()
    if given.task == "till":
        print(desk.total(client, settings.chosen("till"), given.text))
    elif given.task == "mood":
        print(desk.mood(client, given.text))
    else:
        print(desk.korean_label(client, settings.chosen("korean"), given.product, given.text))


if __name__ == "__main__":
    main()
