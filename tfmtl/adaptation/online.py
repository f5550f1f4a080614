"""Online learning: test, grow, train, save and publish, increment by increment."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfmtl._checks import require, require_positive_int
from tfmtl._keras import SafeModeScope
from tfmtl._saved_files import DamagedFileError, contents_of, made_from
from tfmtl.adaptation.drift import Alarm, DriftMonitor
from tfmtl.adaptation.growth import extend_vocabularies
from tfmtl.adaptation.journal import CURE, Journal
from tfmtl.adaptation.replay import Replay, joined
from tfmtl.data import to_batch
from tfmtl.models import MultiTaskModel
from tfmtl.models.as_arrays import from_arrays, to_arrays

Evaluate = Callable[[MultiTaskModel, Any], Mapping[Any, float]]
Publish = Callable[[MultiTaskModel], Any]


@dataclasses.dataclass(frozen=True)
class Increment:
    """The record of one increment.

    Attributes:
        name: name of the increment.
        rows: number of rows of its table.
        metrics: metrics by name, of the model before it was trained on the table.
        alarms: columns and metrics that have changed.
        grown: number of values that entered, by vocabulary.
        version: the result of `publish` as text; None if nothing was published.
    """

    name: str
    rows: int
    metrics: Mapping[str, float]
    alarms: Sequence[Alarm]
    grown: Mapping[str, int]
    version: str | None = None


class OnlineLearner:
    """Online learning: keeps a model up to date with data that arrive in increments, such as the table of a day.

    Use it for models that are trained further every day or hour and served in between. A step evaluates the model on
    the increment before it is trained on it (prequential: test, then train), compares the increment with the preceding
    ones, grows vocabularies and corpus, trains on the increment mixed with replayed rows, saves the complete state of
    training, and publishes the model as a new version.

    The process may be killed at any moment. An increment is complete once the manifest contains it, which is written in
    one step after its state. An incomplete increment is repeated from the same state with the same draws; a complete
    one is not repeated. Only publishing can happen twice, with the same model, if the process is killed between the
    publication and its record.

    One process at a time may hold a learner of a folder; a process that has ended holds none. Within a process, the
    learner that `resume` returns replaces an earlier one of the folder. Every file has a checksum, and `resume`
    continues from the preceding state if the newest one is damaged.

    Args:
        model: compiled, and trained on earlier data. Its learning rate schedule must not have fallen to 0: let it end
            above 0, or compile the model again.
        folder: for the manifest and the states; one folder per learner.
        evaluate: function of model and table that returns more metrics by name, such as ranks over the whole corpus,
            in addition to those of `model.evaluate`.
        publish: function of the model, such as `functools.partial(tfmtl.export, directory="saved_models/shop")`, which
            writes each version to its own folder.
        replay: the table of the first training, of which `Replay.of` keeps a sample to train on together with new rows;
            or a `Replay` that holds earlier rows; or None to learn from new rows alone, which forgets. On a marketplace
            NDCG@10 of the next purchase was 0.018 with a sample of earlier rows, 0.012 with None, 0.003 with a sample
            that began empty, which is refused, and 0.016 by a training from scratch every week.
        drift: compares the increments.
        epochs: epochs over an increment's table.
        batch_size: rows per step, including replayed ones.
        headroom: see `extend_vocabularies`; at 0 every increment with a new value needs a new trace of the step.
        memory: before an increment, the streaming counts of retrieval are scaled down to at most this multiple of its
            rows, or None to keep them. Compared with the counts of a long past, a new candidate would seem never to
            be in a batch, and the correction of its score would be too large: on groceries
            (benchmarks/lifecycle_online.py) that cost 1 % of NDCG in four weeks.
        keep: number of states to keep, at least the current and the preceding one, for `rollback`.
        **fit: more arguments of `fit`, such as `callbacks`.

    Attributes:
        model: the current model; another object after growth.
        increments: the records of all increments, oldest first.

    Raises:
        ValueError: if the folder already contains a learner or states of one, an argument is out of range, or a
            `Replay` holds no rows.
        RuntimeError: if another process holds a learner of the folder.

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
        >>> learner = OnlineLearner(model, folder, replay=table)
        >>> done = learner.step(table.assign(user_id=["u", "w"]), name="2026-11-28")
        >>> done.rows, done.grown
        (2, {'user_id': 1})
        >>> OnlineLearner.resume(folder).step(table, name="2026-11-28") == done  # not repeated
        True

    Reference:
        Gama, Sebastião and Rodrigues, "On Evaluating Stream Learning Algorithms", Machine Learning 90, 2013,
        https://doi.org/10.1007/s10994-012-5320-9 (prequential evaluation).

    Cost: an evaluation of the increment, `epochs` epochs over it and the replayed rows, and a copy on disk of the
    model, its optimizer's slots and the sample of rows.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        folder: str | os.PathLike[str],
        *,
        evaluate: Evaluate | None = None,
        publish: Publish | None = None,
        replay: Any,
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
        require(getattr(model, "optimizer", None) is not None, "The model has no optimizer; compile it first.")
        empty = isinstance(replay, Replay) and replay.share > 0 and not len(replay)
        cure = "give the table of the first training instead, add its rows by `replay.add`, or pass None"
        require(not empty, f"`replay` holds no rows, and a sample of increments alone ranks badly; {cure}.")
        self._require_unused()
        self._journal.lock()
        self._require_unused()  # by a process that has ended since
        self.model, self.replay, self.drift = model, _filled(replay, model), drift
        self.increments: list[Increment] = []
        self._save()

    def _require_unused(self) -> None:
        resume = "continue it with `OnlineLearner.resume(folder)`"
        require(not self._journal.exists, f"{self.folder} has a learner already; {resume}.")
        require(
            not self._journal.states,
            f"{self.folder} holds states of a learner but no {self._journal.manifest.name}, which a new learner would "
            f"delete; {resume}, which restores it from the newest state, or give another folder.",
        )

    def _configure(
        self, folder: Any, evaluate: Evaluate | None, publish: Publish | None,
        options: Mapping[str, Any], keep: int, fit: Mapping[str, Any],
    ) -> None:  # fmt: skip
        require_positive_int(epochs=options["epochs"], batch_size=options["batch_size"])
        require(options["headroom"] >= 0, "`headroom` must be 0 or more.", headroom=options["headroom"])
        memory = options["memory"]
        require(memory is None or memory > 0, "`memory` must be above 0, or None to keep all counts.", memory=memory)
        require(keep >= 2, "`keep` must be at least 2: the current and the preceding state.", keep=keep)
        self._journal = folder if isinstance(folder, Journal) else Journal(folder)
        self._evaluate, self._publish = evaluate, publish
        self._options, self._keep, self._fit = dict(options), keep, {"verbose": 0, **fit}
        self._whole = self._fallback = self._safe_mode = True

    @classmethod
    def resume(
        cls,
        folder: str | os.PathLike[str],
        *,
        evaluate: Evaluate | None = None,
        publish: Publish | None = None,
        fallback: bool = True,
        safe_mode: bool = True,
        **fit: Any,
    ) -> OnlineLearner:
        """Return the learner of a folder in its state after the last complete increment, such as in a new process.

        If the model of this increment was not published, it is published now.

        Args:
            folder, evaluate, publish, **fit: as in the constructor; the folder contains the other arguments.
            fallback: whether to continue from the newest whole state if a later one is damaged, with a warning that
                lists the increments that must be repeated; False to raise.
            safe_mode: as in `tfmtl.models.load_model`.

        Raises:
            ValueError: if the folder has no learner, or could run code of its author; a `DamagedFileError`, with the
                file, if no state is whole.
            RuntimeError: if another process holds a learner of the folder.
        """
        journal = Journal(folder)
        if journal.exists or journal.states:
            journal.lock()
        manifest, restored = _manifest_of(journal, fallback)
        learner = cls.__new__(cls)
        with contents_of(journal.manifest, CURE):
            learner._configure(journal, evaluate, publish, manifest["options"], manifest["keep"], fit)
        learner._fallback, learner._safe_mode = fallback, safe_mode
        learner._load(manifest)
        if restored:
            journal.write(learner._manifest())
        learner._publish_if_due()
        return learner

    def step(self, table: Any, name: str, *, candidates: Any = None) -> Increment:
        """Make an increment: test, grow, train, save, publish.

        Args:
            table: pandas table with the columns of the schema.
            name: name of the increment, such as its date; an increment with a known name is not repeated.
            candidates: see `extend_vocabularies`.

        Returns:
            The record of the increment.
        """
        done = [increment for increment in self.increments if increment.name == name]
        if done:
            return done[0]
        self._journal.check_lock()
        if not self._whole:  # an error interrupted an increment and left a half-trained model
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
        """Return the metrics of a table by name, without training on it."""
        metrics = dict(self.model.evaluate(table, return_dict=True, verbose=0))
        if self._evaluate is not None:
            more = self._evaluate(self.model, table)
            metrics |= {"_".join(k) if isinstance(k, tuple) else str(k): value for k, value in more.items()}
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
        """Undo the last increment: restore the preceding state and publish its model again as the newest version.

        Servers load the newest version; no published version is removed. The name of the increment can be used again.

        Returns:
            The record of the increment before, or None if there is none.

        Raises:
            ValueError: if there is no increment to undo, or the preceding state is not kept.
        """
        require(bool(self.increments), "There is no increment to undo.")
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
        state["manifest"] = self._manifest()  # in case the file is lost
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
        with contents_of(self._journal.manifest, CURE):
            increments = [
                Increment(**{**record, "alarms": tuple(Alarm(**alarm) for alarm in record["alarms"])})
                for record in manifest["increments"]
            ]
        count = len(increments)
        earlier = [number for number in reversed(self._journal.states) if number < count]
        fault: DamagedFileError | None = None
        for number in [count, *(earlier if self._fallback else [])]:
            try:
                self._restore(number)
            except DamagedFileError as error:
                fault = fault or error
                continue
            self.increments = increments[:number]
            if fault is not None:
                _warn(fault, self._journal.state(number), [increment.name for increment in increments[number:]])
            return
        assert fault is not None
        raise fault

    def _restore(self, number: int) -> None:
        """Set the model, the sample of rows and the state of drift detection to those of a state."""
        path = self._journal.state(number)
        if not path.is_file():
            raise DamagedFileError(path, "it is missing", CURE)
        state, arrays = self._journal.read_state(number)
        rows = {key.split("/", 1)[1]: arrays.pop(key) for key in list(arrays) if key.startswith("replay/")}
        with made_from(path, CURE), contents_of(path, CURE), SafeModeScope(self._safe_mode):
            self.model = from_arrays(state["model"], arrays, str(path))
            self.replay = Replay.from_state(state["replay"], rows) if state["replay"] else None
            self.drift = DriftMonitor.from_state(state["drift"]) if state["drift"] else None
        self._whole = True

    def _publish_if_due(self) -> None:
        """Publish the last increment's model and record its version, unless that is done."""
        if self._publish is None or not self.increments or self.increments[-1].version is not None:
            return
        version = str(self._publish(self.model))
        self.increments[-1] = dataclasses.replace(self.increments[-1], version=version)
        self._journal.write(self._manifest())


def _filled(replay: Any, model: MultiTaskModel) -> Replay | None:
    """Return a sample of rows: the given one, or that of the table of the first training."""
    return replay if replay is None or isinstance(replay, Replay) else Replay.of(replay, model.preprocessor)


def _manifest_of(journal: Journal, fallback: bool) -> tuple[dict[str, Any], bool]:
    """Return the manifest of a folder, or the copy in the newest state that has one, and whether it is this copy."""
    try:
        if journal.exists or not journal.states:
            return journal.read(), False
        raise DamagedFileError(journal.manifest, "it is missing", CURE)
    except DamagedFileError as error:
        for number in reversed(journal.states if fallback else []):
            with contextlib.suppress(DamagedFileError):
                manifest = journal.read_state(number)[0].get("manifest")  # earlier versions stored no copy
                if manifest:
                    _warn(error, journal.state(number), [])
                    return manifest, True
        raise


def _warn(fault: DamagedFileError, used: pathlib.Path, lost: Sequence[str]) -> None:
    repeat = f"; the increments {list(lost)} must be made again" if lost else ""
    warnings.warn(
        f"{fault} The learner continues from {used}{repeat}. Pass `fallback=False` to `resume` to refuse this.",
        stacklevel=4,
    )
