"""The kiosk, which asks with the standard library alone: it is recorded and replayed as the other clients are."""

import pytest

from cornershop import settings
from cornershop.kiosk import price_check


@pytest.mark.llm_replay(max_calls=1, max_cost=0.001)
def test_the_kiosk_shows_the_total():
    problem = "A lamp costs 4 dollars and a bulb costs 3 dollars. How many dollars do they cost together?"
    assert price_check(settings.chosen("till"), problem) == "That makes 7."
