"""The meta-gradient of MAML: that of a loss after steps of gradient descent, with respect to the initial values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfmtl._keras import tf

Gradients = list[Any]


def descend(loss: Callable[[], tf.Tensor], adapted: Sequence[tf.Variable], rate: float, steps: int) -> None:
    """Take `steps` steps of gradient descent on a loss, in place."""
    for _ in range(steps):
        with tf.GradientTape() as tape:
            value = loss()
        _step(adapted, tape.gradient(value, list(adapted)), rate)


def meta_gradient(
    support: Callable[[], tf.Tensor],
    query: Callable[[], Gradients],
    adapted: Sequence[tf.Variable],
    variables: Sequence[tf.Variable],
    *,
    rate: float,
    steps: int,
    second_order: bool = True,
) -> Gradients:
    """Return the gradient of a query loss after descent on a support loss, with respect to the initial values.

    With phi_{k+1} = phi_k - rate g(phi_k, psi), g = dL_s/dphi, the gradients are those of L_q(phi_K, psi). They are
    propagated back through the steps: v_K = dL_q/dphi, v_k = (I - rate H_k) v_{k+1} with H_k the second derivatives of
    the support loss at phi_k, and each step adds -rate d<g(phi_k, psi), v_{k+1}>/dpsi to the gradient of psi. The
    product is computed by differentiating <g, v>, without forming H_k. First order sets H_k to 0.

    The steps change the variables in place and restore them at the end, so that any layer can take part.

    Args:
        support: computes L_s at the current values of the variables.
        query: returns the gradients of L_q for `variables`, None for those that it does not reach.
        adapted: phi, dense variables among `variables`.
        variables: phi and psi.
        rate: of the inner steps.
        steps: K.
        second_order: whether to propagate back through the steps.

    Returns:
        One gradient per variable, None if neither loss reaches it.

    Reference:
        Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017,
        https://arxiv.org/abs/1703.03400, equation 1 and section 5.2 for the first order.

    Cost: K gradients of the support loss, one of the query loss and, for second order, K products with H.
    """
    before = [tf.identity(v) for v in adapted]
    tapes: list[tuple[tf.GradientTape, Gradients]] = []
    for _ in range(steps):
        with tf.GradientTape(persistent=False) as outer:
            with tf.GradientTape() as inner:
                value = support()
            slopes = [_dense(g) for g in inner.gradient(value, list(adapted))]
        tapes.append((outer, slopes))
        _step(adapted, slopes, rate)
    found = dict(zip([id(v) for v in variables], query(), strict=True))
    for outer, slopes in reversed(tapes if second_order else []):
        reached = [(slope, found.get(id(v))) for slope, v in zip(slopes, adapted, strict=True)]
        pairs = [(slope, _dense(v)) for slope, v in reached if slope is not None and v is not None]
        if pairs:
            back = outer.gradient([s for s, _ in pairs], list(variables), [-rate * v for _, v in pairs])
            found = {id(v): _add(found[id(v)], more) for v, more in zip(variables, back, strict=True)}
    for variable, value in zip(adapted, before, strict=True):
        variable.assign(value)
    return [found[id(v)] for v in variables]


def _step(variables: Sequence[tf.Variable], gradients: Sequence[Any], rate: float) -> None:
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            variable.assign_sub(rate * tf.convert_to_tensor(gradient))


def _dense(gradient: Any) -> Any:
    return gradient if gradient is None else tf.convert_to_tensor(gradient)


def _add(left: Any, right: Any) -> Any:
    """Return the sum of two gradients; the sum of two sparse ones is sparse."""
    if left is None or right is None:
        return right if left is None else left
    if isinstance(left, tf.IndexedSlices) and isinstance(right, tf.IndexedSlices):
        values, indices = (tf.concat([getattr(g, part) for g in (left, right)], 0) for part in ("values", "indices"))
        return tf.IndexedSlices(values, indices, left.dense_shape)
    return tf.convert_to_tensor(left) + tf.convert_to_tensor(right)


def sum_of(gradients: Sequence[Gradients]) -> Gradients:
    """Return the sum over tasks for each variable."""
    total = list(gradients[0])
    for more in gradients[1:]:
        total = [_add(left, right) for left, right in zip(total, more, strict=True)]
    return total
