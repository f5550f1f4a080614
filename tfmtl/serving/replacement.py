"""Replacement of the candidates of an exported model: a new version with the same network and another corpus."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence, Sized
from typing import Any

import numpy as np
from tensorflow.core.protobuf import trackable_object_graph_pb2

from tfmtl._checks import require
from tfmtl._keras import tf
from tfmtl._names import layer_name
from tfmtl.data import Schema
from tfmtl.data.distinct_candidates import distinct_candidates, raw_candidate_ids
from tfmtl.serving.exporter import describe_in
from tfmtl.serving.index import check_corpus
from tfmtl.serving.inverted_file import RESTORED, InvertedFile
from tfmtl.serving.publishing import publish
from tfmtl.serving.recommender import ROWS
from tfmtl.serving.static_shapes import fix_shapes
from tfmtl.serving.verification import difference
from tfmtl.serving.versions import check_files, read_manifest, version_of
from tfmtl.serving.warm_up import read_requests, tensor

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_UNCHANGED = ("rank", "embed_query", "embed_candidate", "explain")
_REPLACEABLE = ("exact", "inverted file")


def replace_candidates(directory: str | os.PathLike[str], frame: Any, *, version: int | None = None) -> pathlib.Path:
    """Publish a version with the same network and other candidates.

    Use it when the catalogue changes between trainings: it needs only the exported folder, neither training nor the
    model in memory.

    Args:
        directory: the folder of the model; its newest version is the source.
        frame: pandas table with the candidate features, as in `Candidates.from_frame`. Ids that were not in the
            training data are embedded as unknown ids, with their other features.
        version: an integer from 1 to 2**63 - 1, or None for the next one.

    Returns:
        `directory/<version>`, complete. An inverted file is clustered again, and its recall measured on the same
        queries.

    Any number of candidates from 1 is possible. The outputs keep their widths: with fewer candidates than `max_k`,
    the positions after the last one hold the id `""` or -1 and the score 0.

    Raises:
        ValueError: if a file of the version is damaged or a symbolic link, the version does not retrieve or searches by
            `ScaNN`, or the table lacks a column or has no row.
        RuntimeError: if an answer of `rank` or an embedding would change.
        FileExistsError, OSError: as in `Exporter.export`.

    After any error no version appears and no file stays.
    """
    return _publish(pathlib.Path(directory), frame, version, kept=False)


def add_candidates(
    directory: str | os.PathLike[str], frame: Any, *, remove_ids: Sequence[Any] = (), version: int | None = None
) -> pathlib.Path:
    """Publish a version with additional candidates, and without some of the present ones; see `replace_candidates`.

    Args:
        directory: the folder of the model; its newest version is the source.
        frame: pandas table of the candidates to add; a candidate with a present id replaces the present one. A table
            without rows adds none.
        remove_ids: ids of the candidates to remove, of any type that the id column may have.
        version: an integer from 1 to 2**63 - 1, or None for the next one.

    Raises:
        ValueError: as in `replace_candidates`, or if `remove_ids` holds an id that is no candidate of the version, or
            no candidate is left.
    """
    return _publish(pathlib.Path(directory), frame, version, kept=True, remove_ids=remove_ids)


def _publish(
    directory: pathlib.Path, frame: Any, version: int | None, kept: bool, remove_ids: Sequence[Any] = ()
) -> pathlib.Path:
    source = version_of(directory)
    require_plain_files(source)
    check_files(source)
    manifest = read_manifest(source)
    kind = manifest.get("search", {}).get("kind", "exact")
    require(
        kind in _REPLACEABLE,
        f"{source} searches by {kind}, which is learned from the candidates when a model is exported; "
        "export the model again with the new candidates.",
    )
    model = tf.saved_model.load(str(source))
    require(hasattr(model, "encode_candidates"), f"{source} does not retrieve, so it has no candidates.")
    described = manifest["card"]["schema"]
    require(
        described["candidate_id"] != "",
        f"{source} was exported before versions held the name of the candidate id; export the model again.",
    )
    schema = Schema.from_config(described)
    checkpoint = Checkpoint(source)
    present = _Corpus.stored(checkpoint, schema)
    if kept and isinstance(frame, Sized) and not len(frame):
        new, columns = present.without(remove_ids, schema)
    else:
        new, columns = present.encoded(model, frame, schema)
        if kept:
            left, stored = present.without(remove_ids, schema, {*new.tolist()})
            new = np.concatenate([left, new])
            columns = {name: np.concatenate([stored[name], column]) for name, column in columns.items()}
    check_corpus(new)
    depth = manifest.get("rerank_depth", manifest["max_k"])
    least = manifest.get("min_candidates", depth)
    require(
        len(new) >= least,
        f"{source} was exported before versions could have fewer candidates than they retrieve; "
        f"keep at least {least}, or export the model again.",
        candidates=len(new),
    )
    changed = {"corpus_ids": new, **{layer_name(f"candidate_{name}"): value for name, value in columns.items()}}
    search = dict(manifest["search"])
    if search["kind"] == "inverted file":
        search |= _cluster(model, checkpoint, columns, search, min(depth, len(new)), changed)
    manifest |= {"candidates": len(new), "search": search}
    return publish(directory, lambda folder: _write(folder, source, checkpoint, changed, manifest), version)


@dataclasses.dataclass(frozen=True)
class _Corpus:
    """The candidates of a version: ids [C] and encoded features [C, ...] by name."""

    ids: np.ndarray
    columns: Mapping[str, np.ndarray]

    @classmethod
    def stored(cls, checkpoint: Checkpoint, schema: Schema) -> _Corpus:
        """Return the candidates of a version."""
        names = [feature.name for feature in schema.candidate]
        columns = {name: checkpoint.value(layer_name(f"candidate_{name}")) for name in names}
        return cls(checkpoint.value("corpus_ids"), columns)

    def typed(self, ids: Sequence[Any]) -> np.ndarray:
        """Return raw ids in the type of the stored ones."""
        dtype = tf.int64 if self.ids.dtype.kind == "i" else tf.string
        return np.asarray(tf.constant(ids, dtype))

    def encoded(self, model: Any, frame: Any, schema: Schema) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Return the distinct ids of a table, and their features encoded by the version."""
        ids, raw = distinct_candidates(frame, schema)
        encoded = model.encode_candidates({name: tf.constant(column) for name, column in raw.items()})
        return self.typed(ids.tolist()), {name: encoded[name].numpy() for name in self.columns}

    def without(
        self, remove_ids: Sequence[Any], schema: Schema, replaced: Collection[Any] = ()
    ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Return ids and features without those of the removed and the replaced candidates."""
        removed = {*self.typed(raw_candidate_ids(remove_ids, schema, "remove_ids")).tolist()}
        absent = sorted(removed - {*self.ids.tolist()})
        require(not absent, "`remove_ids` must hold ids of candidates; the version lacks some.", absent=absent[:3])
        gone = removed.union(replaced)
        rows = np.asarray([row for row, value in enumerate(self.ids.tolist()) if value not in gone], np.int64)
        return self.ids[rows], {name: column[rows] for name, column in self.columns.items()}


def require_plain_files(folder: pathlib.Path) -> None:
    """Raise unless a folder holds only files and folders: a link would publish a file of another folder.

    Raises:
        ValueError: with the path of the link or the special file.
    """
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        plain = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "no plain file"
        require(plain, f"{path} is {kind}, which is not copied into a version; replace it by the file itself.")


class Checkpoint:
    """The variables of an exported version, by their names in TensorFlow."""

    def __init__(self, version: pathlib.Path) -> None:
        self._reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(self._reader.get_tensor(_GRAPH))
        attributes = [attribute for node in graph.nodes for attribute in node.attributes]
        self._keys = {attribute.full_name: attribute.checkpoint_key for attribute in attributes}

    def value(self, name: str) -> np.ndarray:
        """Return the value of a variable."""
        return np.asarray(self._reader.get_tensor(self._keys[name]))

    def write(self, folder: pathlib.Path, changed: Mapping[str, np.ndarray]) -> None:
        """Write all variables, with new values for the changed ones."""
        values = {key: self._reader.get_tensor(key) for key in self._reader.get_variable_to_shape_map()}
        for name, value in changed.items():
            values[self._keys[name]] = value if value.dtype == object else value.astype(self.value(name).dtype)
        prefix = str(folder / "variables")
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=list(values.values())
        )


def _cluster(
    model: Any,
    checkpoint: Checkpoint,
    columns: Mapping[str, np.ndarray],
    search: Mapping[str, Any],
    k: int,
    changed: Any,
) -> dict[str, Any]:
    """Add the variables of a new inverted file to `changed`, and return its entries of the manifest."""
    widened = {n: v.astype(np.int32) if v.dtype.kind in "iu" else v for n, v in columns.items()}
    count = len(next(iter(columns.values())))
    parts = [
        model.embed_candidates({name: tf.constant(value[i : i + ROWS]) for name, value in widened.items()}).numpy()
        for i in range(0, count, ROWS)
    ]
    embeddings, queries = np.concatenate(parts), checkpoint.value("corpus_queries")
    settings = InvertedFile(
        **{name: search[name] for name in RESTORED if name in search}, probes=search["given_probes"]
    )
    blocks = settings.blocks(embeddings, queries)
    probes, recall = settings.choose_probes(blocks, embeddings, queries, k)
    changed |= {"corpus_blocks": blocks, "corpus_probes": np.asarray(probes)}
    return {"probes": probes, "blocks": len(blocks), "recall": recall}


def _write(
    folder: pathlib.Path, source: pathlib.Path, checkpoint: Checkpoint, changed: Any, manifest: dict[str, Any]
) -> None:
    shutil.copytree(
        source, folder, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("variables", "fingerprint.pb")
    )
    (folder / "variables").mkdir()
    checkpoint.write(folder / "variables", changed)
    fix_shapes(folder, {name: np.shape(value) for name, value in changed.items()})
    manifest["fingerprint"] = tf.saved_model.experimental.read_fingerprint(str(folder)).singleprint()
    describe_in(folder, manifest)
    before, after = (tf.saved_model.load(str(path)).signatures for path in (source, folder))
    for name, stored in read_requests(source).items():
        request = {i: tensor(value) for i, value in stored.items()}
        answer = after[name](**request)
        expected = before[name](**request) if name in _UNCHANGED else answer
        worst = max(difference(expected[output], value) for output, value in answer.items())
        if not worst <= 1e-5:
            raise RuntimeError(
                f"Signature {name!r} differs by {worst:.3g} with the new candidates; nothing was published."
            )
