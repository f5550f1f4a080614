"""HoME: experts of single tasks, of groups of tasks and of all tasks, at two levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import register, tf
from tfmtl.layers.trunks.dense_trunk import trainable
from tfmtl.layers.trunks.gated_experts import ExpertArguments, GatedExperts, weighted_sums

_Owner = tuple[str, str]
"""Group and task that own a set of experts: (group, "") for a whole group, ("", "") for all tasks."""

_ALL: _Owner = ("", "")


@register
class HoME(GatedExperts):
    """HoME (hierarchy of multi-gate experts): sets of experts for all tasks, for groups of tasks and for single tasks.

    Use it for many tasks that fall into groups, such as several kinds of clicks and several kinds of watching.

    First level: the sets of all tasks and of each group read the input. Softmax gates mix them to one representation
    per group, from the sets of the group and of all tasks, and to a shared one, from all sets. Second level: the set of
    all tasks reads the shared representation, the sets of a group and of its tasks read that of the group. Each task's
    gate reads its group's representation and mixes the sets of the task, of its group and of all tasks.

    An expert with input x computes f(x * 2 sigmoid(x A B)) with its own low-rank gate A [d, rank], B [rank, d] and
    biases; each dense layer of f is act(norm(h W + b)).

    Args:
        task_names: names of the tasks.
        groups: tasks by name of the group; each task is in one group.
        num_experts: number of experts in each set.
        rank: rank of the experts' feature gates; a higher rank selects features more finely.
        activation: activation of the experts.
        **kwargs: `units`, `dropout`, `kernel_initializer`, `kernel_regularizer`, `seed`, `gate_temperature`,
            `expert_dropout`: see `MMoE`.

    Call arguments:
        inputs: [B, d].

    Returns:
        {task: [B, units[-1]]}.

    Raises:
        ValueError: if the groups do not hold each task once.

    Example:
        >>> trunk = HoME(["click", "buy", "dwell"], groups={"act": ["click", "buy"], "watch": ["dwell"]}, units=[4])
        >>> trunk(tf.ones([2, 5]))["dwell"].shape
        TensorShape([2, 4])

    Reference:
        Wang et al., "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou", KDD 2025,
        https://arxiv.org/abs/2408.05430. The paper normalises over the batch. Here norm is over an expert's units,
        without learned scale and shift: statistics of a batch differ between replicas, are noise in small batches,
        count a second forward pass of a step twice, and make the exported model differ from the trained one. The
        paper's self-gate is left out, because its exact form was not verified. Not verified either is the set of
        experts that the shared gate of the first level reads; here it reads all, as in `PLE`.

    Cost: three matrix products per layer and input for the experts, and three pairs of low-rank products.
    """

    def __init__(
        self,
        task_names: Sequence[str] | None = None,
        *,
        groups: Mapping[str, Sequence[str]],
        num_experts: int = 2,
        rank: int = 4,
        activation: Any = "swish",
        **kwargs: Unpack[ExpertArguments],
    ) -> None:
        super().__init__(task_names, activation=activation, **kwargs)
        require_positive_int(num_experts=num_experts, rank=rank)
        valid = all(isinstance(tasks, Sequence) and not isinstance(tasks, str) for tasks in groups.values())
        members = [task for tasks in groups.values() for task in tasks] if valid else []
        expected = sorted(self.task_names or set(members))
        tasks = list(self.task_names) or expected
        require(
            valid and all(groups) and all(groups.values()) and members != [] and sorted(members) == expected,
            f"`groups` must hold each of the tasks {tasks} once, in lists by name.",
            groups=groups,
        )
        self.groups = {name: list(tasks) for name, tasks in groups.items()}
        self.num_experts = num_experts
        self.rank = rank

    def _arrange(self) -> None:
        """Create experts and gates, those that serve several tasks apart from those that serve one task."""
        group_of = {task: name for name, tasks in self.groups.items() for task in tasks}
        groups = list(dict.fromkeys(group_of[task] for task in self.task_names))
        self._lone = tuple((name, "") for name in groups if len(self.groups[name]) == 1)
        self._common = (*((name, "") for name in groups if len(self.groups[name]) > 1), _ALL)
        self._tasks = tuple((group_of[task], task) for task in self.task_names)
        self._private = (*self._tasks, *self._lone)
        of_level = {"meta": (*self._common, *self._lone), "common": self._common, "private": self._private}
        self._experts = {
            name: self.make_experts(f"{name}_experts", len(owners) * self.num_experts, normalize=True)
            for name, owners in of_level.items()
        }
        self._gates = {
            "meta": self._gate("meta_gates", self._common, of_level["meta"]),
            "task": self._gate("task_gates", self._tasks, (*self._common, *self._private)),
        }
        if self._lone:
            self._gates["lone"] = self._gate("lone_gates", self._lone, of_level["meta"])

    def _gate(self, name: str, readers: Sequence[_Owner], owners: Sequence[_Owner]) -> Any:
        readable = [[_may_read(r, o) for o in owners for _ in range(self.num_experts)] for r in readers]
        return self.make_gate(name, len(readers), len(readable[0]), readable)

    def build_layers(self, input_shape: Any) -> None:
        """Create experts and gates, and the feature gates, which are as wide as the input that they scale."""
        self._arrange()
        widths = {"meta": int(input_shape[-1]), "common": self.units[-1], "private": self.units[-1]}
        self._feature_gates = {
            name: self.make_experts(
                f"{name}_feature_gates", self._experts[name].num_experts,
                units=(self.rank, width), activation="linear", dropout=0.0,
            )
            for name, width in widths.items()
        }  # fmt: skip

    def combine(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the tasks' representations, and the gates' weights of the levels "meta" and "task".

        "meta" has one reader per task and the shared reader.
        """
        experts = self.mark_shared(self._read("meta", inputs, training))
        names = ("meta", "lone") if self._lone else ("meta",)
        meta = tf.concat([self._gates[name](inputs, training=training) for name in names], axis=1)
        readers = (*self._common, *self._lone)
        by_reader = dict(zip(readers, tf.unstack(weighted_sums(meta, experts), num=len(readers), axis=1), strict=True))

        def of_groups(owners: Sequence[_Owner]) -> tf.Tensor:
            return tf.stack([by_reader[group, ""] for group, _ in owners], axis=1)

        parts = [("common", self._common), ("private", self._private)]
        experts = tf.concat([self._read(name, of_groups(owners), training) for name, owners in parts], axis=1)
        gates = self._gates["task"](of_groups(self._tasks), training=training)
        positions = [readers.index((group, "")) for group, _ in (*self._tasks, _ALL)]
        return weighted_sums(gates, experts), {"meta": tf.gather(meta, positions, axis=1), "task": gates}

    def _read(self, name: str, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Return the outputs of sets of experts for one input [B, d], or for one input per set [B, sets, d]."""
        gates = 2 * tf.sigmoid(self._feature_gates[name](inputs, training=training))
        many = inputs[:, tf.newaxis] if inputs.shape.rank == 2 else tf.repeat(inputs, self.num_experts, axis=1)
        return self._experts[name](tf.cast(many, gates.dtype) * gates, training=training)

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """All experts and gates except those of single tasks and of groups of one task."""
        layers = [part[name] for part in (self._experts, self._feature_gates) for name in ("meta", "common")]
        return trainable(*layers, self._gates["meta"])

    @classmethod
    def search_space(cls, hp: Any) -> dict[str, Any]:
        """Search the number of experts in a set, their width, their gates' rank and dropout; `groups` are given."""
        return {
            "num_experts": hp.Int("home_num_experts", 1, 4, default=2),
            "rank": hp.Choice("home_rank", [2, 4, 8], default=4),
            **super().search_space(hp),
        }

    def get_config(self) -> dict[str, Any]:
        groups = {name: list(tasks) for name, tasks in self.groups.items()}
        return {**super().get_config(), "groups": groups, "num_experts": self.num_experts, "rank": self.rank}


def _may_read(reader: _Owner, owner: _Owner) -> bool:
    """Return whether a reader, a task or a group, reads the experts of an owner; the shared reader reads all."""
    return reader == _ALL or all(theirs in ("", own) for own, theirs in zip(reader, owner, strict=True))
