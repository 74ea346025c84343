"""The search's parts: arms, scores of pooled samples, beliefs, proposals and the study's log."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmtune.errors import SuiteError
from pytest_llmtune.grading import grade_answers, resolve
from pytest_llmtune.suite import Suite, choice, lograndint, randint, uniform
from pytest_llmtune.tuning.allocation import blocks_of
from pytest_llmtune.tuning.costs import Cost
from pytest_llmtune.tuning.journal import StudyLog
from pytest_llmtune.tuning.proposals import Arm, Proposals, arm_space, coarse, families_of
from pytest_llmtune.tuning.samples import Sample, Scorer, voted
from pytest_llmtune.tuning.selection import predicted
from pytest_llmtune.tuning.study import _paid_now
from pytest_llmtune.tuning.surrogate import Encoder, Kernel, Points, Posterior, Scored, Surrogate
from pytest_llmtune.types import Answer, Completion, CompletionRequest, Exchange, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_llmtune.suite.domains import Range


def suite(**keys: Any) -> Suite:
    given = {
        "name": "s",
        "dataset": [{"q": "1", "answer": "1"}],
        "prompt": ["{q}", "{q}!"],
        "model": ["a", "b"],
        "temperature": uniform(0, 1),
        "n": randint(1, 9),
        "max_tokens": lograndint(50, 1000),
        "stop": choice(["x", ["y", "z"]]),
        "grader": "exact",
        "prices": {"a": {"input": 1, "output": 1}, "b": {"input": 1, "output": 1}},
    }
    return Suite(**given | keys)


def arm(space_of: Suite, **params: Any) -> Arm:
    space = space_of.space
    return Arm({"model": "a", **params}, space.templates[0], families_of(space)["a"])


@pytest.mark.parametrize(
    ("n", "counts"),
    [
        (3, (3,)),
        ([5, 1], (1, 5)),
        (randint(1, 5), (1, 2, 3, 4)),
        (randint(2, 41), (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 40)),
    ],
)
def test_numbers_of_answers_worth_telling_apart(n: Any, counts: tuple[int, ...]) -> None:
    """All small ones, then steps of about a fifth, the ends among them; only what the domain allows."""
    assert families_of(suite(n=n).space)["a"].counts == counts


def test_samples_are_drawn_with_the_longest_limit() -> None:
    """A shorter one is a candidate, and so are only those of the domain."""
    family = families_of(suite(max_tokens=lograndint(100, 801)).space)["a"]
    assert family.longest == 800
    assert family.shorter == (565, 400, 282, 200, 141, 100)
    assert families_of(suite(max_tokens=[64, 16, 32]).space)["a"].shorter == (32, 16)
    assert families_of(suite(max_tokens=None, n=1).space)["a"].longest is None


def test_an_arm_is_the_same_whatever_n_and_limit() -> None:
    """Its key pools samples; its configuration has n and limit, and is in the space."""
    whole = suite()
    one = arm(whole, temperature=0.5, stop="x")
    assert one.key == arm(whole, temperature=0.5, stop="x").key != arm(whole, temperature=0.6, stop="x").key
    config = one.config(4, 200)
    assert (config.n, config.params["max_tokens"]) == (4, 200)
    assert whole.space.why_not(config) is None
    assert whole.space.why_not(one.config()) is None


SAMPLES = st.lists(
    st.tuples(st.sampled_from(["right", "wrong", "other", None]), st.integers(1, 9)), min_size=1, max_size=5
)


def samples_of(drawn: list[tuple[str | None, int]]) -> list[Sample]:
    return [Sample("", size, True, Answer(key, str(key), key == "right")) for key, size in drawn]


@settings(max_examples=60)
@given(SAMPLES, st.sampled_from(["success_vote", "success", "expected_success"]))
def test_the_score_of_n_is_that_of_draws_of_n(drawn: list[tuple[str | None, int]], metric: str) -> None:
    """Against every ordered draw of n samples, graded as the guard grades them."""
    samples = samples_of(drawn)
    counts = range(1, len(samples) + 3)
    found = voted(samples, counts, metric, random.Random(0))
    assert set(found) == set(range(1, len(samples) + 1))
    for n, value in found.items():
        every = [
            grade_answers([sample.answer for sample in draw if sample.answer]).metrics[metric]
            for draw in itertools.permutations(samples, n)
        ]
        exact = metric != "success_vote" or n in (1, len(set(drawn)) == 1 and n)
        assert value == pytest.approx(sum(every) / len(every), abs=1e-9 if exact else 0.51)


def test_votes_of_many_draws_come_near_the_truth() -> None:
    """Sixteen orders of ten samples: within 0.15 of all draws of three."""
    samples = samples_of([("right", 1)] * 6 + [("wrong", 1)] * 3 + [(None, 1)])
    exact = [
        grade_answers([s.answer for s in draw if s.answer]).metrics["success_vote"]
        for draw in itertools.permutations(samples, 3)
    ]
    found = [voted(samples, [3], "success_vote", random.Random(seed))[3] for seed in range(20)]
    assert sum(found) / 20 == pytest.approx(sum(exact) / len(exact), abs=0.05)
    assert max(abs(value - sum(exact) / len(exact)) for value in found) < 0.35


@given(st.integers(1, 500))
def test_blocks_hold_every_row_once(rows: int) -> None:
    """They grow, and follow each other without a gap."""
    blocks = blocks_of(rows)
    assert list(itertools.chain(*blocks)) == list(range(rows))
    assert all(blocks)


def points(*configs: tuple[int, float, int, float]) -> Points:
    """(model, temperature, n, USD): one arm for each model and temperature."""
    arms = {(model, continuous): place for place, (model, continuous, _, _) in enumerate(configs)}
    return Points(
        np.array([[model, 0] for model, *_ in configs]),
        np.array([[continuous] for _, continuous, *_ in configs]),
        np.log2([n for _, _, n, _ in configs]),
        np.array([arms[model, continuous] for model, continuous, *_ in configs]),
        np.log2([cost for *_, cost in configs]),
    )


def seen(configs: Points, means: list[float], rows: int = 20) -> Scored:
    count = len(means)
    return Scored(
        configs, np.zeros(count, dtype=np.int64), np.full(count, float(rows)), np.ones(count), np.array(means)
    )


def posterior_of(scored: Scored, wanted: Points) -> Posterior:
    return Surrogate.of(scored, 0.25, Kernel()).posterior(wanted)


def test_belief_is_shared_between_neighbours() -> None:
    """A lucky score is drawn towards its neighbours', and an unseen neighbour of a good model is believed good."""
    known = points((0, 0.1, 1, 1), (0, 0.2, 1, 1), (0, 0.3, 1, 1), (1, 0.1, 1, 1), (1, 0.2, 1, 1))
    scored = seen(known, [0.5, 0.9, 0.5, 0.3, 0.3])
    wanted = points((0, 0.1, 1, 1), (0, 0.2, 1, 1), (0, 0.25, 1, 1), (1, 0.25, 1, 1))
    posterior = posterior_of(scored, wanted)
    assert 0.5 < posterior.mean[0] < posterior.mean[1] < 0.9
    assert posterior.mean[2] > posterior.mean[3] + 0.05
    assert posterior.spread[1] < posterior.spread[2]


