"""Increment by increment: test, grow, train, save, publish."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl.adaptation.drift import Alarm, DriftMonitor
from tfmtl.adaptation.growth import extend_vocabularies
from tfmtl.adaptation.journal import Journal
from tfmtl.adaptation.replay import Replay, joined
from tfmtl.data import to_batch
from tfmtl.models import MultiTaskModel
from tfmtl.models.as_arrays import from_arrays, to_arrays

Evaluate = Callable[[MultiTaskModel, Any], Mapping[Any, float]]
Publish = Callable[[MultiTaskModel], Any]


@dataclasses.dataclass(frozen=True)
class Increment:
    """What one increment was and did.

    Attributes:
        name: of the increment.
        rows: of its table.
        metrics: by name, of the model before it saw the table.
        alarms: columns and metrics that have changed.
        grown: values that entered, by vocabulary.
        version: what `publish` returned, as text; None if nothing was published.
    """

    name: str
    rows: int
    metrics: Mapping[str, float]
    alarms: Sequence[Alarm]
    grown: Mapping[str, int]
    version: str | None = None


class OnlineLearner:
    """Keeps a model up with data that come in increments, such as the table of a day.

    A step evaluates the model on the increment before it learns from it (prequential: test, then train), compares the
    increment with those before, grows vocabularies and corpus, trains on the increment mixed with replayed rows, saves
    everything that training goes on with, and publishes the model as a new version.

    Whatever happens to the process, an increment counts when the manifest names it, which is written in one step after
    its state: killed before that, the increment is made again from the state it began with, with the same draws; killed
    after that, it is not made again. Only publishing can happen twice, with one and the same model, if the process
    dies between the publication and the note of it.

    Args:
        model: compiled and trained on what was there before. A learning rate schedule that has fallen to 0 teaches
            nothing more: end it above, or compile anew.
        folder: for the manifest and the states; one learner a folder.
        evaluate: called with model and table, returns more metrics by name, such as ranks over the whole corpus; the
            losses and metrics of `model.evaluate` are there without it.
        publish: called with the model, such as `functools.partial(tfmtl.export, directory="saved_models/shop")`, whose
            versions lie beside each other, so that the one before stays.
        replay: a sample of what was before; let it have the rows of the first training by `replay.add`.
        drift: compares the increments.
        epochs: over an increment's table.
        batch_size: rows a step, replayed ones included.
        headroom: see `extend_vocabularies`; without room every increment with a new value traces its training anew.
        memory: before an increment, the streaming counts of retrieval are scaled down to at most so many times its
            rows, or None to keep all. Next to the counts of a long past a new candidate would seem never to be in a
            batch, and the correction of its score would bury it: on groceries (benchmarks/lifecycle_online.py) that
            cost 1 % of NDCG in four weeks.
        keep: states kept, at least the current one and the one before, for `rollback`.
        **fit: more arguments of `fit`, such as `callbacks`.

    Attributes:
        model: the current model; another object after growth.
        increments: what has been done, oldest first.

    Raises:
        ValueError: if the folder already has a learner, or an argument is out of range.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> from tfmtl._keras import keras
        >>> from tfmtl.data import Categorical, Label, Preprocessor, Schema, fit_statistics
        >>> from tfmtl.models import build_network
        >>> from tfmtl.tasks import Regression
        >>> schema = Schema([Categorical("user_id")], [Categorical("movie_id")], labels=[Label("rating")])
        >>> table = pd.DataFrame({"user_id": ["u", "v"], "movie_id": ["m", "m"], "rating": [4.0, 5.0]})
        >>> preprocessor, heads = Preprocessor.fit(schema, table), [Regression("rating")]
        >>> model = MultiTaskModel(build_network(preprocessor, heads), heads, preprocessor)
        >>> model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
        >>> folder = tempfile.mkdtemp()
        >>> done = OnlineLearner(model, folder).step(table.assign(user_id=["u", "w"]), name="2026-11-28")
        >>> done.rows, done.grown
        (2, {'user_id': 1})
        >>> OnlineLearner.resume(folder).step(table, name="2026-11-28") == done  # not made again
        True

    Reference:
        Gama, Sebastião and Rodrigues, "On Evaluating Stream Learning Algorithms", Machine Learning 90, 2013,
        https://doi.org/10.1007/s10994-012-5320-9 (prequential evaluation).

    Cost: an evaluation of the increment, `epochs` over it and the replayed rows, and a copy of the model, its
    optimiser's slots and the replayed rows on disk.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        folder: str | os.PathLike[str],
        *,
        evaluate: Evaluate | None = None,
        publish: Publish | None = None,
        replay: Replay | None = None,
        drift: DriftMonitor | None = None,
        epochs: int = 1,
        batch_size: int = 1024,
        headroom: float = 0.25,
        memory: float | None = 10.0,
        keep: int = 2,
        **fit: Any,
    ) -> None:
        self._configure(
            folder,
            evaluate,
            publish,
            {"epochs": epochs, "batch_size": batch_size, "headroom": headroom, "memory": memory},
            keep,
            fit,
        )
        require(not self._journal.exists, f"{folder} has a learner already; go on with `OnlineLearner.resume(folder)`.")
        require(getattr(model, "optimizer", None) is not None, "The model learns on with its optimiser; compile it.")
        self.model, self.replay, self.drift = model, replay, drift
        self.increments: list[Increment] = []
        self._save()

    def _configure(
        self, folder: Any, evaluate: Evaluate | None, publish: Publish | None,
        options: Mapping[str, Any], keep: int, fit: Mapping[str, Any],
    ) -> None:  # fmt: skip
        require_positive_int(epochs=options["epochs"], batch_size=options["batch_size"])
        require(options["headroom"] >= 0, "`headroom` must be 0 or more.", headroom=options["headroom"])
        memory = options["memory"]
        require(memory is None or memory > 0, "`memory` must be above 0, or None to forget nothing.", memory=memory)
        require(keep >= 2, "`keep` must be at least 2: the current state and the one before.", keep=keep)
        self._journal = Journal(folder)
        self._evaluate, self._publish = evaluate, publish
        self._options, self._keep, self._fit = dict(options), keep, {"verbose": 0, **fit}
        self._whole = True

    @classmethod
    def resume(
        cls,
        folder: str | os.PathLike[str],
        *,
        evaluate: Evaluate | None = None,
        publish: Publish | None = None,
        **fit: Any,
    ) -> OnlineLearner:
        """Return the learner of a folder as its last increment left it, in a process of its own or not.

        A version that the last increment did not come to publish is published now.

        Args:
            folder, evaluate, publish, **fit: as in the constructor; the other arguments are kept in the folder.

        Raises:
            ValueError: if the folder has no learner.
        """
        manifest = Journal(folder).read()
        learner = cls.__new__(cls)
        learner._configure(folder, evaluate, publish, manifest["options"], manifest["keep"], fit)
        learner._load(manifest)
        learner._publish_if_due()
        return learner

    def step(self, table: Any, name: str, *, candidates: Any = None) -> Increment:
        """Make an increment: test, grow, train, save, publish.

        Args:
            table: pandas table with the columns of the schema.
            name: of the increment, such as its date; one that has been made is not made again.
            candidates: see `extend_vocabularies`.

        Returns:
            The record of the increment, or that of its first time.
        """
        done = [increment for increment in self.increments if increment.name == name]
        if done:
            return done[0]
        if not self._whole:  # an increment was interrupted by an error and left a half-trained model
            self._load(self._journal.read())
        self._whole = False
        metrics = self.evaluate(table)
        alarms = self.drift.update(self.model.schema, table, metrics) if self.drift else []
        before = self.model.preprocessor.statistics.vocabularies
        self.model = extend_vocabularies(self.model, table, candidates=candidates, headroom=self._options["headroom"])
        after = self.model.preprocessor.statistics.vocabularies
        grown = {vocabulary: len(after[vocabulary]) - len(values) for vocabulary, values in before.items()}
        self._train(table)
        grown = {vocabulary: count for vocabulary, count in grown.items() if count}
        self.increments.append(Increment(name, len(table), metrics, tuple(alarms), grown))
        self._save()
        self._whole = True
        self._publish_if_due()
        return self.increments[-1]

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the manifest and the states."""
        return self._journal.folder

    def evaluate(self, table: Any) -> dict[str, float]:
        """Return the metrics of a table by name, without learning from it."""
        metrics = dict(self.model.evaluate(table, return_dict=True, verbose=0))
        if self._evaluate is not None:
            more = self._evaluate(self.model, table)
            metrics |= {"/".join(k) if isinstance(k, tuple) else str(k): value for k, value in more.items()}
        return {name: float(value) for name, value in metrics.items()}

    def _train(self, table: Any) -> None:
        batch = to_batch(table, self.model.preprocessor)
        rows = joined(batch, None if self.replay is None else self.replay.draw(len(table)))
        for task in self.model.tasks:
            if self._options["memory"] is not None:
                task.limit_counts(self._options["memory"] * len(table))
        self.model.fit(rows, epochs=self._options["epochs"], batch_size=self._options["batch_size"], **self._fit)
        if self.replay is not None:
            self.replay.add(batch)

    def rollback(self) -> Increment | None:
        """Take the last increment back: the state and the model of before, published again as the newest version.

        Servers take the newest version, and nothing that was published is removed. The name of the increment is free
        again.

        Returns:
            The record of the increment that is the last now, or None if that is the start.

        Raises:
            ValueError: if no increment is left to take back, or the state before it is not kept.
        """
        require(bool(self.increments), "There is no increment to take back.")
        number = len(self.increments) - 1
        cure = "keep more states with `keep`"
        require(self._journal.has_state(number), f"The state before {self.increments[-1].name!r} is gone; {cure}.")
        manifest = self._manifest()
        manifest["increments"] = manifest["increments"][:-1]
        if manifest["increments"]:
            manifest["increments"][-1]["version"] = None
        self._journal.write(manifest)
        self._load(manifest)
        self._publish_if_due()
        if self._publish is not None and not self.increments:
            self._publish(self.model)
        return self.increments[-1] if self.increments else None

    def _save(self) -> None:
        config, arrays = to_arrays(self.model)
        state: dict[str, Any] = {"model": config, "drift": self.drift.get_state() if self.drift else None}
        state["replay"], rows = self.replay.get_state() if self.replay is not None else (None, {})
        arrays |= {f"replay/{name}": column for name, column in rows.items()}
        number = len(self.increments)
        self._journal.write_state(number, state, arrays)
        self._journal.write(self._manifest())
        self._journal.forget(range(number + 1 - self._keep, number + 1))

    def _manifest(self) -> dict[str, Any]:
        increments = [dataclasses.asdict(increment) for increment in self.increments]
        return {"options": self._options, "keep": self._keep, "increments": increments}

    def _load(self, manifest: Mapping[str, Any]) -> None:
        self.increments = [
            Increment(**{**record, "alarms": tuple(Alarm(**alarm) for alarm in record["alarms"])})
            for record in manifest["increments"]
        ]
        state, arrays = self._journal.read_state(len(self.increments))
        rows = {key.split("/", 1)[1]: arrays.pop(key) for key in list(arrays) if key.startswith("replay/")}
        self.model = from_arrays(state["model"], arrays)
        self.replay = Replay.from_state(state["replay"], rows) if state["replay"] else None
        self.drift = DriftMonitor.from_state(state["drift"]) if state["drift"] else None
        self._whole = True

    def _publish_if_due(self) -> None:
        """Publish the last increment's model unless that is noted, and note it."""
        if self._publish is None or not self.increments or self.increments[-1].version is not None:
            return
        version = str(self._publish(self.model))
        self.increments[-1] = dataclasses.replace(self.increments[-1], version=version)
        self._journal.write(self._manifest())
