"""Ready parts of a search space, for use in the function that builds a model.

A class that can be searched has a class method `search_space(hp)`, which returns constructor arguments drawn from `hp`;
`sample_trunk` uses it. The functions here return numbers and instances, and register
their hyperparameters under the names their docstrings give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tfmtl._checks import require, require_fraction, require_known
from tfmtl._keras import keras
from tfmtl.layers import SequenceAugmentation
from tfmtl.models import Regularization
from tfmtl.tuning._keras_tuner import keras_tuner


class Searchable(Protocol):
    """A class with constructor arguments that can be drawn from hyperparameters."""

    @classmethod
    def search_space(cls, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Return constructor arguments drawn from `hp`."""


def loss_weights(
    hp: keras_tuner.HyperParameters,
    task_names: Sequence[str],
    low: float = 0.1,
    high: float = 10.0,
    reference: str | None = None,
) -> dict[str, float]:
    """Return a fixed loss weight for every task, drawn evenly on the logarithmic scale.

    Hyperparameters: `loss_weight/<task>`, by default 1, of every task except the reference.

    Args:
        hp: hyperparameters of the trial.
        task_names: names of the tasks.
        low: smallest weight, above 0.
        high: largest weight.
        reference: task with weight 1. Only ratios of weights change an optimum, so one task can be left out of the
            search.

    Raises:
        ValueError: if `low` and `high` are not in order, a name occurs twice or `reference` is no task.

    Example:
        >>> loss_weights(keras_tuner.HyperParameters(), ["click", "rating"], reference="click")
        {'click': 1.0, 'rating': 1.0}
    """
    require(0 < low < high, "`low` and `high` of the loss weights must satisfy 0 < low < high.", low=low, high=high)
    distinct = len(set(task_names)) == len(task_names) > 0
    require(distinct, "`task_names` must be distinct names, at least one.", task_names=task_names)
    require_known([] if reference is None else [reference], task_names, "reference task", "`task_names`")
    default = _clipped(1.0, low, high)
    return {
        name: 1.0 if name == reference else hp.Float(f"loss_weight/{name}", low, high, sampling="log", default=default)
        for name in task_names
    }


def sample_regularization(
    hp: keras_tuner.HyperParameters,
    l1: Sequence[float] = (0.0, 1e-6, 1e-5, 1e-4, 1e-3),
    l2: Sequence[float] = (0.0, 1e-6, 1e-5, 1e-4, 1e-3),
    max_dropout: float = 0.5,
    further: Sequence[str] = (),
    **fixed: Any,
) -> Regularization:
    """Return a network's regularisation: the strengths of the L1 and L2 penalties, the dropout rate and more.

    Hyperparameters: `l1` and `l2`, choices because a logarithmic range has no 0, `dropout` in steps of 0.1, and those
    of `further`; all 0 by default. Each more needs trials: on a small budget name one or two.

    Args:
        hp: hyperparameters of the trial.
        l1: strengths to choose from, the first is the default.
        l2: strengths to choose from, the first is the default.
        max_dropout: largest dropout rate, in [0, 1).
        further: fields of `Regularization` to search besides: `embedding_dropout` up to 0.5, `feature_dropout` up to
            0.3, `modality_dropout` and `expert_dropout` up to 0.4, which need a fusion and a trunk with experts,
            `embedding_l2` up to 1e-3, `mixup` up to 1 and `sequence`, the three shares of `SequenceAugmentation`.
            The smoothing of labels is in the `search_space` of the tasks that have it, and trunks' own dropout in
            theirs.
        **fixed: other fields of `tfmtl.models.Regularization`.

    Raises:
        ValueError: if a strength is negative, the rate not in [0, 1), or a field cannot be searched or is fixed, too.

    Example:
        >>> found = sample_regularization(keras_tuner.HyperParameters(), unknown_rate=0.0)
        >>> found.dropout, found.unknown_rate
        (0.0, 0.0)
        >>> sample_regularization(keras_tuner.HyperParameters(), further=["mixup", "feature_dropout"]).mixup
        0.0
    """
    valid = all(len(strengths) > 0 and min(strengths) >= 0 for strengths in (l1, l2))
    require(valid, "`l1` and `l2` must be strengths of at least 0, at least one each.", l1=l1, l2=l2)
    require_fraction(max_dropout=max_dropout)
    require_known(further, _FURTHER, "field", "`further`")
    both = [name for name in further if name in fixed]
    require(not both, f"The fields {both} are searched and fixed; leave them out of one.")
    drawn = {name: _FURTHER[name](hp) for name in further}
    return Regularization(
        l1=hp.Choice("l1", [float(strength) for strength in l1]),
        l2=hp.Choice("l2", [float(strength) for strength in l2]),
        dropout=hp.Float("dropout", 0.0, max_dropout, step=0.1) if max_dropout else 0.0,
        **drawn,
        **fixed,
    )