def test_dearer_is_believed_better_until_shown_otherwise() -> None:
    """The slope orders what is unseen; twenty rows turn it around."""
    nothing = posterior_of(seen(points((0, 0.1, 1, 1)), [0.5]), points((1, 0.1, 1, 1), (2, 0.1, 1, 4)))
    assert nothing.mean[1] > nothing.mean[0]
    known = points((1, 0.1, 1, 1), (2, 0.1, 1, 4))
    assert np.argmax(posterior_of(seen(known, [0.8, 0.2]), known).mean) == 0


def test_who_is_beaten_is_known_by_the_distance_from_the_best() -> None:
    """Four hundred rows put a bad model out of the race, two do not; the best is never beaten."""
    known = points((0, 0.1, 1, 1), (1, 0.1, 1, 1))
    sure, unsure = (posterior_of(seen(known, [0.9, 0.3], rows), known) for rows in (400, 2))
    assert sure.behind(3.0)[0] == unsure.behind(3.0)[0] == 0
    assert sure.behind(3.0)[1] > 0 > unsure.behind(3.0)[1]
    assert sure.take(np.array([1])).mean == sure.mean[1:]


def test_the_luck_of_rows_is_shared_by_what_is_alike() -> None:
    """Two temperatures on the same rows are hardly more than one of them; two models are."""
    near, far = points((0, 0.1, 1, 1), (0, 0.2, 1, 1)), points((0, 0.1, 1, 1), (1, 0.1, 1, 1))
    kernel = Kernel()
    own = kernel.luck(near, near)[0, 0]
    assert 0.8 < kernel.luck(near, near)[0, 1] / own < 1
    assert kernel.luck(far, far)[0, 1] / own < 0.6


