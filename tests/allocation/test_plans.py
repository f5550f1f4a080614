"""Schedules under a budget: dynamic programming against all counts, greedy and genetic against the optimum."""

from __future__ import annotations

import itertools
import math
import pathlib
from typing import Any

import numpy as np
import pytest

from tfmtl.allocation import LearningCurve, Phase, Schedule, StepCosts, fit_learning_curves, plan_schedule
from tfmtl.allocation.plans.exact import UNITS, exact
from tfmtl.allocation.plans.genetic import genetic
from tfmtl.allocation.plans.greedy import greedy
from tfmtl.allocation.plans.problem import Problem


def problem(seed: int, base: bool = True, concave: bool = False) -> Problem:
    """Return a random small problem; its costs are whole units of the budget."""
    rng = np.random.default_rng(seed)
    tasks, phases = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    steps = rng.exponential(size=(tasks, phases))
    steps = -np.sort(-steps, axis=1) if concave else steps
    values = np.concatenate([np.zeros([tasks, 1]), steps.cumsum(axis=1)], axis=1)
    budget = float(rng.integers(50, 400))
    unit = budget / UNITS
    costs = unit * rng.integers(1, UNITS // 2, tasks)
    return Problem(values, costs, unit * float(rng.integers(0, UNITS // 3)) if base else 0.0, budget)


def best(given: Problem) -> float:
    """Return the value of the best of all counts."""
    every = itertools.product(range(given.most + 1), repeat=len(given.costs))
    return max(given.value(np.array(c)) for c in every if given.fits(np.array(c)))


@pytest.mark.parametrize("concave", [False, True])
def test_dynamic_programming_is_the_best_of_all_counts(concave: bool) -> None:
    for seed in range(200):
        given = problem(seed, concave=concave)
        found = exact(given)
        assert given.fits(found)
        assert given.value(found) == pytest.approx(best(given)), seed


def test_greedy_is_within_its_bound_and_genetic_is_never_worse() -> None:
    """The bound (1 - 1/e) / 2 holds for concave values without a shared cost."""
    ratios = []
    for seed in range(60):
        given = problem(seed, base=False, concave=True)
        first, second = greedy(given), genetic(given, seed)
        assert given.fits(first)
        assert given.fits(second)
        assert given.value(second) >= given.value(first) - 1e-12
        ratios.append([given.value(c) / best(given) if best(given) else 1.0 for c in (first, second)])
    by_greedy, by_genetic = np.array(ratios).T
    assert by_greedy.min() >= (1 - 1 / math.e) / 2
    assert by_greedy.mean() > 0.97
    assert by_genetic.mean() >= by_greedy.mean()


def test_genetic_is_deterministic_by_seed_and_finds_more_than_greedy() -> None:
    """Task 0 has the better rate, but task 1 does not fit beside it."""
    given = Problem(np.array([[0, 6.0], [0, 10.0]]), np.array([0.5, 1.0]), 0.0, 1.0)
    assert greedy(given).tolist() == [0, 1]  # by the comparison with the best single phase
    three = Problem(np.array([[0, 6.0], [0, 5.5], [0, 5.4]]), np.array([0.55, 0.51, 0.49]), 0.0, 1.0)
    assert three.value(greedy(three)) == pytest.approx(10.9)  # 5.4 has the best rate, then 5.5 fits
    alone = Problem(np.array([[0, 6.0], [0, 5.5], [0, 5.5]]), np.array([0.52, 0.5, 0.5]), 0.0, 1.0)
    assert alone.value(greedy(alone)) == 6.0
    assert [genetic(alone, seed).tolist() for seed in (0, 0)] == [[0, 1, 1]] * 2


CURVES = {"click": LearningCurve(0.2, 0.5, tau=50.0), "watch": LearningCurve(0.3, 0.5, tau=400.0)}
COSTS = StepCosts(0.001, {"click": 0.004, "watch": 0.001})


@pytest.mark.parametrize("solver", ["exact", "greedy", "genetic"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_a_plan_keeps_to_its_budget(solver: str, share: float) -> None:
    plan = plan_schedule(COSTS, CURVES, 997, share=share, num_phases=13, solver=solver)
    assert sum(plan.seconds) <= share * 997 * 0.006 * 1.02  # phases have whole steps
    assert plan.steps <= 997
    assert plan.phases[-1].tasks == tuple(n for n in CURVES if plan.steps_by_task[n])  # all end together
    assert plan.gains["click"] == pytest.approx(CURVES["click"].share(plan.steps_by_task["click"], 997))
    if share == 1.0:
        assert plan.phases == (Phase(997, ("click", "watch")),)
        assert plan.gains == pytest.approx({"click": 1.0, "watch": 1.0})


def test_seconds_are_the_same_budget_as_their_share() -> None:
    one = plan_schedule(COSTS, CURVES, 1000, share=0.4)
    assert one == plan_schedule(COSTS, CURVES, 1000, seconds=0.4 * 6.0)


def test_weights_decide_who_gets_the_time() -> None:
    steps = [
        plan_schedule(COSTS, CURVES, 1000, share=0.4, weights={"click": w}).steps_by_task for w in (0.0, 1.0, 50.0)
    ]
    assert steps[0]["click"] == 0
    assert 0 < steps[1]["click"] < steps[2]["click"]
    assert steps[0]["watch"] > steps[1]["watch"] > steps[2]["watch"]


def test_phases_are_at_even_distances() -> None:
    """Of 12 phases of 10 steps, half of the time pays 12 of `watch` and 4 of `click`: every third phase has both."""
    free = {"click": LearningCurve(0.0, 1.0, tau=1.0), "watch": LearningCurve(0.0, 1.0, tau=1e6)}
    plan = plan_schedule(StepCosts(0.0, {"click": 1.0, "watch": 0.2}), free, 120, seconds=65.0, num_phases=12)
    assert [(phase.steps, phase.tasks) for phase in plan.phases] == [(20, ("watch",)), (10, ("click", "watch"))] * 4


def test_curves_of_losses_that_fall_and_of_those_that_do_not() -> None:
    steps = 20 * np.arange(1, 9)
    history = {
        "val_falls_loss": list(0.3 + 0.4 * 70 / (steps + 70)),
        "val_rises_loss": list(0.1 + 0.001 * steps),
        "val_flat_loss": [0.5] * 8,
    }
    found = fit_learning_curves(history, 20, ["falls", "rises", "flat"])
    assert found["falls"].end == pytest.approx(0.3, abs=0.002)
    assert found["falls"].gain == pytest.approx(0.4, abs=0.004)
    assert found["falls"].tau == pytest.approx(70, rel=0.03)
    assert found["falls"].loss(0) == pytest.approx(0.7, abs=0.003)
    assert found["rises"].gain == found["flat"].gain == 0.0
    assert found["flat"].loss(100) == pytest.approx(0.5)
    assert found["rises"].share(0, 100) == 1.0  # nothing is lost without it
    assert [found[name].slows for name in ("falls", "rises", "flat")] == [True, False, False]  # ended, or not begun


def test_a_measure_that_rises_is_fitted_with_its_sign_turned() -> None:
    steps = 20 * np.arange(1, 9)
    ranks = 0.5 - 0.4 * 70 / (steps + 70)  # 0.1 before training, 0.5 at the end
    history = {"val_seen_ndcg@10": list(ranks), "val_seen_loss": [1.0] * 8, "val_click_loss": list(1.0 - ranks)}
    measures = {"seen": ("val_seen_ndcg@10", "max")}
    found = fit_learning_curves(history, 20, ["seen", "click"], measures)
    assert found["seen"].end == pytest.approx(-0.5, abs=0.002)
    assert found["seen"].loss(0) == pytest.approx(-0.1, abs=0.003)
    assert found["click"].end == pytest.approx(0.5, abs=0.002)  # the loss, which falls as the ranks rise
    for name in ("gain", "tau", "upper_tau"):
        assert getattr(found["seen"], name) == pytest.approx(getattr(found["click"], name))
    assert found["seen"].gain == pytest.approx(0.4, abs=0.004)
    assert found["seen"].tau == pytest.approx(70, rel=0.03)


@pytest.mark.parametrize("better", ["max", "min"])
def test_values_worse_than_trivial_ones_are_not_gains(better: str) -> None:
    """Ranks that stand still at those of popularity look like an end; above popularity nothing has begun."""
    sign = 1.0 if better == "max" else -1.0
    ranks = sign * np.array([0.10, 0.20, 0.22, 0.225, 0.229, 0.228, 0.229, 0.2295])
    history, measures = {"val_seen_rank": list(ranks)}, {"seen": ("val_seen_rank", better)}
    assert fit_learning_curves(history, 10, ["seen"], measures)["seen"].slows
    begun = fit_learning_curves(history, 10, ["seen"], measures, {"seen": sign * 0.23})["seen"]
    assert (begun.gain, begun.slows) == (0.0, False)
    assert begun.least_share(30, whole=120) == 0.25


def test_the_upper_tau_is_the_end_of_the_profile_interval() -> None:
    """The error at `upper_tau` is below the bound of the F distribution, that at the next tau of the grid above it."""
    rng = np.random.default_rng(0)
    steps = 10 * np.arange(1.0, 13)
    losses = 0.3 + 0.5 * 20 / (steps + 20) + rng.normal(0, 0.003, 12)
    found = fit_learning_curves({"val_a_loss": list(losses)}, 10, ["a"])["a"]

    def error(tau: float) -> float:
        inputs = np.stack([np.ones(12), tau / (steps + tau)], axis=1)
        return float(np.linalg.lstsq(inputs, losses, rcond=None)[1][0])

    bound = (1 + 5.1174 / 9) * error(found.tau)  # 5.1174: 95 % of F(1, 9)
    assert found.upper_tau is not None
    assert found.tau < found.upper_tau < 60
    step = (50.0 / 0.02) ** (1 / 199)
    assert error(found.upper_tau) <= bound < error(found.upper_tau * step)
    assert found.least_share(60, 240) == pytest.approx(60 / (60 + found.upper_tau) * (240 + found.upper_tau) / 240)


@pytest.mark.parametrize("losses", [[0.9, 0.8, 0.7, 0.6, 0.5], [0.9, 0.89, 0.86, 0.8, 0.7], [0.9, 0.6, 0.55]])
def test_a_straight_line_a_late_start_and_three_values_do_not_slow(losses: list[float]) -> None:
    found = fit_learning_curves({"val_a_loss": losses}, 10, ["a"])["a"]
    assert found.gain > 0
    assert found.upper_tau == math.inf
    assert found.least_share(20, whole=100) == pytest.approx(0.2)


def test_everything_else_of_a_task_without_gain_is_left_out() -> None:
    curves = {**CURVES, "click": LearningCurve(0.5, 0.0, tau=10.0)}
    plan = plan_schedule(COSTS, curves, 100, share=0.9)
    assert plan.steps_by_task == {"click": 0, "watch": 100}


OPEN = LearningCurve(0.3, 0.5, tau=400.0, upper_tau=math.inf)


@pytest.mark.parametrize("solver", ["exact", "greedy", "genetic"])
def test_a_task_that_does_not_slow_is_in_every_phase(solver: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of 20 phases of 50 steps, 150 ms each, 1.5 s pay 10 of everything, or 11 of `watch` and 8 of `click`."""
    caplog.set_level("INFO")
    costs = StepCosts(0.001, {"watch": 0.001, "click": 0.001})
    click = LearningCurve(0.2, 0.5, tau=20.0, upper_tau=100.0)
    plan = plan_schedule(costs, {"watch": OPEN, "click": click}, 1000, share=0.5, solver=solver)
    assert plan.steps_by_task["watch"] == plan.steps > 500
    assert 0 < plan.steps_by_task["click"] < 500
    assert plan.gains["watch"] == plan.steps / 1000
    assert plan.gains["click"] == pytest.approx(click.least_share(plan.steps_by_task["click"], 1000))
    assert "The tasks ['watch'] may learn slowly by their curves and are in every phase." in caplog.text


def test_only_a_task_that_is_fast_for_sure_leaves_phases_out() -> None:
    """Half of the gain in a quarter of 1000 steps."""
    costs = StepCosts(0.001, {"watch": 0.001, "click": 0.001})
    for upper, skips in ((250.0, True), (251.0, False)):
        curves = {"watch": OPEN, "click": LearningCurve(0.2, 0.5, tau=20.0, upper_tau=upper)}
        plan = plan_schedule(costs, curves, 1000, share=0.5, weights={"watch": 5.0})
        assert (plan.steps_by_task["click"] < plan.steps) is skips


@pytest.mark.parametrize("solver", ["exact", "greedy", "genetic"])
def test_the_plan_of_curves_that_do_not_slow_is_everything_with_fewer_steps(solver: str) -> None:
    costs = StepCosts(0.001, {"cheap": 0.001, "dear": 0.02})
    curves = {"cheap": OPEN, "dear": LearningCurve(0.5, 0.0, tau=10.0, upper_tau=math.inf)}  # not begun
    plan = plan_schedule(costs, curves, 1000, share=0.5, solver=solver)
    assert plan.phases == (Phase(500, ("cheap", "dear")),)
    assert plan.gains == {"cheap": 0.5, "dear": 0.5}
    without = plan_schedule(costs, curves, 1000, share=0.5, solver=solver, weights={"dear": 0.0})
    assert without.steps_by_task["cheap"] == without.steps == 1000


def test_no_task_without_an_end_has_fewer_steps_than_in_everything() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        names = ["a", "b", "c", "d"]
        costs = StepCosts(float(rng.exponential()), dict(zip(names, rng.exponential(size=4).tolist(), strict=True)))
        taus = rng.choice([5.0, 50.0, 500.0, math.inf], 4)
        curves = {n: LearningCurve(0.0, 1.0, 5.0, float(t)) for n, t in zip(names, taus, strict=True)}
        plan = plan_schedule(costs, curves, 400, share=0.5)
        assert sum(plan.seconds) <= 0.5 * 400 * costs.seconds(names) * (1 + 1e-9)
        assert all(plan.steps_by_task[n] == plan.steps >= 200 for n in names if taus[names.index(n)] > 100), seed
        everything = sum(curve.least_share(200, 400) for curve in curves.values())
        assert sum(plan.gains.values()) >= everything - 0.01, seed  # the costs of the solver are whole units


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 0.0}, "`share` must be above 0 and at most 1. Received: share=0.0."),
        ({"share": 1.5}, "`share` must be above 0 and at most 1."),
        ({"seconds": 0.0}, "`seconds` must be a finite number above 0."),
        ({"seconds": 1e-6}, "The budget is below one phase of any task; raise it, or `num_phases`."),
        ({}, "Give the budget by one of `share` and `seconds`."),
        ({"share": 0.5, "seconds": 1.0}, "Give the budget by one of `share` and `seconds`."),
        ({"share": 0.5, "num_phases": 2000}, "`num_phases` must be at most `num_steps`."),
        ({"share": 0.5, "weights": {"klick": 1.0}}, "Unknown task ['klick'] in `weights`"),
        ({"share": 0.5, "weights": {"click": -1.0}}, "`weights` must be finite and at least 0."),
        ({"share": 0.5, "solver": "best"}, "Unknown solver ['best']"),
    ],
)
def test_bad_plans_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        plan_schedule(COSTS, CURVES, 1000, **arguments)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_bad_curves_and_costs_are_named() -> None:
    with pytest.raises(ValueError, match="no curve for the tasks \\['watch'\\]"):
        plan_schedule(COSTS, {"click": CURVES["click"]}, 10, share=0.5)
    with pytest.raises(ValueError, match=r"Unknown task \['watch'\] in the validation losses"):
        fit_learning_curves({"val_click_loss": [1.0, 0.9, 0.8]}, 10, ["watch"])
    with pytest.raises(ValueError, match="needs three values of 'val_click_loss' or more, all finite"):
        fit_learning_curves({"val_click_loss": [1.0, float("nan"), 0.8]}, 10, ["click"])
    history = {"loss": [1.0] * 6, "val_click_loss": [1.0, 0.9, 0.8]}
    with pytest.raises(
        ValueError, match="'val_click_loss' of task 'click' for each epoch; train with `validation_freq=1`"
    ):
        fit_learning_curves(history, 10, ["click"])
    flat = dict.fromkeys(CURVES, LearningCurve(0.5, 0.0, tau=1.0))
    with pytest.raises(ValueError, match="No task gains anything by its curve and weight"):
        plan_schedule(COSTS, flat, 100, share=0.5)
    with pytest.raises(ValueError, match="seconds of a step must be finite"):
        StepCosts(0.1, {"click": -1.0})
    with pytest.raises(ValueError, match="`alone` must have two tasks or more"):
        StepCosts.from_turns(0.1, {"click": 0.1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"measures": {"seen": ("val_seen_ndgc@10", "max")}},
            "Unknown measure ['val_seen_ndgc@10'] in `history`, for task",
        ),
        ({"measures": {"seen": ("val_seen_ndcg@10", "up")}}, "The measure of task 'seen' needs 'max' or 'min'."),
        ({"measures": {"sene": ("val_seen_ndcg@10", "max")}}, "Unknown task ['sene'] in `measures`"),
        ({"trivial": {"sene": 0.1}}, "Unknown task ['sene'] in `trivial`"),
        ({"trivial": {"seen": math.nan}}, "`trivial` of task 'seen' must be finite."),
    ],
)
def test_bad_measures_are_named(arguments: dict[str, Any], message: str) -> None:
    history = {"val_seen_ndcg@10": [0.1, 0.2, 0.25], "val_seen_loss": [1.0, 0.9, 0.8]}
    with pytest.raises(ValueError, match=r".") as error:
        fit_learning_curves(history, 10, ["seen"], **arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_baselines_have_all_steps_and_are_deterministic() -> None:
    names = ["a", "b", "c"]
    assert Schedule.everything(names, 7).phases == (Phase(7, ("a", "b", "c")),)
    turns = Schedule.round_robin(names, 8, steps_per_phase=2)
    assert [(p.steps, *p.tasks) for p in turns.phases] == [(2, "a"), (2, "b"), (2, "c"), (2, "a")]
    drawn = Schedule.proportional({"a": 1.0, "b": 3.0, "c": 0.0}, 4000, seed=1)
    assert drawn.steps == 4000
    assert drawn.steps_by_task["c"] == 0
    assert drawn.steps_by_task["b"] == pytest.approx(3000, abs=100)  # the standard deviation is 27
    half = Schedule.random(names, 3000, share=0.5, seed=2)
    assert half.steps == 3000
    assert half.steps_by_task["a"] == pytest.approx(3000 * (0.5 + 1 / 24), abs=110)  # 1 in 8 draws has none, then one
    assert half == Schedule.random(names, 3000, share=0.5, seed=2)
    assert half != Schedule.random(names, 3000, share=0.5, seed=3)


def test_a_schedule_is_saved_and_loaded(tmp_path: pathlib.Path) -> None:
    plan = plan_schedule(COSTS, CURVES, 1000, share=0.5)
    path = tmp_path / "plan.json"
    plan.save(path)
    assert Schedule.load(path) == plan
    path.write_text("{}")
    with pytest.raises(ValueError, match="holds no schedule of this version"):
        Schedule.load(path)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "A schedule needs a phase or more."),
        ([("clik",)], "Unknown task ['clik'] in a phase of the schedule"),
        ([()], "`tasks` of a phase must name one task or more, each once."),
        (["click"], "`tasks` of a phase must name one task or more, each once."),
    ],
)
def test_bad_schedules_are_named(phases: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        Schedule(["click", "watch"], [Phase(10, tasks) for tasks in phases])
    assert str(error.value).startswith(message)


def test_neighbours_with_the_same_tasks_are_one_phase() -> None:
    found = Schedule(["a", "b"], [Phase(2, ("b", "a")), Phase(3, ("a", "b")), Phase(1, ("a",))], [1.0, 2.0, 4.0])
    assert found.phases == (Phase(5, ("a", "b")), Phase(1, ("a",)))
    assert found.seconds == (3.0, 4.0)
