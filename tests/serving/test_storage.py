from __future__ import annotations

import gc
import pathlib

import numpy as np
import pytest
from servers import cc_loader
from servers.models import MAX_K, build, queries, raw

from tests.serving.exports import Exports
from tfmtl._grid import nearest_codes
from tfmtl._keras import tf
from tfmtl.compression import quantize_model
from tfmtl.serving import InvertedFile, compressed_size, export, replace_candidates
from tfmtl.serving.on_load import ComputedOnLoad
from tfmtl.serving.storage import narrowed

_RNG = np.random.default_rng(3)
PLAIN = _RNG.normal(size=(60, 16)).astype(np.float32)
CODED = nearest_codes(PLAIN, 8).values()
HALF = PLAIN.astype(np.float16).astype(np.float32)


def save(path: pathlib.Path, values: np.ndarray) -> tf.Variable:
    """Save a function that reads a variable and a tensor that is computed from it on load."""
    variable, module = tf.Variable(values), tf.Module()
    narrow, module.rest = narrowed([variable])
    module.narrow = narrow
    module.sums = ComputedOnLoad(lambda: {"sums": tf.reduce_sum(variable, axis=1)})
    module.sums.fill_before(narrow)

    def rows(indices: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"rows": tf.gather(variable, indices), "sums": tf.gather(module.sums.value("sums"), indices)}

    module.rows = tf.function(rows, input_signature=[tf.TensorSpec([None], tf.int32, name="indices")])
    tf.saved_model.save(module, str(path), signatures=module.rows.get_concrete_function())
    return variable


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (CODED, [("int8", (60, 16)), ("bfloat16", (60, 1))]),
        (HALF, [("float16", (60, 16))]),
        (PLAIN, [("float32", (60, 16))]),
        (CODED[:4], [("float32", (4, 16))]),
        (np.float32(PLAIN * 1e9), [("float32", (60, 16))]),
    ],
)
def test_variables_take_the_smallest_type_that_holds_them(
    tmp_path: pathlib.Path, values: np.ndarray, stored: list[tuple[str, tuple[int, ...]]]
) -> None:
    variable = save(tmp_path, values)
    reader = tf.train.load_checkpoint(str(tmp_path / "variables" / "variables"))
    types = reader.get_variable_to_dtype_map()
    found = [(types[n].name, tuple(s)) for n, s in reader.get_variable_to_shape_map().items() if s]
    assert sorted(found) == sorted(stored)
    loaded = tf.saved_model.load(str(tmp_path))
    variable.assign(tf.zeros_like(variable))  # the loaded model has its own copy
    answer = loaded.signatures["serving_default"](indices=tf.constant([2, 3, 0]))
    np.testing.assert_array_equal(answer["rows"], values[[2, 3, 0]])
    np.testing.assert_allclose(answer["sums"], values[[2, 3, 0]].sum(axis=1), rtol=1e-5)
    del loaded
    gc.collect()
    assert np.all(variable.numpy() == 0)


@pytest.mark.skipif(not cc_loader.can_compile(), reason="needs g++")
def test_cpp_loader_widens_variables_before_it_computes_tensors(
    tmp_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    save(tmp_path, CODED)
    with cc_loader.loaded(cc_loader.compiled(tmp_path_factory.getbasetemp()), tmp_path) as loader:
        answer = loader.ask("serving_default", {"indices": np.int32([5, 59])})
    np.testing.assert_array_equal(answer["rows"], CODED[[5, 59]])
    np.testing.assert_allclose(answer["sums"], CODED[[5, 59]].sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("search", [None, InvertedFile(block=4)])
def test_quantized_model_is_served_smaller_and_alike(
    tmp_path: pathlib.Path, exports: Exports, search: InvertedFile | None
) -> None:
    model, frame = build()
    small = quantize_model(model)
    large = exports.of(searched=search is not None) / "1"  # every block or enough of them: the stored index is the same
    paths = [large, export(small, tmp_path / "small", max_k=MAX_K, search=search)]
    sizes = [compressed_size(path / "variables") for path in paths]
    assert sizes[1] < 0.9 * sizes[0]  # the corpus and the sample queries are in it, too
    served = tf.saved_model.load(str(paths[1])).signatures
    expected = small.predict(frame[:7], verbose=0)
    answer = served["rank"](**raw(small, frame[:7]))
    for name, value in expected.items():
        np.testing.assert_allclose(answer[name], value, rtol=1e-5, atol=1e-6)
    before = served["retrieve"](**queries(small, frame))
    replaced = replace_candidates(tmp_path / "small", frame)
    after = tf.saved_model.load(str(replaced)).signatures["retrieve"](**queries(small, frame))
    np.testing.assert_allclose(np.sort(after["scores"], 1), np.sort(before["scores"], 1), rtol=1e-5)
