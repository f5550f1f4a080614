"""The only module that imports keras-tuner and its private modules.

keras-tuner runs on Keras 3, tfmtl on Keras 2; the import of `tfmtl._keras` comes first so that the choice of Keras for
`tf.keras` is made before keras-tuner loads TensorFlow.
"""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras

import keras_tuner  # isort: skip

_TESTED = "1.4.8"
_OVERRIDDEN = {
    keras_tuner.Tuner: (
        "_populate_initial_space",
        "_try_build",
        "_get_checkpoint_fname",
        "_get_tuner_fname",
        "_is_worker",
    ),
    keras_tuner.Oracle: ("_save_trial", "_get_trial_dir", "_get_oracle_fname"),
    keras_tuner.oracles.GridSearchOracle: ("_compare",),
}  # fmt: skip


def _cure(problem: str) -> str:
    return (
        f"tfmtl.tuning was written for keras-tuner {_TESTED}, but keras-tuner {keras_tuner.__version__} {problem}; "
        f"install keras-tuner=={_TESTED}."
    )


try:
    from keras_tuner.src.backend.keras import callbacks as _keras_3_callbacks
    from keras_tuner.src.engine.metrics_tracking import MetricsTracker
    from keras_tuner.src.engine.trial import Trial
    from keras_tuner.src.engine.tuner_utils import convert_to_metrics_dict, validate_trial_results
except ImportError as error:
    raise ImportError(_cure(f"has no {error.name}")) from error

_missing = [
    f"{owner.__name__}.{name}" for owner, names in _OVERRIDDEN.items() for name in names if not hasattr(owner, name)
]
if _missing:
    raise ImportError(_cure(f"has no {', '.join(_missing)}"))


def translated_history(history: keras.callbacks.History) -> Any:
    """Return the Keras 3 `History` with the content of a Keras 2 one: keras-tuner accepts no other."""
    shell = _keras_3_callbacks.History()
    shell.history, shell.epoch = dict(history.history), list(history.epoch)
    return shell


Objective = keras_tuner.Objective

__all__ = [
    "MetricsTracker",
    "Objective",
    "Trial",
    "convert_to_metrics_dict",
    "keras_tuner",
    "translated_history",
    "validate_trial_results",
]