def test_draws_repeat_with_the_seed_and_spread_as_believed() -> None:
    """Thompson sampling asks for joint draws."""
    known = points((0, 0.1, 1, 1), (1, 0.1, 1, 1))
    posterior = posterior_of(seen(known, [0.6, 0.4]), known)
    one, two = (posterior.draws(4000, np.random.default_rng(5)) for _ in range(2))
    assert (one == two).all()
    assert one.std(axis=0) == pytest.approx(posterior.spread, rel=0.1)
    assert one.mean(axis=0) == pytest.approx(posterior.mean, abs=0.02)


def test_arms_are_encoded_by_what_they_send() -> None:
    """Every choice is a category, every range a number from 0 to 1, and what is not sent is not a number."""
    plain = suite()
    encoder = Encoder(plain.space)
    one, other = arm(plain, temperature=0.25, stop="x"), arm(plain, temperature=0.5, stop=["y", "z"])
    assert encoder.continuous(one) == (0.25,)
    assert math.isnan(encoder.continuous(arm(plain, stop="x"))[0])
    differing = [a != b for a, b in zip(encoder.cell(one), encoder.cell(other), strict=True)]
    assert differing == [False, False, False, True]


@pytest.mark.filterwarnings("ignore")
def test_proposals_cover_models_and_prompts_first_and_repeat_with_the_seed() -> None:
    """Then BlendSearch's; all lie in the space, none comes twice, and the same seed proposes the same."""

    def proposed() -> list[Arm]:
        source = Proposals(suite().space, "max", seed=3)
        found = []
        for _ in range(12):
            new = source.next()
            assert new is not None
            source.report(new, 0.5, 0.01)
            found.append(new)
        return found

    first = proposed()
    assert {(new.model, new.template.fingerprint) for new in first[:4]} == {
        (model, template.fingerprint) for model in "ab" for template in suite().space.templates
    }
    assert all(suite().space.why_not(new.config()) is None for new in first)
    assert len({new.key for new in first}) == 12
    assert [new.key for new in proposed()] == [new.key for new in first]


@pytest.mark.filterwarnings("ignore")
def test_flaml_gives_no_advice(caplog: pytest.LogCaptureFixture) -> None:
    """Its log is not the user's: what is low in cost is our business."""
    with caplog.at_level("INFO"):
        source = Proposals(suite(temperature=uniform(0, 0.5)).space, "max")
        assert [source.next() for _ in range(20)][-1] is not None
    assert caplog.records == []


def test_a_small_space_is_searched_through() -> None:
    """Where every arm was proposed there is none left."""
    small = suite(temperature=[0, 1], stop="x", prompt="{q}")
    source = Proposals(small.space, "min")
    found = [new.key for new in iter(source.next, None)]
    assert len(found) == len(set(found)) == 4
    assert arm_space(suite(temperature=0, stop="x", model="a", prompt="{q}").space).is_constant


def request(key: str, n: int = 1) -> CompletionRequest:
    return CompletionRequest({}, n, key)


def test_a_killed_study_counts_what_it_paid_once(tmp_path: Path) -> None:
    """Its lines are read back, a torn one is left out, and another study begins anew."""
    path = tmp_path / "studies" / "s.jsonl"
    log = StudyLog.open(path, "one")
    log.note("k", 0, Decimal("0.25"))
    assert log.paid(request("k"), completion(1, paid="0.25")) == Decimal("0.25")
    log.note("k", 1, Decimal("0.4"))  # killed before it was stored: asked again
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "k2", "place": 0, "pa')
    StudyLog.open(path, "one").note("k3", 0, Decimal("0.1"))
    again = StudyLog.open(path, "one")
    assert again.paid(request("k3"), completion(1)) == Decimal("0.1")
    assert again.spent_earlier == Decimal("0.75")
    assert again.paid(request("k"), completion(1)) == Decimal("0.25")
    again.note("k", 1, Decimal("0.5"))
    assert again.paid(request("k", 3), completion(2, paid="0.5")) == Decimal("0.5")
    assert again.paid(request("k", 3), completion(2)) == 0
    assert again.paid(request("k2"), completion(1)) == 0
    assert StudyLog.open(path, "two").spent_earlier == 0
    assert _paid_now(Decimal("0.001"), again) == 0  # never -$0.749: some of what was paid for is not needed again


def completion(exchanges: int, paid: str = "0") -> Completion:
    exchange = Exchange("POST", "", {}, {})
    return Completion((), Usage(0, 0), (exchange,) * exchanges, paid=Decimal(paid))


