"""Exporter: traces a trained model, writes a SavedModel, reloads and compares it, and publishes it as a version."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tfmtl
from tfmtl._checks import require, require_type
from tfmtl._keras import tf
from tfmtl.data.columns import to_columns
from tfmtl.models import MultiTaskModel
from tfmtl.models.strategies import local_copy
from tfmtl.serving.budget import Budget
from tfmtl.serving.card import ModelCard, markdown
from tfmtl.serving.on_load import ComputedOnLoad
from tfmtl.serving.publishing import publish
from tfmtl.serving.server_config import model_name, server_command, write_batching
from tfmtl.serving.signature import Signature
from tfmtl.serving.slimming import slim
from tfmtl.serving.static_shapes import fix_shapes, unknown_shapes
from tfmtl.serving.storage import narrowed
from tfmtl.serving.verification import Tensors, foreign_operations, probe_features, verify
from tfmtl.serving.versions import MANIFEST, write_manifest
from tfmtl.serving.warm_up import write_requests, write_warm_up

CARD = pathlib.PurePath("assets.extra", "model_card.md")
"""The description of a version, as Markdown."""

_SERVED = (tf.float32, tf.int64, tf.string)  # JSON has no half precision, so that servers refuse to send it


@dataclasses.dataclass(frozen=True)
class Servable:
    """The content of an exported version.

    Attributes:
        signatures: signatures by name.
        resources: lookup tables and modules that the signatures use; their variables need not be listed.
        description: plain values for clients, stored with the model.
        functions: traced functions for tools, saved as attributes beside the signatures.
        namespaces: namespaces of operations, such as `Scann`, that a server needs beyond TensorFlow's own.
    """

    signatures: Mapping[str, Signature]
    resources: Sequence[Any] = ()
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    functions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    namespaces: Sequence[str] = ()

    def trace(self) -> dict[str, Any]:
        """Return the concrete functions by name; two names of one signature share it.

        Raises:
            ValueError: if an output has no batch dimension or a type that servers do not send.
        """
        functions = {name: signature.traced for name, signature in self.signatures.items()}
        for name, function in functions.items():
            for output, tensor in function.structured_outputs.items():
                valid = tensor.dtype in _SERVED and tensor.shape.rank and tensor.shape[0] is None
                require(
                    valid,
                    f"Output {output!r} of signature {name!r} must be float32, int64 or string [B, ...].",
                    tensor=tensor,
                )
        return functions

    def requests(self, features: Tensors) -> dict[str, dict[str, tf.Tensor]]:
        """Return one request per signature: given features [B, ...], and its examples repeated to B rows."""
        return {name: signature.request(features) for name, signature in self.signatures.items()}


class Exporter(abc.ABC):
    """Publishes models as SavedModels that a stock TensorFlow Serving loads; a subclass defines the signatures.

    `RecommenderExporter` is the usual one. Write another for signatures that have nothing in common with its own.
    """

    @abc.abstractmethod
    def servable(self, model: MultiTaskModel) -> Servable:
        """Return the signatures of a trained model and the resources that they use."""

    def export(
        self,
        model: MultiTaskModel,
        directory: str | os.PathLike[str],
        *,
        version: int | None = None,
        probe: Any = None,
        card: ModelCard | None = None,
        budget: Budget | None = None,
    ) -> pathlib.Path:
        """Publish a model as a version, after its answers and its budget have been checked on a reloaded copy.

        Args:
            model: the trained model; it is not changed.
            directory: the folder of the model, which holds its versions.
            version: an integer from 1 to 2**63 - 1, or None for the next one.
            probe: pandas table of feature columns; the model in memory and the reloaded one must answer its rows alike.
                By default the rows are made from the vocabularies and include unknown and missing values.
            card: description, metrics and data of the model. Its tasks, features and package versions are added.
            budget: limits of size, latency and of the metrics of the card.

        Returns:
            `directory/<version>`, complete.

        Raises:
            ValueError: if the model cannot be served with these arguments or answers NaN.
            BudgetExceeded: a `ValueError`, if the version misses a limit; the message holds a table of the limits.
            FileExistsError: if the version exists.
            RuntimeError: if the reloaded model answers differently, or needs an operation that belongs neither to
                TensorFlow nor to the `namespaces` of the servable.
            OSError: if the disk is full.

        After any error no version appears and no file stays.
        """
        require_type(model, MultiTaskModel, "model")
        model, name = local_copy(model), model_name(directory)

        def write(folder: pathlib.Path) -> None:
            features = (
                probe_features(model.schema, model.preprocessor.statistics) if probe is None else _raw(probe, model)
            )
            described = {
                "card": (card or ModelCard()).describe(model),
                "serve": server_command(name),
            }
            _write(self.servable(model), features, folder, described, budget)

        return publish(pathlib.Path(directory), write, version)


def _write(
    servable: Servable, features: Tensors, folder: pathlib.Path, described: Mapping[str, Any], budget: Budget | None
) -> None:
    functions = servable.trace()
    requests = servable.requests(features)
    expected = {name: functions[name](**request) for name, request in requests.items()}
    _require_finite(expected)
    bare = tf.Module()  # without Keras objects, so that neither optimizer nor Keras metadata are saved
    bare.resources = list(servable.resources)
    bare.narrow_variables, bare.read_variables = narrowed(_variables(functions))
    for name, function in {**_of_dicts(functions), **servable.functions}.items():
        if not hasattr(bare, name):
            setattr(bare, name, function)
    for resource in servable.resources:
        for part in getattr(resource, "submodules", ()):
            if isinstance(part, ComputedOnLoad):
                part.fill_before(bare.narrow_variables)
    options = tf.saved_model.SaveOptions(namespace_whitelist=list(servable.namespaces))
    tf.saved_model.save(bare, str(folder), signatures=functions, options=options)
    slim(folder)
    fix_shapes(folder, unknown_shapes(_variables(functions)))
    differences = verify(folder, expected, requests, namespaces=servable.namespaces)
    manifest: dict[str, Any] = {
        "tfmtl": tfmtl.__version__,
        "tensorflow": tf.__version__,
        "fingerprint": tf.saved_model.experimental.read_fingerprint(str(folder)).singleprint(),
        "largest_difference_after_reload": differences,
        "foreign_operations": foreign_operations(folder),
        "signatures": {name: _describe(function) for name, function in functions.items()},
        **servable.description,
        **described,
    }
    (folder / MANIFEST).parent.mkdir()
    write_requests(folder, requests)
    write_warm_up(folder, functions, requests)
    write_batching(folder)
    describe_in(folder, manifest)
    if budget is not None:
        describe_in(folder, {**manifest, "budget": budget.check(folder, requests, described["card"]["metrics"])})


def describe_in(folder: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Write the model card and the manifest of a version after its other files."""
    (folder / CARD).write_text(markdown(manifest))
    write_manifest(folder, manifest)


