"""A network as a file for LiteRT, the runtime of phones and other small devices once called TensorFlow Lite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmtl._checks import require_type
from tfmtl._keras import tf
from tfmtl._names import serving_names
from tfmtl.models import MultiTaskModel


def to_lite(model: MultiTaskModel, *, quantize: bool = False) -> bytes:
    """Return a model's network as a LiteRT flatbuffer, with one signature `serving_default`.

    Use it to run a model on a phone. The signature takes encoded features and returns the predictions of
    `model.predict`. LiteRT cannot look up strings, so encode the features before, as `model.preprocessor` does.
    Embeddings of retrieval tasks are `<task>/query`, [B, d] or K vectors [B, K d], and `<task>/candidate`, [B, d]. A
    feature with a name that TensorFlow refuses has the input that the model card of an export lists, such as `class_2`
    for `class`.

    Args:
        model: a trained model.
        quantize: whether weights are stored in 8 bits (dynamic-range quantisation).

    Raises:
        RuntimeError: if the network has an operation that LiteRT lacks, naming it.

    Example:
        Write the file, and run it: `pathlib.Path("model.tflite").write_bytes(to_lite(model))`, then
        `tf.lite.Interpreter(model_path="model.tflite").get_signature_runner()(**encoded)`.

    Cost: some seconds; the network is traced and converted.
    """
    require_type(model, MultiTaskModel, "model")
    inputs, names = model.network.input, serving_names(model.schema.features)
    specs = {
        other: tf.TensorSpec([None, *inputs[name].shape[1:]], inputs[name].dtype, other)
        for name, other in names.items()
        if name in inputs
    }

    def served(**features: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model.network({name: features[names[name]] for name in inputs}, training=False)
        answer: dict[str, tf.Tensor] = {}
        for task in model.tasks:
            if isinstance(outputs[task.name], Mapping):
                answer |= {f"{task.name}/{side}": tensor for side, tensor in outputs[task.name].items()}
            else:
                answer[task.name] = task.predict(outputs[task.name])
        return {name: tf.cast(tensor, tf.float32) for name, tensor in answer.items()}

    module = tf.Module()
    module.network = model.network
    module.served = tf.function(served, autograph=False)
    function = module.served.get_concrete_function(**specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        converted: Any = converter.convert()
    except Exception as error:  # the converter raises a class of its own that it does not export
        raise RuntimeError(f"The network has an operation that LiteRT lacks: {str(error).splitlines()[0]}") from error
    return bytes(converted)
