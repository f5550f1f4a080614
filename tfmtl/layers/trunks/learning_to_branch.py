"""Learning to branch: levels of nodes, of which every node and every task chooses one parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, seed_of, tf
from tfmtl.layers.trunks.dense_trunk import DenseTrunk


@register
class LearningToBranch(DenseTrunk):
    """Levels of dense nodes between input and tasks; which node feeds which is learned.

    Node c of level l is h_l,c = act(W_l,c sum_p d_l,cp h_{l-1},p + b_l,c); the nodes of the first level read x, and a
    task reads sum_p d_p h_p of the last level's nodes. In training d = softmax((theta + gumbel) / tau) with learned
    logits theta and one draw a child, parent and step; otherwise d is 1 for the child's most likely parent, the first
    of equals, and 0 for the others. tau falls geometrically from the initial to the final temperature within
    `decay_steps` steps.

    Args:
        task_names, units, activation, dropout, kernel_initializer, kernel_regularizer, seed: see `DenseTrunk`; the seed
            is also that of the draws, which are a function of it and the step.
        num_nodes: nodes a level.
        initial_temperature, final_temperature: tau at the first step and from step `decay_steps` on; the higher, the
            more parents a child mixes.
        decay_steps: training steps in which tau falls.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> trunk = LearningToBranch(["click", "buy"], units=[8, 4], num_nodes=3)
        >>> trunk(tf.ones([2, 5]))["buy"].shape, trunk.branches()
        (TensorShape([2, 4]), [[0, 0, 0], [0, 0]])

    Reference:
        Guo, Lee, Ulbricht, "Learning to Branch for Multi-Task Learning", ICML 2020, https://arxiv.org/abs/2006.01895.
        Here one training both finds the branches, by ever harder choices, and fits them; serving takes the hard ones.
        To train a found network anew is left to its user. Logits start at 0: no parent is preferred.

    Cost: one matrix product an input and level for all nodes, when serving, too: those that nobody chose are not left
    out.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        units: Sequence[int] = (64, 32),
        num_nodes: int = 4,
        initial_temperature: float = 5.0,
        final_temperature: float = 0.1,
        decay_steps: int = 10_000,
        **kwargs: Any,
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
        """Create the nodes, the logits of each level's children and the count of steps."""
        shape = input_shape
        self._nodes = [self.make_experts(f"level_{i}", self.num_nodes, [width]) for i, width in enumerate(self.units)]
        for nodes, width in zip(self._nodes, self.units, strict=True):
            self.build_part(nodes, shape)
            shape = [None, self.num_nodes, width]
        children = [self.num_nodes] * (len(self.units) - 1) + [len(self.task_names)]
        self._logits = [
            self.add_weight(f"logits_{i}", [n, self.num_nodes], initializer="zeros", experimental_autocast=False)
            for i, n in enumerate(children)
        ]
        self._step = self.add_weight("step", [], tf.int32, initializer="zeros", trainable=False)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """Return what each task reads of the nodes it chooses."""
        step = self._step.assign_add(1) if training else None
        read = inputs
        for level, (nodes, logits) in enumerate(zip(self._nodes, self._logits, strict=True)):
            hidden = nodes(read, training=training)
            choice = tf.cast(self._chosen(level, logits, step), hidden.dtype)
            read = tf.einsum("cp,bpu->bcu", choice, hidden)
        self.mark_shared(hidden)
        outputs = dict(zip(self.task_names, tf.unstack(read, axis=1), strict=True))
        every_row = tf.ones([tf.shape(inputs)[0], 1, 1], read.dtype)
        self.mark_gated(outputs, every_row * choice)
        return outputs

    def _chosen(self, level: int, logits: tf.Variable, step: tf.Tensor | None) -> tf.Tensor:
        """Return how much each child reads of each parent [children, parents]; hard without a step."""
        if step is None:
            return tf.one_hot(tf.argmax(logits, axis=1), self.num_nodes)
        seed = tf.stack([seed_of(f"level_{level}", self.seed), step])
        draws = tf.random.stateless_uniform(logits.shape, seed, minval=1e-20)  # log(0) would be infinite
        return tf.nn.softmax((logits - tf.math.log(-tf.math.log(draws))) / self.temperature(step - 1))

    def temperature(self, step: Any) -> tf.Tensor:
        """Return tau after so many steps, a float32 scalar."""
        done = tf.minimum(tf.cast(step, tf.float32) / self.decay_steps, 1.0)
        return self.initial_temperature * (self.final_temperature / self.initial_temperature) ** done

    def branches(self) -> list[list[int]]:
        """Return the parents that serve now: for each level after the first those of its nodes, last the tasks'."""
        require(self.built, "A trunk has branches once it is built; call it first.")
        return [tf.argmax(logits, axis=1).numpy().tolist() for logits in self._logits]

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All nodes and the logits of nodes: soft choices let every task reach them. A task's own logits are not."""
        return [*(v for nodes in self._nodes for v in nodes.trainable_weights), *self._logits[:-1]]

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the number of nodes, width, depth and dropout."""
        width = hp.Choice("learning_to_branch_units", [16, 32, 64], default=32)
        return {
            "units": (width,) * hp.Int("learning_to_branch_depth", 1, 3, default=2),
            "num_nodes": hp.Choice("learning_to_branch_num_nodes", [2, 4, 8], default=4),
            "dropout": hp.Float("learning_to_branch_dropout", 0.0, 0.4, step=0.1, default=0.0),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_nodes": self.num_nodes,
            "initial_temperature": self.initial_temperature,
            "final_temperature": self.final_temperature,
            "decay_steps": self.decay_steps,
        }
