"""The figures of a search as plotly data."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from support.results import compared, lock, report, scores

from pytest_llmtune._util.text import label
from pytest_llmtune.guard.lockfile import Measured, StudySummary, TrialSummary
from pytest_llmtune.guard.verdict import Criteria
from pytest_llmtune.report.html.charts import pareto, progress, quality, spending


def trial(number: int, cost: str | None, score: float | None, spent: str = "0.1") -> TrialSummary:
    measured = None if score is None else Measured(score, score - 0.1, score + 0.1)
    return TrialSummary(number, {"model": f"m{number}"}, measured, cost and Decimal(cost), Decimal(spent), "done")


def study(*trials: TrialSummary, **keys: object) -> StudySummary:
    return StudySummary(trials, Decimal(1), "num_samples", winner=2, **keys)  # type: ignore[arg-type]


TRIALS = (trial(1, "0.001", 0.5), trial(2, "0.002", 0.8), trial(3, "0.003", 0.7), trial(4, None, None))


def figure(**keys: object) -> dict[str, dict[str, object]]:
    made = quality(report(scores(1), study=study(*TRIALS, inference_budget=Decimal("0.004")), **keys))
    assert made is not None
    return {trace["name"]: trace for trace in made["data"]} | {"layout": made["layout"]}


def test_every_trial_with_a_score_is_a_point() -> None:
    """Trials, winner, baselines and front are traces of their own; a failed trial is no point."""
    traces = figure(compared=(compared("untuned", 0.4, "0.0005"),))
    assert (traces["trials"]["x"], traces["trials"]["y"]) == ([1, 3], [0.5, 0.7])
    assert (traces["winner"]["x"], traces["winner"]["y"]) == ([2], [0.8])
    assert traces["baselines"]["x"] == [0.5]
    assert traces["Pareto front"]["x"] == [1, 2]


def test_intervals_are_error_bars_and_words() -> None:
    """Each point shows how sure its score is, as a bar and when hovered over; without an interval it shows none."""
    known, unknown = Measured(0.5, 0.25, 0.875), Measured(0.5)
    trials = [TrialSummary(i, {}, score, Decimal(1), Decimal(1), "done") for i, score in enumerate((known, unknown))]
    made = quality(report(scores(1), study=study(*trials)))
    assert made is not None
    bars = made["data"][1]["error_y"]
    assert (bars["array"], bars["arrayminus"]) == ([0.375, 0], [0.25, 0])
    assert made["data"][1]["text"] == [
        "trial 0 (done)<br>0.5 (0.25 to 0.875) at $1000.00 per 1,000 instances",
        "trial 1 (done)<br>0.5 at $1000.00 per 1,000 instances",
    ]


def test_a_trial_without_a_cost_or_a_score_is_no_point() -> None:
    """Half a result cannot be drawn."""
    made = quality(report(scores(1), study=study(trial(1, None, 0.5), trial(3, "1", None), trial(4, "1", 0.5))))
    assert made is not None
    assert [trace["x"] for trace in made["data"]] == [[1000], [1000]]


def test_the_budget_is_a_line_with_its_name() -> None:
    """The inference budget crosses the figure, and is named with its dollars."""
    layout = figure()["layout"]
    assert layout["shapes"][0]["x0"] == layout["shapes"][0]["x1"] == 4  # type: ignore[index]
    assert layout["annotations"][0]["text"] == "inference budget $4.00"  # type: ignore[index]


def test_a_wide_range_of_costs_is_logarithmic() -> None:
    """Costs over several magnitudes are spread out, and the budget's name follows the axis."""
    made = quality(
        report(scores(1), study=study(trial(1, "0.0001", 0.5), trial(2, "0.1", 0.8), inference_budget=Decimal("0.01")))
    )
    assert made is not None
    assert made["layout"]["xaxis"]["type"] == "log"
    assert made["layout"]["annotations"][0]["x"] == 1


