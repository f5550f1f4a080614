"""MAML, ANIL and MeLU: meta-learning by the gradient through the adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl.adaptation.episodes import take
from tfmtl.adaptation.meta_gradient import meta_gradient, sum_of
from tfmtl.adaptation.meta_learner import MetaLearner
from tfmtl.data import Batch
from tfmtl.models import MultiTaskModel


class MAML(MetaLearner):
    """MAML: learns initial values from which a few steps on a task's support give a small loss on its query.

    Use it for cold-start users or markets with a handful of rows each; `Reptile` is cheaper and often close.

    theta <- theta - optimizer(mean over tasks of d L_query(phi_K(theta)) / d theta), phi_{k+1} = phi_k - inner_rate
    dL_support/dphi. With `adapt="heads"`, the default, this is ANIL, and with users as tasks it is MeLU: only the heads
    are adapted, which is cheap and nearly as good. Gradient balancers act on the gradients of the query loss.

    Args:
        model: a compiled model; its optimizer makes the outer steps.
        inner_rate, inner_steps, adapt: see `MetaLearner`.
        second_order: whether to differentiate through the inner steps; without (FOMAML) an outer step costs half.

    Example:
        >>> import numpy as np, pandas as pd
        >>> from tfmtl.data import Categorical, Label, Preprocessor, Schema, fit_statistics
        >>> from tfmtl.models import build_network
        >>> from tfmtl.tasks import Regression
        >>> schema = Schema([Categorical("user")], [Categorical("movie")], labels=[Label("stars")])
        >>> table = pd.DataFrame({"user": list("aaabbb"), "movie": list("xyzxyz"), "stars": [1, 2, 3, 3, 2, 1.0]})
        >>> preprocessor = Preprocessor.fit(schema, table)
        >>> network = build_network(preprocessor, [Regression("stars")], embedding_dim=2, tower_units=[2])
        >>> model = MultiTaskModel(network, [Regression("stars")], preprocessor)
        >>> model.compile("adam")
        >>> meta = MAML(model, inner_rate=0.1)
        >>> list(meta.fit(table, group="user", support=2)), type(meta.adapt(table.head(2))).__name__
        (['loss'], 'MultiTaskModel')

    Reference:
        Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017,
        https://arxiv.org/abs/1703.03400, algorithm 1; Raghu et al., "Rapid Learning or Feature Reuse? Towards
        Understanding the Effectiveness of MAML", ICLR 2020, https://arxiv.org/abs/1909.09157; Lee et al., "MeLU:
        Meta-Learned User Preference Estimator for Cold-Start Recommendation", KDD 2019,
        https://arxiv.org/abs/1908.00413.

    Cost: see `meta_gradient`, per task; tasks are processed one after the other.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        inner_rate: float = 0.05,
        inner_steps: int = 1,
        *,
        second_order: bool = True,
        adapt: str | Sequence[str] = "heads",
    ) -> None:
        super().__init__(model, inner_rate, inner_steps, adapt)
        self.second_order = second_order

    def learn(self, batch: Batch, support: tf.Tensor, query: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:
        """Return the query loss and its gradients for `model.trainable_variables`."""
        losses: list[tf.Tensor] = []

        def query_gradients() -> list[Any]:
            _, gradients, found = self.model.balanced_gradients(take(batch, query))
            losses.append(found.objective)
            return gradients

        gradients = meta_gradient(
            lambda: self._loss_on(batch, support),
            query_gradients,
            self.adapted,
            self.model.trainable_variables,
            rate=self.inner_rate,
            steps=self.inner_steps,
            second_order=self.second_order,
        )
        return losses[0], gradients

    def update(self, results: Sequence[list[Any]]) -> None:
        """Apply the mean of the gradients."""
        pairs = zip(sum_of(results), self.model.trainable_variables, strict=True)
        self.model.optimizer.apply_gradients([(_part(g, len(results)), v) for g, v in pairs if g is not None])


def _part(gradient: Any, number: int) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values / number, gradient.indices, gradient.dense_shape)
    return gradient / number