def _of_dicts(functions: Mapping[str, Any]) -> dict[str, Any]:
    """Return functions that take the inputs of a signature in one dict, as `keras.layers.TFSMLayer` calls them."""

    def of_dict(function: Any) -> Any:
        specs = function.structured_input_signature[1]
        return tf.function(lambda inputs: function(**inputs), autograph=False).get_concrete_function(specs)

    return {name: of_dict(function) for name, function in functions.items()}


def _variables(functions: Mapping[str, Any]) -> list[tf.Variable]:
    """Return the variables that the functions read, without repetitions."""
    return list({id(v): v for function in functions.values() for v in function.graph.variables}.values())


def _raw(probe: Any, model: MultiTaskModel) -> dict[str, tf.Tensor]:
    columns = to_columns(probe, model.schema.features.values())
    return {name: tf.constant(values) for name, values in columns.items()}


def _require_finite(answers: Mapping[str, Tensors]) -> None:
    for name, answer in answers.items():
        for output, tensor in answer.items():
            finite = tensor.dtype != tf.float32 or bool(tf.reduce_all(tf.math.is_finite(tensor)))
            require(
                finite,
                f"Output {output!r} of signature {name!r} is not finite; the model's weights hold NaN or infinity.",
            )


def _describe(function: Any) -> dict[str, dict[str, str]]:
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs
    return {
        "inputs": {name: _form(spec) for name, spec in inputs.items()},
        "outputs": {name: _form(tensor) for name, tensor in outputs.items()},
    }


def _form(tensor: Any) -> str:
    """Return dtype and shape as in `float32 [B, 10]`; `n` is a width that each request may choose."""
    sizes = ["B", *("n" if size is None else str(size) for size in tensor.shape[1:])]
    return f"{tensor.dtype.name} [{', '.join(sizes)}]"
