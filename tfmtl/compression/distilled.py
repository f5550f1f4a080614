"""A student that learns each task from the labels and from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfmtl._checks import require, require_known, require_type
from tfmtl._keras import keras, register, seed_of, spawn, tf
from tfmtl._passes import once
from tfmtl.compression.cross_task import CrossTask, check_cross_task, order_loss
from tfmtl.compression.teacher import TaughtBatch, Teacher, as_float32, representation, with_representations
from tfmtl.data.source import Source, encoded_source
from tfmtl.layers.marks import mark_outputs
from tfmtl.layers.noise.mixup import MixupPartners
from tfmtl.models import MultiTaskModel
from tfmtl.models.cut import run
from tfmtl.models.step_model import TaskLosses
from tfmtl.tasks import Task
from tfmtl.tasks.batch_loss import batch_loss
from tfmtl.tasks.task import mean_over_observed, total_weight

Distance = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_OPTIONS = (
    "teacher",
    "alpha",
    "temperature",
    "unlabelled_rows",
    "embedding_weight",
    "representation_weight",
    "cross_task",
    "embedding_distance",
    "precompute",
)


def cosine_distance(target: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Return 1 - cos(target, value) of rows [B, d] as [B]; 0 where they point the same way.

    Example:
        >>> cosine_distance(tf.constant([[3.0, 0.0]]), tf.constant([[0.0, 2.0]])).numpy().tolist()
        [1.0]
    """
    return 1.0 - tf.reduce_sum(tf.math.l2_normalize(target, 1) * tf.math.l2_normalize(value, 1), axis=1)


