"""Domain-adversarial training: representations from which a discriminator cannot read the domain of a row."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._identity import FIRST
from tfmtl._keras import keras, register, spawn, tf
from tfmtl._replicas import mean_over_replicas
from tfmtl.layers.marks import active_marks
from tfmtl.types import Column, Features


@register
class DomainAdversary(keras.layers.Layer):
    """Domain-adversarial training (DANN): learn representations from which the domain of a row cannot be predicted.

    Use it where the served rows come from a store, market or kind of item with few or no labels, and the tasks shall
    not rely on the differences between these domains. Give it to `Regularization(domain=...)`, and compare with
    weight 0 on labelled rows of the domain: on census income with labels of one sector, weights from 0.03 to 1 lowered
    the mean AUC of the other sector by 0.02 to 0.06.

    A discriminator, dense layers with ReLU and a softmax, predicts the domain c of row b from the representation h_b:

        L_d = mean_b -log softmax(D(R(h_b)))_c(b),  R(h) = h,  dR/dh = -weight I

    over the rows with a known domain, also those without labels. L_d is one of the penalties of a step: the
    discriminator minimizes it, and because of the reversed gradient R the layers before h maximize it. Balancers see
    the tasks alone. h is the joined outputs of the trunk for all tasks, from which the heads predict; in a network or
    an isolated group without a trunk, each tower has a discriminator of its own. Outside of training steps it is an
    identity layer, and exports hold neither the discriminator nor its weights.

    A domain is a property of a row. Tasks are none: all tasks read the same rows, so that a discriminator of tasks, as
    in multi-task models with a corpus per task, has nothing to learn from here.

    Args:
        column: name of a categorical feature of the schema. Leave it out of the network by
            `embedding_dim={column: 0, "": 32}`: the representation can hardly hide a feature that it reads.
        weight: factor of the reversed gradient, 0 or more; 0 leaves the network as without it.
        units: widths of the discriminator's hidden layers.
        num_domains: number of domains; `build_network` sets it. Rows with a missing, unknown or later domain have no
            loss.
        seed: seed of the initial values.

    Call arguments:
        inputs: a representation [B, d], or a list of several of the same rows.

    Returns:
        The same.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from tfmtl.models import Regularization
        >>> Regularization(domain=DomainAdversary("store", weight=0.3, units=(16,))).domain.column
        'store'

    Reference:
        Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17, 2016, https://arxiv.org/abs/1505.07818,
        equations 9 and 18, there with a weight that grows during training and with two domains.

    Cost: one forward and backward pass of the discriminator per training step; none otherwise.
    """

    def __init__(
        self,
        column: str,
        weight: float = 0.1,
        units: Sequence[int] = (32,),
        num_domains: int = 2,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        rule = "`column` must be the name of a categorical feature."
        require(isinstance(column, str) and bool(column), rule, column=column)
        valid = isinstance(weight, int | float) and 0 <= weight < float("inf")
        require(valid, "`weight` must be a number of 0 or more.", weight=weight)
        for width in units:
            require_positive_int(units=width)
        require_positive_int(num_domains=num_domains)
        self.column = column
        self.weight = weight
        self.units = tuple(units)
        self.num_domains = num_domains
        self.seed = seed

    @property
    def idle(self) -> bool:
        """Whether the weight is 0."""
        return self.weight == 0

    def build(self, input_shape: Any) -> None:
        """Create the discriminator, which reads the joined representations [B, sum of d]."""
        shapes = input_shape if isinstance(input_shape, list) else [input_shape]
        widths = [sum(int(shape[-1]) for shape in shapes), *self.units, self.num_domains]
        self._kernels, self._biases = [], []
        for i, (width, units) in enumerate(itertools.pairwise(widths)):
            initializer = spawn("glorot_uniform", i, self.seed)
            self._kernels.append(self.add_weight(f"kernel_{i}", [width, units], initializer=initializer))
            self._biases.append(self.add_weight(f"bias_{i}", [units], initializer="zeros"))
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the representations; in a training step, mark the loss of the step's first call."""
        marks = active_marks()
        if marks is not None and training:  # a later call of the step reads drawn negatives
            marks.row_losses.setdefault(self.name, self._loss_of(tf.nest.flatten(inputs)))
        return tf.nest.map_structure(tf.identity, inputs)

    def _loss_of(self, inputs: Sequence[tf.Tensor]) -> Callable[[Features], tf.Tensor]:
        return lambda features: self.loss(inputs, features[self.column])

    def loss(self, inputs: Sequence[tf.Tensor], domains: tf.Tensor) -> tf.Tensor:
        """Return L_d, a scalar with a reversed gradient by the representations.

        Args:
            inputs: list of representations [B, d].
            domains: encoded domain of each row, int32 [B].
        """
        joined = tf.concat([tf.cast(representation, tf.float32) for representation in inputs], axis=-1)
        hidden = reversed_gradient(joined, self.weight)
        last = len(self._kernels) - 1
        for i, (kernel, bias) in enumerate(zip(self._kernels, self._biases, strict=True)):
            hidden = tf.matmul(hidden, kernel) + bias
            hidden = hidden if i == last else tf.nn.relu(hidden)
        classes = domains - FIRST
        known = (classes >= 0) & (classes < self.num_domains)
        of_rows = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(known, classes, 0), hidden)
        number = mean_over_replicas(tf.reduce_sum(tf.cast(known, tf.float32)))
        return tf.math.divide_no_nan(tf.reduce_sum(tf.where(known, of_rows, 0.0)), number)

    def column_sources(self, inputs: Sequence[Sequence[Column]], own: Sequence[Column]) -> Sequence[Column]:
        """Return the columns of the input at the position of the output; see `tfmtl.types.HasColumnSources`."""
        position: int = own[0][1]  # type: ignore[index]  # a column of a layer's own is a triple
        return inputs[position]

    def get_config(self) -> dict[str, Any]:
        own = {"column": self.column, "weight": self.weight, "units": list(self.units)}
        return {**super().get_config(), **own, "num_domains": self.num_domains, "seed": self.seed}


def reversed_gradient(inputs: tf.Tensor, weight: float) -> tf.Tensor:
    """Return the inputs, with a gradient of -weight times that of the output.

    Example:
        >>> x = tf.constant([2.0])
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = 3 * reversed_gradient(x, 0.5)
        >>> y.numpy().tolist(), tape.gradient(y, x).numpy().tolist()
        ([6.0], [-1.5])
    """

    @tf.custom_gradient
    def reverse(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.identity(values), lambda gradient: -weight * gradient

    reversed_inputs: tf.Tensor = reverse(inputs)
    return reversed_inputs
