"""A keras-tuner tuner for Keras 2 models, with any search strategy."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from tfmtl._checks import require
from tfmtl._keras import keras, tf
from tfmtl.tuning import oracles
from tfmtl.tuning._keras_tuner import keras_tuner
from tfmtl.tuning.callbacks import BestCheckpoint, EpochRelay
from tfmtl.tuning.objectives import checked_outcome
from tfmtl.tuning.oracles import check_json, write_json
from tfmtl.tuning.trials_table import cause

HyperModel: TypeAlias = keras_tuner.HyperModel | Callable[[keras_tuner.HyperParameters], keras.Model]

_FATAL = keras_tuner.errors.FatalError
_COMPILE_ARGUMENTS = ("optimizer", "loss", "metrics")
_KERAS_3 = re.compile(r"(?<!tf_)keras\.src\.")
_IMPORT = "objects of Keras 3 do not work in a Keras 2 model; use `import tf_keras as keras`, not `import keras`"


class Tuner(keras_tuner.Tuner):
    """A `keras_tuner.Tuner` for Keras 2 models of any class and `train_step`.

    The value of a trial is the objective in its best epoch (the mean over `executions_per_trial` runs), its checkpoint
    that epoch's weights and optimizer. A trial with an objective of NaN or infinity has failed, and so has one
    that raised an error; failed trials are never among the best. A search that was killed continues when the same
    tuner is made again with `overwrite=False`: completed trials are kept, the interrupted one starts again. The printed
    output of a search is keras-tuner's own; `verbose=0` turns it off.

    Args:
        oracle: the search strategy.
        hypermodel: a function of `keras_tuner.HyperParameters` that returns a compiled model, or a
            `keras_tuner.HyperModel`. It is called once per combination of conditional parameters on construction.
        **options: of `keras_tuner.Tuner`: `directory`, `project_name`, `overwrite`, `executions_per_trial`,
            `max_model_size`, `distribution_strategy`, `tuner_id`.

    Raises:
        ValueError: if `optimizer`, `loss` or `metrics` are given: keras-tuner would make Keras 3 objects of them.

    Cost: one checkpoint per trial on disk, optimizer state included.
    """

    def __init__(self, oracle: keras_tuner.Oracle, hypermodel: HyperModel, **options: Any) -> None:
        given = [name for name in _COMPILE_ARGUMENTS if options.get(name) is not None]
        rule = "A tuner takes no `optimizer`, `loss` or `metrics`; compile the model in the function that builds it."
        require(not given, rule, given=given)
        super().__init__(oracle, hypermodel, **options)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Run trials until the strategy ends; the arguments go to `model.fit` of every trial.

        Callbacks are copied for every run. TensorBoard also gets the hyperparameters if its callback is among them.

        Raises:
            RuntimeError: if no trial completed, with the first error; or if more than `max_consecutive_failed_trials`
                failed in a row.
            TypeError: if a callback is not a Keras 2 callback.
            ImportError: if there is a TensorBoard callback but no package `tensorboard`.
        """
        _require_keras_2_callbacks(fit_kwargs.get("callbacks") or ())
        try:
            super().search(*fit_args, **fit_kwargs)
        except _FATAL:
            raise
        except RuntimeError as error:
            self._require_a_success(error)
            raise
        self._require_a_success()

    def save(self) -> None:
        """Save the state of the search and of the tuner; a kill leaves each file as it was, or as it is now."""
        if not self._is_worker():
            self.oracle.save()
        write_json(self._get_tuner_fname(), self.get_state())

    def reload(self) -> None:
        """Load both states.

        Raises:
            DamagedFileError: a `ValueError`, naming the file that is damaged.
        """
        check_json(self._get_tuner_fname())
        super().reload()

    def on_search_begin(self) -> None:
        """Save the search, so that one killed in its first trial resumes as well."""
        self.save()

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> list[Any]:
        """Train and evaluate a trial's model `executions_per_trial` times; one outcome a run."""
        callbacks = list(fit_kwargs.pop("callbacks", None) or ())
        values = trial.hyperparameters.values
        if "tuner/epochs" in values:  # Hyperband decides the epochs
            fit_kwargs |= {"epochs": values["tuner/epochs"], "initial_epoch": values["tuner/initial_epoch"]}
        best = BestCheckpoint(self.oracle.objective, self._get_checkpoint_fname(trial.trial_id))
        outcomes = []
        for execution in range(self.executions_per_trial):
            copies = self._copies(callbacks, trial, execution)
            fit_kwargs["callbacks"] = [*copies, EpochRelay(self, trial), best]
            outcomes.append(self._run(trial.hyperparameters, fit_args, fit_kwargs))
        return outcomes

    def load_model(self, trial: Any) -> keras.Model:
        """Build a trial's model again and restore its best epoch."""
        model = self._try_build(trial.hyperparameters)
        self._restore(model, trial.trial_id)
        return model

    def get_best_models(self, num_models: int = 1) -> list[keras.Model]:
        """Return at most `num_models` models of completed trials, the best first.

        Raises:
            RuntimeError: if no trial has completed.
        """
        self._require_ranking()
        models: list[keras.Model] = super().get_best_models(num_models)
        return models

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[Any]:
        """Return the hyperparameters of at most `num_trials` completed trials, the best first.

        Raises:
            RuntimeError: if no trial has completed.
        """
        self._require_ranking()
        found: list[Any] = super().get_best_hyperparameters(num_trials)
        return found

    def _run(self, hp: keras_tuner.HyperParameters, fit_args: Sequence[Any], fit_kwargs: dict[str, Any]) -> Any:
        keras.backend.clear_session()
        gc.collect()
        model = self._try_build(hp)
        promoted = hp.values.get("tuner/trial_id")
        if promoted is not None:  # Hyperband continues a trial of its last round
            self._restore(model, promoted)
        return checked_outcome(self.hypermodel.fit(hp, model, *fit_args, **fit_kwargs), self.oracle.objective)

    def _copies(self, callbacks: list[Any], trial: Any, execution: int) -> list[Any]:
        copies: list[Any] = self._deepcopy_callbacks(callbacks)
        if any(isinstance(callback, keras.callbacks.TensorBoard) for callback in copies):
            self._configure_tensorboard_dir(copies, trial, execution)
        return copies

    def _populate_initial_space(self) -> None:
        with _keras_3_explained():
            super()._populate_initial_space()

    def _try_build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        with self._scope(), _keras_3_explained():
            model = self.hypermodel.build(hp)
        if not isinstance(model, keras.Model):
            raise keras_tuner.errors.FatalTypeError(
                "The function that builds the model must return a Keras 2 model (tf_keras.Model). "
                f"Received: {type(model).__module__}.{type(model).__qualname__}."
            )
        if self.max_model_size and model.built and model.count_params() > self.max_model_size:
            raise keras_tuner.errors.FailedTrialError(
                f"The model has {model.count_params()} parameters, more than max_model_size={self.max_model_size}."
            )
        return model

    def _restore(self, model: keras.Model, trial_id: str) -> None:
        path = self._get_checkpoint_fname(trial_id)
        if not tf.io.gfile.exists(f"{path}.index"):
            raise FileNotFoundError(
                f"Trial {trial_id} has no checkpoint at {path}; a HyperModel's `fit` must hand the `callbacks` it is "
                "given to `model.fit`."
            )
        with self._scope():
            status = model.load_weights(path)
        if model.built:
            status.assert_existing_objects_matched()
        status.expect_partial()  # an evaluated model never reads the optimizer's slots

    def _scope(self) -> contextlib.AbstractContextManager[Any]:
        strategy = self.distribution_strategy
        return contextlib.nullcontext() if strategy is None else strategy.scope()

    def _get_checkpoint_fname(self, trial_id: str) -> str:
        return f"{self.get_trial_dir(trial_id)}/checkpoint/weights"

    def _require_a_success(self, error: Exception | None = None) -> None:
        if self._is_worker():  # the chief holds the trials
            return
        trials = self.oracle.trials.values()
        failed = [trial for trial in trials if trial.status == oracles.FAILED]
        if failed and not any(trial.status == oracles.COMPLETED for trial in trials):
            message = failed[0].message or "no message"
            raise RuntimeError(
                f"None of the {len(failed)} trials completed; the first error, of trial {failed[0].trial_id}, was "
                f"{cause(message)}\n{message}"
            ) from error

    def _require_ranking(self) -> None:
        if not self.oracle.get_best_trials(1):
            raise RuntimeError(f"No trial has completed in {self.project_dir}; call `search` first.")


@contextlib.contextmanager
def _keras_3_explained() -> Iterator[None]:
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        if not isinstance(error, _FATAL) and _KERAS_3.search(str(error)):
            raise keras_tuner.errors.FatalTypeError(f"The model could not be built: {_IMPORT}. ({error})") from error
        raise


def _require_keras_2_callbacks(callbacks: Iterable[Any]) -> None:
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            kind = f"{type(callback).__module__}.{type(callback).__qualname__}"
            raise TypeError(f"`callbacks` must be Keras 2 callbacks (tf_keras.callbacks). Received: {kind}; {_IMPORT}.")
        if isinstance(callback, keras.callbacks.TensorBoard) and importlib.util.find_spec("tensorboard") is None:
            raise ImportError("The TensorBoard callback logs hyperparameters with the package tensorboard; install it.")
