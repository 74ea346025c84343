"""The app itself, with the configurations that tuning chose. What the models said is recorded beside the tests."""

import pytest

from cornershop import desk, settings


@pytest.mark.llm_suite("till")
def test_the_till_adds_up(tuned_config, llm_client):
    problem = "Pia buys 2 plums and 3 kiwis. How many pieces of fruit does she buy?"
    assert desk.total(llm_client, tuned_config, problem) == 5


def test_an_unhappy_customer_gets_a_person(llm_client):
    assert desk.needs_a_person(llm_client, "The lamp is broken and nobody answers. I am angry.")


@pytest.mark.llm_suite("korean")
def test_korean_praise_is_praise(tuned_config, llm_client):
    assert desk.korean_label(llm_client, tuned_config, "모자", "모자가 예쁘고 정말 마음에 들어요.") == "칭찬"


@pytest.mark.llm_replay(max_cost=0.001, max_calls=2)
def test_a_thank_you_needs_no_person():
    """The app as it runs in the shop: its own client, its own settings."""
    assert not desk.needs_a_person(settings.connect(), "Thank you, the lamp is wonderful and I love it!")