def test_hovering_shows_the_configuration_as_text() -> None:
    """Plotly reads a little HTML, so a prompt's tags are escaped."""
    made = quality(
        report(
            scores(1),
            study=study(TrialSummary(1, {"prompt": "<b>{x}</b>"}, Measured(1), Decimal(1), Decimal(1), "done")),
        )
    )
    assert made is not None
    assert made["data"][1]["text"] == [
        "trial 1 (done)<br>1 at $1000.00 per 1,000 instances<br>prompt: &lt;b&gt;{x}&lt;/b&gt;"
    ]


def test_without_scored_trials_there_is_no_figure() -> None:
    """A replay without a study, or one in which every trial failed, has nothing to draw."""
    assert quality(report(scores(1))) is None
    assert quality(report(scores(1), study=study(trial(1, None, None)))) is None
    assert spending(None) is None
    assert spending(study()) is None


def test_spending_adds_up() -> None:
    """Each point is the sum of all trials so far; the optimization budget is a line."""
    made = spending(study(trial(1, "1", 1, "0.25"), trial(2, "1", 1, "0.5"), optimization_budget=Decimal(2)))
    assert made is not None
    assert made["data"][0]["y"] == [0.25, 0.75]
    assert made["layout"]["annotations"][0]["text"] == "optimization budget $2.00"


points = st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0.1, 0.2, 0.3, 0.4])), min_size=1)


@given(points, st.sampled_from(["max", "min"]))
def test_the_front_is_what_nothing_beats(pairs: list[tuple[int, float]], mode: str) -> None:
    """No trial is at least as good in both and better in one than a trial on the front; every other one is beaten."""
    sign = 1 if mode == "max" else -1
    trials = [trial(number, str(cost), score) for number, (cost, score) in enumerate(pairs)]
    front = {(float(t.inference_cost or 0), t.score.value if t.score else 0.0) for t in pareto(trials, mode)}

    def beaten(point: tuple[float, float]) -> bool:
        return any(
            cost <= point[0] and sign * score >= sign * point[1] and (cost, score) != point for cost, score in pairs
        )

    assert front == {(float(cost), score) for cost, score in pairs if not beaten((cost, score))}


def test_a_configuration_is_one_line() -> None:
    """The model first, then parameters, then the beginning of the prompt."""
    config = {"n": 2, "prompt": "a\n" + "b" * 500, "model": "m", "stop": ["\n"]}
    assert label(config).startswith("m, n=2, stop=['\\n'], prompt: a\\nb")
    assert len(label(config)) < 160


def test_mode_min_draws_the_lower_front() -> None:
    """Where less is better, the front is the lower edge."""
    made = quality(report(scores(1), criteria=Criteria(mode="min"), study=study(*TRIALS), baseline=lock(scores(1))))
    assert made is not None
    assert made["data"][0]["x"] == [1]


def test_a_far_budget_is_a_mark_at_the_edge() -> None:
    """The figure is scaled to the data: a line far off would press the points together."""
    made = quality(report(scores(1), study=study(*TRIALS, inference_budget=Decimal("0.01"))))
    assert made is not None
    assert made["layout"]["shapes"] == []
    assert made["layout"]["annotations"][0]["text"] == "inference budget $10.00 →"
    assert made["layout"]["annotations"][0]["xref"] == "paper"
    spent = spending(study(trial(1, "1", 1, "0.25"), optimization_budget=Decimal(2)))
    assert spent is not None
    assert spent["layout"]["annotations"][0]["text"] == "optimization budget $2.00 ↑"


def test_progress_has_the_best_so_far() -> None:
    """In the order of the trials; less is better where the mode says so, and a trial without a score is left out."""
    for mode, best in (("max", [0.5, 0.8, 0.8]), ("min", [0.5, 0.5, 0.5])):
        made = progress(study(*TRIALS), mode)
        assert made is not None
        assert [trace["y"] for trace in made["data"]] == [[0.5, 0.8, 0.7], best]
    assert progress(study(trial(1, None, None)), "max") is None
    assert progress(None, "max") is None
