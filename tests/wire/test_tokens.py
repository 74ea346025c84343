"""From exchanges to answers and honest token counts, whatever the server reports."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmtune.types import Choice, Exchange, Usage
from pytest_llmtune.wire.response import answers_in
from pytest_llmtune.wire.tokens import (
    COUNTED,
    annotated,
    completion_of,
    estimated_prompt,
    reports_one_choice_only,
    suspicious,
    verdict,
    with_counted_mark,
)

SHORT = "yes"
LONG = "The quick brown fox jumps over the lazy dog and runs back to its den in the old forest. "  # 88 bytes


def choice_of(text: str, reason: str = "stop", **more: Any) -> dict[str, Any]:
    return {"finish_reason": reason, "message": {"role": "assistant", "content": text}} | more


def answered(
    *choices: str | dict[str, Any],
    completion: int | None = None,
    prompt: int = 10,
    limit: int | None = None,
    **usage: Any,
) -> Exchange:
    """One exchange; ``completion`` None: the server reports no usage."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "q" * 30}], "n": len(choices)}
    if limit is not None:
        body["max_tokens"] = limit
    listed = [choice_of(choice) if isinstance(choice, str) else choice for choice in choices]
    response: dict[str, Any] = {"model": "served", "choices": listed}
    if completion is not None:
        response["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion} | usage
    return Exchange("POST", "http://h/v1/chat/completions", body, response, latency=0.5)


def test_a_whole_exchange_bills_what_it_reports() -> None:
    """All choices of an honest server: its own numbers, exact, cached tokens and all."""
    exchange = answered("a b c", "d e", completion=9, prompt_tokens_details={"cached_tokens": 4})
    completion = completion_of([exchange], 2)
    assert completion.usage == Usage(10, 9, 4)
    assert [choice.text for choice in completion.choices] == ["a b c", "d e"]
    assert (completion.served_model, completion.latency, completion.exchanges) == ("served", 0.5, (exchange,))


def test_the_only_choice_has_an_exact_length() -> None:
    """The tokens of a response with one choice are that choice's; of several they are not known one by one."""
    assert completion_of([answered("abc", completion=7)], 1).choices == (Choice("abc", "stop", 7),)
    assert [choice.tokens for choice in completion_of([answered("a", "b", completion=7)], 2).choices] == [None, None]


def test_logprobs_name_every_token() -> None:
    """Where the request asked for logprobs, each choice's length is known."""
    logged = [choice_of("a b", logprobs={"content": [{}] * n}) for n in (2, 5)]
    completion = completion_of([answered(*logged, completion=7)], 1)
    assert completion.choices == (Choice("a b", "stop", 2),)
    assert completion.usage == Usage(10, 2)


def test_a_part_of_an_exchange_bills_its_share() -> None:
    """Two of four answers bill the prompt, and of the tokens a share by their length, marked as an estimate."""
    exchange = answered("a" * 40, "b" * 20, "c" * 20, "d" * 20, completion=25)
    first, second = completion_of([exchange], 2), completion_of([exchange], 2, skip=2)
    assert (first.usage, second.usage) == (Usage(10, 15, estimated=True), Usage(10, 10, estimated=True))
    assert [choice.text[0] for choice in second.choices] == ["c", "d"]


@given(
    st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=6), min_size=1, max_size=4),
    st.data(),
)
def test_parts_add_up_to_the_whole(sizes: list[list[int]], data: st.DataObject) -> None:
    """However the answers of some exchanges are cut into parts, no token is lost or billed twice."""
    exchanges = [answered(*("x" * size for size in part), completion=sum(part) // 4 + len(part)) for part in sizes]
    everything = sum(len(part) for part in sizes)
    cut = data.draw(st.integers(1, everything))
    whole = completion_of(exchanges, everything)
    parts = [completion_of(exchanges, cut)]
    if cut < everything:
        parts.append(completion_of(exchanges, everything - cut, skip=cut))
    assert [c.text for part in parts for c in part.choices] == [c.text for c in whole.choices]
    assert sum(part.usage.completion_tokens for part in parts) == whole.usage.completion_tokens


def test_the_prompt_is_billed_once_a_request() -> None:
    """Twenty answers from a server that gives eight at most are three requests; pieces of a pool are no more."""
    split = [answered(*"abcdefgh", completion=8), answered(*"abcdefgh", completion=8), answered(*"abcd", completion=4)]
    assert completion_of(split, 20).usage == Usage(30, 20)
    pieces = [answered(*"abcde", completion=5), answered("a", completion=1), answered(*"abcd", completion=4)]
    assert completion_of(pieces, 10).usage == Usage(20, 10)
    assert completion_of(pieces, 10, max_n=10).usage == Usage(10, 10)
    assert completion_of(pieces, 10, max_n=1).usage.prompt_tokens == 30  # no more than was ever billed


def test_answers_that_were_wanted_later_show_no_limit() -> None:
    """One answer and then three more are what one request for four brings; four and then one may be a server's limit."""
    one, three = answered("a", completion=1), answered(*"bcd", completion=3)
    assert completion_of([one, three], 4).usage == Usage(10, 4)
    assert completion_of([three, one], 4).usage == Usage(20, 4)
    assert completion_of([one, one], 2).usage == Usage(20, 2)
    assert completion_of([one, three, answered(*"efghi", completion=5)], 9).usage == Usage(10, 9)


def test_a_server_that_counts_one_short_answer_is_seen() -> None:
    """Eight non-empty answers cannot have two tokens together; equal answers have equally many."""
    exchange = answered(*["yes"] * 8, completion=2)
    assert reports_one_choice_only(exchange)
    assert completion_of([exchange], 8).usage == Usage(10, 16)
    assert [choice.tokens for choice in completion_of([exchange], 8).choices] == [2] * 8


def test_a_server_that_counts_one_cut_answer_is_seen() -> None:
    """Three answers cut at 40 tokens have 120, not the 40 reported: exact, no estimate."""
    exchange = answered(*(choice_of(LONG, "length") for _ in range(3)), completion=40, limit=40)
    assert completion_of([exchange], 3).usage == Usage(10, 120)


def test_a_stopwatch_of_one_choice_is_a_proof() -> None:
    """llama.cpp times each choice by itself: as many tokens timed as reported for two choices means one was counted."""
    exchange = answered(LONG, LONG, completion=22)
    timed = replace(exchange, response={**exchange.response, "timings": {"predicted_n": 22}})
    assert not reports_one_choice_only(exchange)  # 8 bytes a token: possible
    assert reports_one_choice_only(timed)
    assert suspicious(timed)
    assert completion_of([timed], 2).usage == Usage(10, 44)
    summed = replace(exchange, response={**exchange.response, "timings": {"predicted_n": 11}})
    assert not reports_one_choice_only(summed)
    text = with_counted_mark(json.dumps(exchange.request), json.dumps(timed.response))
    assert json.loads(text)["usage"][COUNTED] == 1
    assert with_counted_mark(json.dumps(exchange.request), json.dumps(summed.response)) == json.dumps(summed.response)


def test_estimates_take_the_densest_rate_that_is_known() -> None:
    """Korean has more tokens a byte than the English beside it: the rate of the cut answer, which is known, wins."""
    korean = "서울은 대한민국의 수도입니다. " * 3
    exchange = answered(LONG, choice_of(korean, "length"), choice_of(korean[:40]), completion=20, limit=90)
    size = len(korean[:40].encode())
    assert completion_of([exchange], 3).usage == Usage(10, 20 + 90 + -(-90 * size // len(korean.encode())) + 1, 0, True)


def test_a_short_answer_says_nothing_about_the_rate() -> None:
    """Two tokens for "yes" do not make 60 of a sentence of 88 bytes."""
    exchange = answered("yes", LONG, "no", completion=2)
    assert completion_of([exchange], 3).usage == Usage(10, 2 + 31 + 2, estimated=True)


def test_long_texts_with_implausibly_few_tokens_are_seen() -> None:
    """Without any other proof, more than twelve bytes a token mean that one choice was counted."""
    exchange = answered(*[LONG] * 3 + [LONG + "Indeed."], completion=20)
    assert reports_one_choice_only(exchange)
    usage = completion_of([exchange], 4).usage
    assert usage.estimated
    assert 80 <= usage.completion_tokens <= 84


@pytest.mark.parametrize(
    "exchange",
    [
        answered(LONG, completion=8),  # one choice: nothing else to count
        answered(LONG, LONG, completion=44),
        answered(choice_of(LONG, "length"), choice_of(SHORT), completion=41, limit=40),
        answered(choice_of(LONG, "length"), choice_of(LONG, "length"), completion=46, limit=40),
        answered("", "", completion=0),
        answered(LONG, LONG),
        answered(*["====" * 30] * 2, completion=12, **{COUNTED: 2}),
    ],
    ids=[
        "one choice",
        "all counted",
        "one cut",
        "both cut by the context window",
        "nothing said",
        "no usage",
        "known to be honest",
    ],
)
def test_honest_servers_are_believed(exchange: Exchange) -> None:
    """No honest report is taken for an undercount."""
    assert not reports_one_choice_only(exchange)


def test_a_note_beside_the_usage_decides() -> None:
    """What the live source found out is kept in the exchange and read again; the server's own numbers stay."""
    plain = answered(LONG, LONG + LONG, completion=22)
    noted = annotated(plain, counts_only_one=True)
    assert not reports_one_choice_only(plain)
    assert reports_one_choice_only(noted)
    assert noted.response["usage"]["completion_tokens"] == 22
    assert completion_of([noted], 2).usage == Usage(10, 22 + 45, estimated=True)
    assert annotated(plain, counts_only_one=False) is plain
    art = answered(*["=" * 400] * 2, completion=20)
    assert reports_one_choice_only(art)
    assert not reports_one_choice_only(annotated(art, counts_only_one=False))


def test_only_doubtful_responses_are_worth_a_probe() -> None:
    """More than four bytes a token over several choices is a reason to ask; one choice, or no usage, is none."""
    assert suspicious(answered(LONG, LONG, completion=30))
    assert not suspicious(answered(LONG, LONG, completion=44))
    assert not suspicious(answered(LONG, completion=2))
    assert not suspicious(answered(LONG, LONG))


@pytest.mark.parametrize(("tokens", "one"), [(1, True), (2, False), (3, False), (0, None)])
def test_the_probe_tells(tokens: int, one: bool | None) -> None:
    """Two answers of one token each: a report of one token is an undercount, of none it says nothing."""
    assert verdict(answered("H", "H", completion=tokens).response) is one
    assert verdict(answered("H", completion=tokens).response) is None


def test_missing_usage_is_estimated_on_the_high_side() -> None:
    """Without usage the tokens come from the bytes, three for each token and one to end, and say so."""
    completion = completion_of([answered(LONG, completion=None)], 1)
    assert completion.usage == Usage(3 + 4 + 10, 31, estimated=True)
    assert completion.choices[0].tokens is None
    assert completion_of([answered(choice_of(LONG, "length"), limit=25)], 1).usage.completion_tokens == 25
    assert completion_of([answered(LONG, limit=5)], 1).usage.completion_tokens == 5
    assert estimated_prompt({"messages": [{"content": "가나다"}, {"content": None}]}) == 3 + 4 + 3 + 4


def test_a_refused_prompt_is_n_refusals() -> None:
    """Azure's status 400 answers every choice with a refusal, and bills the prompt."""
    request = {"model": "m", "messages": [{"role": "user", "content": "q" * 30}], "n": 3}
    refusal = Exchange("POST", "u", request, {"error": {"code": "content_filter"}}, status=400)
    completion = completion_of([refusal], 3)
    assert answers_in(refusal) == 3
    assert completion.choices == (Choice("", "content_filter", 0),) * 3
    assert completion.usage == Usage(17, 0, estimated=True)


def test_hidden_reasoning_is_no_undercount() -> None:
    """A reasoning model reports far more tokens than its texts show."""
    completion = completion_of([answered("4", "4", completion=900)], 2)
    assert completion.usage == Usage(10, 900)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 99) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(
    JSON,
    st.lists(
        st.fixed_dictionaries({}, optional={"message": JSON, "finish_reason": JSON, "logprobs": JSON, "content": JSON})
        | JSON,
        min_size=1,
        max_size=3,
    ),
)
def test_a_stranger_s_recording_raises_nothing(usage: Any, choices: list[Any]) -> None:
    """Whatever stands in a response that has choices, it is read or counts as empty."""
    exchange = Exchange("POST", "u", {"messages": usage, "n": 1}, {"choices": choices, "usage": usage})
    completion = completion_of([exchange], len(choices))
    assert len(completion.choices) == len(choices)
    assert completion.usage.completion_tokens >= 0
