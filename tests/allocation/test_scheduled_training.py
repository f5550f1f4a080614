"""`fit` under a schedule: the steps of its phases, resumed and measured."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest

from tests.models import small
from tfmtl._keras import keras, tf
from tfmtl.allocation import Phase, Schedule, ScheduledTraining, measure_step_costs, step_costs
from tfmtl.balancing import FAMO, PCGrad
from tfmtl.data import to_batch
from tfmtl.models import MultiTaskModel

NAMES = ["seen", "rating", "liked", "mood"]
SCHEDULE = Schedule(NAMES, [Phase(3, ("rating",)), Phase(4, ("seen", "mood")), Phase(5, tuple(NAMES))])


def fit(model: MultiTaskModel, *callbacks: Any, epochs: int = 4, **arguments: Any) -> Any:
    options = {"batch_size": 10, "verbose": 0, "shuffle": False, **arguments}
    return model.fit(small.table(), epochs=epochs, callbacks=list(callbacks), **options)


def values(model: MultiTaskModel) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.network.variables]


def close(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    """Adam turns rounding of small gradients into steps; a step of other tasks would differ by its rate of 0.02."""
    for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("balancer", [None, FAMO, PCGrad])
def test_each_step_trains_the_tasks_of_its_phase_and_none_after_the_end(balancer: Any) -> None:
    """12 of the 15 steps of three epochs are in the schedule, and the fourth epoch does not begin."""
    model = small.model(balancer=balancer and balancer())
    history = fit(model, ScheduledTraining(SCHEDULE))
    assert len(history.epoch) == 3
    assert int(model.optimizer.iterations) == 12
    assert model.step_schedule is None
    other = small.model(balancer=balancer and balancer())
    other.build_optimizer()
    sets = [phase.tasks for phase in SCHEDULE.phases for _ in range(phase.steps)]
    for number, tasks in enumerate(sets):
        rows = small.table().iloc[number % 5 * 10 : number % 5 * 10 + 10]
        other.make_step(to_batch(rows, small.preprocessor()), tasks)
    close(values(model), values(other))


def test_a_resumed_training_goes_on_in_its_phase(tmp_path: Any) -> None:
    """Interrupted after the first epoch, step 5, in the second phase."""
    whole = small.model()
    fit(whole, ScheduledTraining(SCHEDULE))

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    backup = lambda: keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        fit(small.model(), backup(), ScheduledTraining(SCHEDULE), Stop())
    resumed = small.model()
    fit(resumed, backup(), ScheduledTraining(SCHEDULE))
    assert int(resumed.optimizer.iterations) == 12
    close(values(resumed), values(whole))


def test_one_callback_trains_two_models_and_its_copy_is_unused() -> None:
    callback = ScheduledTraining(SCHEDULE)
    assert all(np.isnan(callback.seconds))
    first, second = small.model(), small.model()
    fit(first, callback)
    fit(second, callback)
    close(values(first), values(second))
    assert all(seconds > 0 for seconds in callback.seconds)
    assert all(np.isnan(copy.deepcopy(callback).seconds))
    assert "measured s" in callback.report()


def test_the_training_after_a_schedule_trains_all_tasks() -> None:
    model = small.model()
    fit(model, ScheduledTraining(Schedule(NAMES, [Phase(2, ("rating",))])), epochs=1)
    before = values(model)
    fit(model, epochs=1)
    changed = [not np.array_equal(one, other) for one, other in zip(before, values(model), strict=True)]
    assert sum(changed) > 0.8 * len(changed)
    assert int(model.optimizer.iterations) == 7


def test_measured_costs_leave_the_model_as_it_was() -> None:
    model = small.model(optimizer=keras.optimizers.Adam(0.02))
    fit(model, epochs=1)
    before = [*values(model), *(v.numpy() for v in model.optimizer.variables)]
    costs = measure_step_costs(model, small.table(), batch_size=10, steps=32, rounds=1)
    assert list(costs.by_task) == NAMES
    assert costs.seconds(NAMES) > 0
    for one, other in zip(before, [*values(model), *(v.numpy() for v in model.optimizer.variables)], strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.step_schedule is None


def test_a_clock_of_the_caller_measures_the_phases() -> None:
    """A clock that advances by 1 for each reading: one at the start and one for each step."""
    ticks = itertools.count(1)
    callback = ScheduledTraining(SCHEDULE, clock=lambda: float(next(ticks)))
    assert copy.deepcopy(callback).clock is callback.clock
    fit(small.model(), callback, epochs=3)
    assert callback.seconds == (3.0, 4.0, 5.0)
    costs = measure_step_costs(small.model(), small.table(), steps=32, rounds=1, clock=lambda: float(next(ticks)))
    assert costs.base == pytest.approx(1.0)  # a reading for each step, of any task
    assert costs.by_task == pytest.approx(dict.fromkeys(NAMES, 0.0))


def test_bad_use_is_named() -> None:
    with pytest.raises(TypeError, match="`schedule` must be Schedule"):
        ScheduledTraining([("rating",)])  # type: ignore[arg-type]
    other = Schedule(["ratings"], [Phase(1, ("ratings",))])
    with pytest.raises(ValueError, match=r"Unknown task \['ratings'\] in the schedule; .* Did you mean 'rating'"):
        fit(small.model(), ScheduledTraining(other))
    with pytest.raises(ValueError, match="`steps` must be 32 or more"):
        measure_step_costs(small.model(), small.table(), steps=5)
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        mirrored = small.model()
    with pytest.raises(ValueError, match="A schedule takes one replica"):
        fit(mirrored, ScheduledTraining(SCHEDULE))


def test_an_interrupted_schedule_does_not_stay() -> None:
    """Keras calls no `on_train_end` after an exception."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    model = small.model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, ScheduledTraining(SCHEDULE), Stop())
    assert model.step_schedule is None
    before = values(model)
    fit(model, epochs=1)
    assert not np.array_equal(before[-1], values(model)[-1])