@given(st.binary(max_size=200))
def test_any_file_may_lie_where_the_log_is(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """What is no log of ours is begun anew."""
    path = tmp_path_factory.mktemp("log") / "s.jsonl"
    path.write_bytes(b'{"study": "one"}\n' + content)
    assert StudyLog.open(path, "one").spent_earlier >= 0


@pytest.mark.parametrize(
    ("mean", "error", "z", "within"),
    [
        (0.96, 0.02, 1.0, True),
        (0.975, 0.02, 1.0, False),  # one error would be left, yet not 3 % of the budget
        (0.975, 0.01, 1.0, True),  # two errors are enough
        (0.985, 0.01, 1.0, False),
        (0.95, 0.06, 1.0, False),
        (0.99, 0.02, 0.0, True),  # the race asks them still
        (1.02, 0.03, -1.0, True),
        (1.04, 0.03, -1.0, False),
    ],
)
def test_a_cost_stays_below_its_budget_by_a_margin(mean: float, error: float, z: float, within: bool) -> None:
    assert Cost(mean, error).within(1.0, z) is within


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize(("seen", "guarded"), [(12, 40), (20, 30), (100, 100)])
def test_the_claim_holds_for_good_configurations_too(rate: float, seen: int, guarded: int) -> None:
    """Of 400 claims from some rows, 19 in 20 hold the score of other rows, also where hardly a row is ever wrong."""
    rng, held = random.Random(seen), 0
    for _ in range(400):
        claim = predicted([float(rng.random() < rate) for _ in range(seen)], guarded, scale=0.1)
        assert claim is not None
        assert claim.low is not None
        assert claim.high is not None
        assert claim.low <= claim.value <= claim.high
        held += claim.low <= sum(rng.random() < rate for _ in range(guarded)) / guarded <= claim.high
    assert held >= 0.95 * 400


def test_the_claim_for_a_metric_without_bounds() -> None:
    """It is centred on the mean, as wide as the rows differ, and narrower the more rows there are."""
    few, many = predicted([3.0, 5.0, 7.0], 3, scale=4.0), predicted([3.0, 5.0, 7.0] * 9, 27, scale=4.0)
    assert few is not None
    assert many is not None
    assert few.value == many.value == 5
    assert few.low is not None
    assert many.low is not None
    assert few.high == pytest.approx(10 - few.low)
    assert few.low < many.low < 5
    assert predicted([], 3, scale=4.0) is None


@pytest.mark.parametrize(
    ("name", "domain", "value", "rounded"),
    [
        ("temperature", uniform(0, 1), 0.234, 0.2),
        ("top_p", uniform(0.92, 1), 0.93, 0.93),  # 0.9 is not in the range
        ("penalty", uniform(0, 1), 0.234, 0.234),
        ("count", randint(1, 100), 33.7, 33),
        ("count", lograndint(1, 1000), 15.9, 15),
        ("count", lograndint(1, 1000), 100.3, 91),  # half octaves
        ("count", lograndint(1, 95), 94.9, 91),
        ("count", lograndint(100, 1000), 104.0, 104.0),  # 91 is not in the range
    ],
)
def test_values_are_rounded_to_what_few_rows_can_distinguish(
    name: str, domain: Range, value: float, rounded: float
) -> None:
    """Equal parameters share samples; what rounding takes out of the range stays as it is."""
    found = coarse(name, domain, value)
    assert found == rounded
    assert domain.contains(found) or found == value


def test_a_grader_without_the_metric_is_an_error_and_no_score() -> None:
    scorer, samples = Scorer(resolve("exact"), "elegance"), [Sample("1", 3, True), Sample("2", 3, False)]
    with pytest.raises(SuiteError, match="the grader exact gives no metric 'elegance'; it gives expected_success"):
        asyncio.run(scorer.scores(samples, (1, 2), {"answer": "1"}, random.Random(0), lambda _: pytest.fail("asks")))


def test_the_loss_of_a_shorter_limit_is_unknown_without_exact_lengths() -> None:
    right = Answer("1", "1", True)
    votes = Scorer(resolve("exact"), "success_vote")
    assert votes.cut([Sample("1", 3, False, right)], 10) is None
    assert votes.cut([Sample("1", 3, True, right), Sample("1", 30, True, right), Sample("1", 3, False)], 10) == 0.5
    assert Scorer(resolve("exact"), "elegance").cut([Sample("1", 3, True, right)], 10) is None
