"""A callback by which the groups of tasks that help each other step in turn on each batch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import keras, tf
from tfmtl.allocation.affinity import Affinity, Floats
from tfmtl.allocation.groupings.greedy import greedy
from tfmtl.data import Batch


class SelectiveGroupUpdates(keras.callbacks.Callback):
    """Updates the model for one group of tasks after the other on each batch, with groups by affinities of the moment.

    Use it where tasks harm each other in a joint step, and a network for each task or group costs too much.

    The losses L of all tasks before and after the step of a group G give the gain of each task,
    r_j = (L_j before - L_j after) / |L_j before| / |G|, and for the tasks i of G

    B_ij <- (1 - beta) B_ij + beta r_ij, r_ij = r_j, except that r_ij = -max(r_i, r_j) for two tasks of G of which one
    gains and the other loses, and that a task's own B_ii does not count a loss.

    At first each task is a group of its own. After every n batches the groups are those of `group_tasks` with the
    solver "greedy" for the mutual affinity (B_ij / B_jj + B_ji / B_ii) / 2; a task with B_ii = 0 stays alone.

    Args:
        every_n_batches: n, batches between two changes of the groups. `fit` calls the callback after up to 32
            batches, and the groups change then; see `steps_per_execution` of `compile`.
        decay: beta, above 0 and at most 1; the authors take 0.001 in trainings of 40 000 batches.
        seed: seed of the order of the groups, which is drawn for each batch.

    Attributes:
        groups: names of the tasks of each group now.
        affinity: B now, to be saved, drawn, or given to `group_tasks`.
        history: of the last training: by change of the groups, the number of batches before it and the groups.

    Raises:
        ValueError: if an argument is out of its range; when training starts, if the model has one task, another
            callback chooses the tasks of its steps, or a strategy has several replicas, which cannot communicate in a
            branch.

    Example:
        >>> groups = SelectiveGroupUpdates(every_n_batches=200)
        >>> # model.fit(table, callbacks=[groups]); affinity_heat_map(groups.affinity)
        >>> own, harm = [[0.2, 0.1], [0.1, 0.4]], [[0.2, -0.1], [-0.1, 0.4]]
        >>> groups_of(np.array(own)), groups_of(np.array(harm))
        ([[0, 1]], [[0], [1]])

    Reference:
        Jeong, Yoon, "Selective Task Group Updates for Multi-Task Optimization", ICLR 2025,
        https://arxiv.org/abs/2502.11986, and the code of its authors. There groups come from affinity propagation, the
        losses are those of the passes that train, and a change of the losses is that of the group after the step.

    Decided here: a loss below 0 counts by its size; a task without a label in the batch changes no affinity and is no
    member of G, and a group without a label makes no step; a loss of 0, or a gain that is not finite, is not counted.
    A balancer weighs the tasks of one group at a time; tasks of other groups are tasks without a label for it.

    M groups are M updates: the optimizer's counter, and with it a schedule of the learning rate, advances M times per
    batch, also for Adam's correction of its first steps. In the log, `loss` is the mean over the groups' objectives;
    compare by `unweighted_loss`. The affinities and the groups belong to the model and to its checkpoints, so that a
    training that is resumed, such as by `keras.callbacks.BackupAndRestore`, goes on with them.

    Cost: per batch, the steps of the M groups and M + 1 forward passes of all tasks; a trace of M steps at the start
    and whenever the groups have changed, so at most one for n batches.
    """

    def __init__(self, every_n_batches: int = 200, decay: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        require_positive_int(every_n_batches=every_n_batches)
        require(0 < decay <= 1, "`decay` must be above 0 and at most 1.", decay=decay)
        self.every_n_batches, self.decay, self.seed = every_n_batches, decay, seed
        self.history: list[tuple[int, tuple[tuple[str, ...], ...]]] = []
        self._hook: Any = None
        self._traced: Any = None  # the model and the groups of the hook

    def __deepcopy__(self, memo: dict[int, Any]) -> SelectiveGroupUpdates:
        """Return an unused callback: a tuner copies its callbacks for every trial."""
        return type(self)(self.every_n_batches, self.decay, self.seed)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The groups, each in the order of the tasks."""
        numbers = self._state.groups.numpy()
        return tuple(
            tuple(task.name for task, number in zip(self.model.tasks, numbers, strict=True) if number == group)
            for group in np.unique(numbers)
        )

    @property
    def affinity(self) -> Affinity:
        """The affinities of all pairs, 0 for a pair that has not been measured."""
        values = self._state.affinity.numpy()
        return Affinity([task.name for task in self.model.tasks], values)

    @property
    def _state(self) -> Any:
        state = getattr(self.model, "group_updates", None)
        require(state is not None, "No training has begun; give the callback to `fit` first.")
        return state

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Let the model trace the steps of its groups."""
        model, number = self.model, len(self.model.tasks)
        replicas = model.distribute_strategy.num_replicas_in_sync
        require(number > 1, "A model of one task has no groups of tasks; train without `SelectiveGroupUpdates`.")
        rule = "`SelectiveGroupUpdates` takes one replica; train without a strategy."
        require(replicas == 1, rule, replicas=replicas)
        self._require_alone(None)
        if getattr(model, "group_updates", None) is None:
            with model.distribute_strategy.scope():
                model.group_updates = tf.train.Checkpoint(
                    affinity=tf.Variable(tf.zeros([number, number]), trainable=False),
                    groups=tf.Variable(tf.range(number), trainable=False),
                    batches=tf.Variable(0, trainable=False, dtype=tf.int64),
                    changes=tf.Variable(0, trainable=False, dtype=tf.int64),
                )
        self.history = []
        self._follow()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Follow the groups of a checkpoint that another callback has restored."""
        self._require_alone(self._hook)
        self._follow()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Change the groups if it is time."""
        self._follow()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Let the model train all tasks in one step again."""
        self.model.schedule_steps(None)

    def _require_alone(self, hook: Any) -> None:
        rule = "One callback chooses the tasks of the steps; leave out `SelectiveGroupUpdates` or the other one."
        require(self.model.step_schedule is hook, rule)

    def _follow(self) -> None:
        """Change the groups if it is time, and let the model trace a step if they have changed."""
        state = self._state
        batches = int(state.batches)
        turn = batches // self.every_n_batches
        if turn > int(state.changes):
            numbers = np.zeros(len(self.model.tasks), np.int32)
            for number, group in enumerate(groups_of(state.affinity.numpy())):
                numbers[group] = number
            state.groups.assign(numbers)
            state.changes.assign(turn)
        groups = self.groups
        if not self.history or self.history[-1][1] != groups:
            self.history.append((batches, groups))
        if self._traced != (id(self.model), groups):
            self._traced, self._hook = (id(self.model), groups), functools.partial(self._make_steps, groups)
        if self.model.step_schedule is not self._hook:
            self.model.schedule_steps(self._hook)

    def _make_steps(self, groups: tuple[tuple[str, ...], ...], rows: Batch) -> dict[str, tf.Tensor]:
        model, state = self.model, self._state
        members = tf.constant([[task.name in group for task in model.tasks] for group in groups])  # [M, K]
        steps = [functools.partial(model.make_step, rows, group) for group in groups]
        seed = tf.stack([tf.constant(self.seed, tf.int64), state.batches])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(groups)), seed)
        before, observed = self._losses(rows)

        def update(turn: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            stepped = members[order[turn]] & observed

            def after_step() -> tf.Tensor:
                tf.switch_case(order[turn], steps)
                return self._losses(rows)[0]

            after = tf.cond(tf.reduce_any(stepped), after_step, lambda: before)
            state.affinity.assign(updated(state.affinity, before, after, stepped, observed, self.decay))
            return turn + 1, after

        tf.while_loop(lambda turn, _: turn < len(groups), update, [0, before], parallel_iterations=1)
        state.batches.assign_add(1)
        return dict(model.get_metrics_result())

    def _losses(self, rows: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the losses in inference mode [K], and whether each task has a label [K]."""
        found = self.model.compute_losses(rows, training=False)
        losses, weights = zip(*(found[task.name] for task in self.model.tasks), strict=True)
        return tf.stack(losses), tf.stack(weights) > 0


def updated(
    affinity: tf.Tensor, before: tf.Tensor, after: tf.Tensor, stepped: tf.Tensor, observed: tf.Tensor, decay: float
) -> tf.Tensor:
    """Return the affinities B after the step of a group; see `SelectiveGroupUpdates`.

    Args:
        affinity: B [K, K].
        before: losses before the step [K].
        after: losses after the step [K].
        stepped: whether each task is in the group and has a label [K].
        observed: whether each task has a label [K].
        decay: beta.

    Example:
        >>> tasks, first = tf.constant([True, True]), tf.constant([True, False])
        >>> found = updated(tf.zeros([2, 2]), tf.constant([1.0, 2.0]), tf.constant([0.5, 3.0]), first, tasks, 0.1)
        >>> [[round(float(value), 2) for value in row] for row in found]
        [[0.05, -0.05], [0.0, 0.0]]
    """
    gain = (before - after) / tf.abs(before) / tf.reduce_sum(tf.cast(stepped, before.dtype))
    mine, theirs = gain[:, tf.newaxis], gain[tf.newaxis, :]
    both = stepped[:, tf.newaxis] & stepped[tf.newaxis, :]
    value = tf.where(both & (mine * theirs < 0), -tf.maximum(mine, theirs), theirs)
    known = observed & tf.math.is_finite(gain)
    own = tf.eye(affinity.shape[0], dtype=tf.bool)
    counted = stepped[:, tf.newaxis] & known[:, tf.newaxis] & known[tf.newaxis, :] & ~(own & (value < 0))
    return tf.where(counted, (1.0 - decay) * affinity + decay * value, affinity)


def groups_of(affinity: Floats) -> list[list[int]]:
    """Return the groups of tasks, as their numbers, by the affinities B [K, K]; see `SelectiveGroupUpdates`."""
    own = np.diag(affinity)
    relative = np.where((own > 0) & (own > 0)[:, np.newaxis], affinity / np.where(own > 0, own, 1.0), 0.0)
    mutual = (relative + relative.T) / 2
    np.fill_diagonal(mutual, 0.0)
    return sorted(sorted(group) for group in greedy(mutual, len(mutual)))