def test_a_schedule_that_does_not_fit_the_training_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model = small.model()
    fit(model, ScheduledTraining(SCHEDULE), epochs=1)
    assert "The training ended after 5 of the 12 steps of its schedule; give `fit` more epochs." in caplog.text
    model.optimizer.iterations.assign(12)
    with pytest.raises(ValueError, match="The optimizer is beyond the schedule; train another model"):
        fit(model, ScheduledTraining(SCHEDULE))
    some = Schedule(["rating"], [Phase(1, ("rating",))])
    with pytest.raises(ValueError, match=r"\['seen', 'liked', 'mood'\] in the model; give the schedule all"):
        fit(small.model(), ScheduledTraining(some))


class Everything(MultiTaskModel):
    """A class of a user that computes all losses in all steps."""

    def losses_of(self, data: Any, outputs: Any, training: bool) -> Any:
        self._scheduled, kept = None, self._scheduled
        try:
            return super().losses_of(data, self(data.features, training=training), training)
        finally:
            self._scheduled = kept


def test_losses_that_a_user_computes_anyway_do_not_train() -> None:
    names = NAMES[1:]  # a retrieval task counts its candidates whenever its loss is computed
    schedule = Schedule(names, [Phase(3, ("rating",)), Phase(4, ("mood",)), Phase(3, tuple(names))])
    heads = [[task for task in small.tasks() if task.name in names] for _ in range(2)]
    models = [small.model(kind=kind, heads=h) for kind, h in zip((MultiTaskModel, Everything), heads, strict=True)]
    for model in models:
        fit(model, ScheduledTraining(schedule))
    for one, other in zip(*map(values, models), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_costs_are_solved_from_all_tasks_and_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 + 1 + 3 + 5 + 4 = 15 ms, alone 3, 5, 7 and 6: base (21 - 15) / 3 = 2; the first turn is not counted."""
    turns = 32e-3 * np.array([[99, 99, 99, 99, 99], [15, 3, 5, 7, 6], [15, 3, 5, 7, 6.0]])
    monkeypatch.setattr(step_costs, "_measured", lambda *_: turns.ravel())
    found = measure_step_costs(small.model(), small.table(), steps=32, rounds=2)
    assert found.base == pytest.approx(2e-3)
    assert found.by_task == pytest.approx({"seen": 1e-3, "rating": 3e-3, "liked": 5e-3, "mood": 4e-3})
    assert found.seconds(NAMES) == pytest.approx(15e-3)
    assert found.of(SCHEDULE) == pytest.approx([3 * 5e-3, 4 * 7e-3, 5 * 15e-3])