def _up_to(name: str, largest: float, step: float) -> Callable[[Any], float]:
    return lambda hp: hp.Float(name, 0.0, largest, step=step, default=0.0)


def _augmentation(hp: keras_tuner.HyperParameters) -> SequenceAugmentation | None:
    shares = SequenceAugmentation.search_space(hp)
    return SequenceAugmentation(**shares) if any(shares.values()) else None


_FURTHER: dict[str, Callable[[Any], Any]] = {
    "embedding_dropout": _up_to("embedding_dropout", 0.5, 0.1),
    "feature_dropout": _up_to("feature_dropout", 0.3, 0.05),
    "modality_dropout": _up_to("modality_dropout", 0.4, 0.1),
    "expert_dropout": _up_to("expert_dropout", 0.4, 0.1),
    "embedding_l2": lambda hp: hp.Choice("embedding_l2", [0.0, 1e-6, 1e-5, 1e-4, 1e-3]),
    "mixup": lambda hp: hp.Choice("mixup", [0.0, 0.1, 0.2, 0.4, 1.0]),
    "sequence": _augmentation,
}


def sample_optimizer(
    hp: keras_tuner.HyperParameters,
    kinds: Sequence[Callable[..., keras.optimizers.Optimizer]] = (keras.optimizers.Adam, keras.optimizers.Adagrad),
    low: float = 1e-4,
    high: float = 1e-1,
) -> keras.optimizers.Optimizer:
    """Return a new optimizer with a learning rate drawn evenly on the logarithmic scale.

    Hyperparameters: `optimizer`, the name of the class; `learning_rate`, by default 1e-3.

    Args:
        hp: hyperparameters of the trial.
        kinds: Keras 2 optimizer classes to choose from, the first is the default.
        low: smallest learning rate, above 0.
        high: largest learning rate.

    Raises:
        ValueError: if `low` and `high` are not in order or two classes have one name.

    Example:
        >>> type(sample_optimizer(keras_tuner.HyperParameters())).__name__
        'Adam'
    """
    require(0 < low < high, "`low` and `high` of the learning rate must satisfy 0 < low < high.", low=low, high=high)
    kind = _by_name(kinds, "kinds")[hp.Choice("optimizer", [each.__name__ for each in kinds])]
    return kind(learning_rate=hp.Float("learning_rate", low, high, sampling="log", default=_clipped(1e-3, low, high)))


def sample_trunk(hp: keras_tuner.HyperParameters, trunks: Sequence[type[Searchable]], **fixed: Any) -> Any:
    """Return an instance of one of the trunk classes, its arguments drawn from its own search space.

    Hyperparameters: `trunk`, the name of the class; those of its `search_space`, under `<class>/`, are only active
    while the class is chosen.

    Args:
        hp: hyperparameters of the trial.
        trunks: classes to choose from, the first is the default.
        **fixed: arguments for every class, such as `seed`; they win over drawn ones. `task_names` are not needed:
            `build_network` gives a trunk the names of its tasks.

    Raises:
        ValueError: if there is no class or two have one name.

    Example:
        >>> from tfmtl.layers import MMoE, SharedBottom
        >>> hp = keras_tuner.HyperParameters()
        >>> sample_trunk(hp, [SharedBottom, MMoE]).units, hp.values["trunk"]
        ((64,), 'SharedBottom')
    """
    by_name = _by_name(trunks, "trunks")
    chosen = hp.Choice("trunk", list(by_name))
    arguments: dict[str, Any] = {}
    for name, kind in by_name.items():
        # entered for every class: keras-tuner learns here which conditions it has to try
        with hp.conditional_scope("trunk", [name]), hp.name_scope(name):
            if name == chosen:
                arguments = kind.search_space(hp)
    return by_name[chosen](**{**arguments, **fixed})


def _clipped(default: float, low: float, high: float) -> float:
    return min(max(default, low), high)


def _by_name(kinds: Sequence[Any], argument: str) -> dict[str, Any]:
    names = [kind.__name__ for kind in kinds]
    distinct = len(set(names)) == len(names) > 0
    require(distinct, f"`{argument}` must be classes with distinct names, at least one.", **{argument: names})
    return dict(zip(names, kinds, strict=True))
