"""Learning to branch: levels of nodes, of which every node and every task chooses one parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, seed_of, tf
from tfmtl._passes import once
from tfmtl.layers.dense_stack import StackArguments, search_dropout, search_units
from tfmtl.layers.trunks.dense_trunk import DenseTrunk, trainable


@register
class LearningToBranch(DenseTrunk):
    """Learning to branch (LTB): levels of dense nodes between input and tasks, with learned connections.

    Use it when it is unknown which tasks should share layers, and up to which level; `branches` returns the answer.

    Node c of level l is h_l,c = act(W_l,c sum_p d_l,cp h_{l-1},p + b_l,c); the nodes of the first level read x, and a
    task reads sum_p d_p h_p of the last level's nodes. In training d = softmax((theta + gumbel) / tau) with learned
    logits theta and one draw per child, parent and step. Otherwise d is 1 for the child's most likely parent, the first
    one among equals, and 0 for the others. tau falls geometrically from the initial to the final temperature within
    `decay_steps` steps.

    Args:
        task_names: names of the tasks.
        units: widths of the levels.
        num_nodes: nodes per level.
        initial_temperature: tau at the first step; the higher it is, the more evenly a child mixes its parents.
        final_temperature: tau from step `decay_steps` on.
        decay_steps: training steps in which tau falls; about the number of steps of the whole training.
        **kwargs: `activation`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`: see `SharedBottom`. The
            seed is also that of the draws, which are a function of seed and step.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Example:
        >>> trunk = LearningToBranch(["click", "buy"], units=[8, 4], num_nodes=3)
        >>> trunk(tf.ones([2, 5]))["buy"].shape, trunk.branches()
        (TensorShape([2, 4]), [[0, 0, 0], [0, 0]])

    Reference:
        Guo, Lee, Ulbricht, "Learning to Branch for Multi-Task Learning", ICML 2020, https://arxiv.org/abs/2006.01895.
        Here one training both finds the branches, by ever harder choices, and fits them; serving takes the hard ones.
        The paper trains the found network again from the start; that step is left to the user. Logits start at 0: no
        parent is preferred.

    Cost: one matrix product per level and input for all nodes, also at serving: nodes without a child are computed,
    too.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (64, 32),
        num_nodes: int = 4,
        initial_temperature: float = 5.0,
        final_temperature: float = 0.1,
        decay_steps: int = 10_000,
        **kwargs: Unpack[StackArguments],
    ) -> None:
        super().__init__(task_names, units, **kwargs)
        require_positive_int(num_nodes=num_nodes, decay_steps=decay_steps)
        require(
            0 < final_temperature <= initial_temperature < float("inf"),
            "Temperatures must satisfy 0 < final_temperature <= initial_temperature.",
            final_temperature=final_temperature,
            initial_temperature=initial_temperature,
        )
        self.num_nodes = num_nodes
        self.initial_temperature = float(initial_temperature)
        self.final_temperature = float(final_temperature)
        self.decay_steps = decay_steps

    def build_layers(self, input_shape: Any) -> None:
        """Create the nodes, the logits of each level's children and the counter of steps."""
        self._nodes = self.make_levels(self.num_nodes, input_shape)
        children = [self.num_nodes] * (len(self.units) - 1) + [len(self.task_names)]
        self._logits = [
            self.add_weight(f"logits_{i}", [n, self.num_nodes], initializer="zeros", experimental_autocast=False)
            for i, n in enumerate(children)
        ]
        self._step = self.add_weight("step", [], tf.int32, initializer="zeros", trainable=False)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        step = once(self.name, lambda: self._step.assign_add(1)) if training else None
        read = inputs
        for level, (nodes, logits) in enumerate(zip(self._nodes, self._logits, strict=True)):
            hidden = nodes(read, training=training)  # [B, nodes, units]
            choice = tf.cast(self._chosen(level, logits, step), hidden.dtype)
            read = tf.einsum("cp,bpu->bcu", choice, hidden)
        return self.read_last_level(hidden, read, choice)

    def _chosen(self, level: int, logits: tf.Variable, step: tf.Tensor | None) -> tf.Tensor:
        """Return the weight of each parent for each child [children, parents]: 0 or 1 without a step."""
        if step is None:
            return tf.one_hot(tf.argmax(logits, axis=1), self.num_nodes)
        seed = tf.stack([seed_of(f"level_{level}", self.seed), step])
        draws = tf.random.stateless_uniform(logits.shape, seed, minval=1e-20)  # log(0) would be infinite
        return tf.nn.softmax((logits - tf.math.log(-tf.math.log(draws))) / self.temperature(step - 1))

    def temperature(self, step: Any) -> tf.Tensor:
        """Return tau after a number of steps, a float32 scalar."""
        done = tf.minimum(tf.cast(step, tf.float32) / self.decay_steps, 1.0)
        return self.initial_temperature * (self.final_temperature / self.initial_temperature) ** done

    def branches(self) -> list[list[int]]:
        """Return the parents that serving uses now: those of each level's nodes after the first, then the tasks'."""
        require(self.built, "A trunk has branches once it is built; call it first.")
        return [tf.argmax(logits, axis=1).numpy().tolist() for logits in self._logits]

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All nodes and their logits, which soft choices connect to every task; a task's logits are its own."""
        return [*trainable(*self._nodes), *self._logits[:-1]]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the number of nodes, width, depth and dropout."""
        return {
            "units": search_units(hp, "learning_to_branch", 32, depth=2),
            "num_nodes": hp.Choice("learning_to_branch_num_nodes", [2, 4, 8], default=4),
            "dropout": search_dropout(hp, "learning_to_branch"),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_nodes": self.num_nodes,
            "initial_temperature": self.initial_temperature,
            "final_temperature": self.final_temperature,
            "decay_steps": self.decay_steps,
        }