@register
class DistilledModel(MultiTaskModel):
    """A student model that learns from labels and from a trained teacher, for all tasks together.

    Use it instead of `distil` to control training yourself, for example to prune and distil in one training.

    L_k = (1 - alpha_k) hard_k + alpha_k soft_k + embedding_weight mean_i D(v_i^teacher, P_k v_i)
    + representation_weight mean_i D(h_ki^teacher, Q_k h_ki) for each task k: hard_k is the task's own loss, soft_k its
    `distillation_loss` (ranking: T^2 KL of softened probabilities, or the squared difference of standardised values;
    retrieval: T^2 KL of the score distributions over the batch's candidates, on the positive rows, which is listwise).
    The term of the embeddings v applies to both towers of retrieval tasks; the term of the representations h, the
    trunk's outputs by task, applies to tasks with a trunk. P and Q are learned linear maps that are not part of the
    network. `cross_task` adds a further term. Balancer, callbacks and logs are those of `MultiTaskModel`; validation
    reports the hard losses, comparable with those of any other model.

    Args:
        network, tasks, preprocessor, balancer, candidates, seed: as in `MultiTaskModel`.
        teacher: a trained model with these tasks and this encoding. It is run in inference mode and shares no variable
            with this model.
        alpha: share of the teacher, in [0, 1]; one for all or by task ("" for the others).
        temperature: T, softens the teacher's distributions; above 0, one for all or by task.
        unlabelled_rows: whether ranking tasks also imitate the teacher on rows without a label of theirs.
        embedding_weight: weight of the distance between the towers' embeddings; 0 leaves it out.
        representation_weight: weight of the distance between the trunks' outputs by task; 0 leaves it out.
        cross_task: weights by learning task and teaching task, such as `{"bought": {"clicked": 0.1}}`, for binary
            tasks. The teacher's logits of the other task order the rows that have equal labels; see `order_loss`.
        embedding_distance: D, (target [B, d], value [B, d]) -> [B]; any function of `keras.losses` fits.
        precompute: whether the teacher predicts each row of a table once before training, instead of in every step.

    Raises:
        ValueError: if the teacher lacks a task, has other outputs or another encoding, or an argument is out of range.

    Reference:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, https://arxiv.org/abs/1503.02531,
        section 2, which also explains the factor T^2; the embedding term is that of Romero et al., "FitNets", ICLR
        2015, https://arxiv.org/abs/1412.6550, equation 3, with a distance of one's choice, as is that of
        representations. The distribution over a list is that of Cao et al., "Learning to Rank: From Pairwise Approach
        to Listwise Approach", ICML 2007, section 4.2 (top one). Learning a task's order from another one's teacher is
        the idea of Yang et al., "Cross-Task Knowledge Distillation in Multi-Task Recommendation", AAAI 2022,
        https://arxiv.org/abs/2202.09852, here without tasks added for it, without calibration and error correction.

    Cost: one forward pass of the teacher over the table (with `precompute`) or per step, and two more B x B matrices of
    scores per retrieval task. Precomputed outputs stay in memory: 4 bytes per number, 2 d numbers per row and retrieval
    task.
    """

    def __init__(
        self,
        network: keras.Model,
        *args: Any,
        teacher: MultiTaskModel,
        alpha: float | Mapping[str, float] = 0.5,
        temperature: float | Mapping[str, float] = 2.0,
        unlabelled_rows: bool = True,
        embedding_weight: float = 0.0,
        representation_weight: float = 0.0,
        cross_task: CrossTask | None = None,
        embedding_distance: Distance = cosine_distance,
        precompute: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, *args, **kwargs)
        require_type(teacher, MultiTaskModel, "teacher")
        held = {id(variable) for variable in teacher.network.variables}
        shared = [variable.name for variable in network.variables if id(variable) in held]
        require(
            not shared,
            f"Teacher and student must be two networks, but share {len(shared)} variables, such as {shared[:1]}; build "
            "another network for the student.",
        )
        mixed = any(isinstance(layer, MixupPartners) for layer in network.layers)
        require(not mixed, "A teacher has no predictions for mixed rows; build the student's network without `mixup`.")
        self._alphas, self._temperatures = self._by_task(alpha, "alpha"), self._by_task(temperature, "temperature")
        for share in self._alphas.values():
            require(0 <= share <= 1, "`alpha` must lie between 0 (labels only) and 1 (teacher only).", alpha=alpha)
        for value in self._temperatures.values():
            require(value > 0, "`temperature` must be above 0.", temperature=temperature)
        weights = {"embedding_weight": embedding_weight, "representation_weight": representation_weight}
        for name, weight in weights.items():
            require(weight >= 0, f"`{name}` must be 0 or more.", **{name: weight})
        self.alpha = alpha
        self.temperature = temperature
        self.unlabelled_rows = unlabelled_rows
        self.embedding_weight = float(embedding_weight)
        self.representation_weight = float(representation_weight)
        self.cross_task = {name: dict(others) for name, others in (cross_task or {}).items()}
        check_cross_task(self.cross_task, self.tasks)
        self.embedding_distance = embedding_distance
        self.precompute = precompute
        self._teacher = Teacher(teacher, representations=representation_weight > 0)
        self._teacher.check(self)
        self._with_representations = with_representations(network) if representation_weight else network
        self._projections = self._build_projections(teacher) if embedding_weight else {}
        self._maps = self._build_maps() if representation_weight else {}

    @classmethod
    def of(cls, student: MultiTaskModel, teacher: MultiTaskModel, **options: Any) -> DistilledModel:
        """Return a model that trains the student's own network; `options` are this class's arguments."""
        model = cls(student.network, **student.arguments(), teacher=teacher, **options)
        model.adopt_state(student)
        return model

    @property
    def teacher(self) -> MultiTaskModel:
        """The teacher."""
        return self._teacher.model

    def without_teacher(self) -> MultiTaskModel:
        """Return the student as a plain model around the same network, with the state of the balancer and the tasks."""
        return MultiTaskModel(self.network, **super().arguments()).adopt_state(self)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments but the network; see `MultiTaskModel.arguments`."""
        return {**super().arguments(), **{name: getattr(self, name) for name in _OPTIONS}}

    @property
    def _taught(self) -> bool:
        """Whether training uses the teacher."""
        weights = self.embedding_weight, self.representation_weight, self.cross_task
        return any(self._alphas.values()) or any(map(bool, weights))

    def _by_task(self, given: float | Mapping[str, float], name: str) -> dict[str, float]:
        names = [task.name for task in self.tasks]
        if not isinstance(given, Mapping):
            return dict.fromkeys(names, float(given))
        require_known([key for key in given if key], names, "task", f"`{name}`")
        missing = [] if "" in given else [key for key in names if key not in given]
        require(not missing, f'`{name}` names no value for the tasks {missing}; add them, or "" for all others.')
        return {key: float(given[key] if key in given else given[""]) for key in names}

    def compute_losses(self, data: Any, training: bool) -> TaskLosses:
        """Return each task's loss, in training mixed with the teacher's, and the weight of its rows."""
        if not training or not self._taught:
            return super().compute_losses(data, training)
        outputs = run(self._with_representations, data.features, True)
        for task in self.trained_tasks:
            mark_outputs(task.name, outputs[task.name])
            key = representation(task.name)
            if key in outputs:  # the loss reads a copy, so that the task's output does not depend on it
                outputs[key] = tf.identity(outputs[key])
                mark_outputs(task.name, outputs[key])
        names = [task.name for task in self.tasks]
        taught = (
            data.taught
            if isinstance(data, TaughtBatch)
            else once("teacher", lambda: self._teacher.outputs(data.features, names))
        )
        mixed = {task.name: self._mixed_loss(task, data, outputs, taught) for task in self.trained_tasks}
        return {**self.no_losses(), **mixed}

    def _mixed_loss(self, task: Task, data: Any, outputs: Any, taught: Any) -> tuple[tf.Tensor, tf.Tensor]:
        name, own, target = task.name, as_float32(outputs[task.name]), taught[task.name]
        labels, weights, inputs = self.loss_arguments(task, data, training=True)
        hard, weight = batch_loss(task, labels, own, weights, inputs)
        soft_weights = task.distillation_weight(labels, weights)
        if not self.unlabelled_rows:
            soft_weights = tf.where(weights > 0, soft_weights, 0.0)
        soft = task.distillation_loss(own, target, soft_weights, inputs, self._temperatures[name])
        loss = (1 - self._alphas[name]) * hard + self._alphas[name] * soft
        for side, projection in self._projections.get(name, {}).items():
            loss += self.embedding_weight * self._distance(target[side], projection(own[side]), soft_weights)
        if name in self._maps:
            key = representation(name)
            mapped = self._maps[name](as_float32(outputs[key]))
            loss += self.representation_weight * self._distance(taught[key], mapped, soft_weights)
        for other, strength in self.cross_task.get(name, {}).items():
            logits = task.event_logit(own)[:, 0], self._task(other).event_logit(taught[other])[:, 0]
            loss += strength * order_loss(*logits, labels, weights)
        # Without labels of the task, a batch still trains it by the teacher; the balancer must count these rows.
        return loss, tf.where(weight > 0, weight, total_weight(soft_weights))

    def _task(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    def _distance(self, target: tf.Tensor, value: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return the weighted mean over the rows."""
        distances = self.embedding_distance(target, value)
        return mean_over_observed(distances, weights)[0]

    def training_source(self, source: Source) -> Source:
        """Return the training data; the rows of a table get the teacher's outputs as further columns."""
        cure = "give it a table with histories, as `with_histories` makes it"
        require(not source.sequences, f"A teacher predicts single rows, not sequences; {cure}.")
        table: Any = source.in_memory(self.preprocessor) if self.precompute and self._taught else None
        if table is None:
            return source
        taught = self._teacher.outputs_of_table(table.features, [task.name for task in self.tasks])
        return encoded_source(TaughtBatch(table.features, table.labels, table.weights, table.ids, taught))

    def _build_projections(self, teacher: MultiTaskModel) -> dict[str, dict[str, Any]]:
        retrieval = [task.name for task in self.tasks if isinstance(self.network.output[task.name], Mapping)]
        require(bool(retrieval), "`embedding_weight` needs a retrieval task; the student has none.")
        taught = teacher.network.output
        return {name: _projections(name, self.network.output[name], taught[name], self.seed) for name in retrieval}

    def _build_maps(self) -> dict[str, Any]:
        own, taught = self._with_representations.output, self._teacher.network.output
        keys = {task.name: representation(task.name) for task in self.tasks}
        common = {name: key for name, key in keys.items() if key in own and key in taught}
        require(bool(common), "`representation_weight` needs a trunk in both networks, with tasks in common.")
        return {name: _linear(f"{name}_trunk", own[key], taught[key], self.seed) for name, key in common.items()}


def _projections(task: str, own: Mapping[str, Any], taught: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return a linear map for each tower, from this model's embeddings to the teacher's."""
    return {side: _linear(f"{task}_{side}", own[side], taught[side], seed) for side in own}


def _linear(name: str, own: Any, taught: Any, seed: int) -> keras.layers.Layer:
    initial = spawn("glorot_uniform", 0, seed_of(name, seed))
    layer = keras.layers.Dense(taught.shape[-1], use_bias=False, kernel_initializer=initial, dtype="float32")
    layer.build(own.shape)
    return layer
