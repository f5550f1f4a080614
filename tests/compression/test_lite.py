from __future__ import annotations

import numpy as np
import pytest

from tests.compression import models
from tfmtl._keras import keras, tf
from tfmtl.compression import to_lite
from tfmtl.data import to_batch

pytestmark = pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning")


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 7])
def test_answers_as_the_model_does(rows: int) -> None:
    model = models.teacher()
    features = to_batch(models.table()[:rows], model.preprocessor).features
    expected = model.predict(models.table()[:rows], verbose=0)
    ask = tf.lite.Interpreter(model_content=to_lite(model)).get_signature_runner()
    answer = ask(**{name: value.numpy() for name, value in features.items()})
    assert sorted(answer) == ["liked", "mood", "rating", "seen/candidate", "seen/query"]
    for task in ("liked", "mood", "rating"):
        np.testing.assert_allclose(answer[task], expected[task], rtol=1e-5, atol=1e-6)
    scores = np.sum(answer["seen/query"] * answer["seen/candidate"], axis=1)
    np.testing.assert_allclose(scores, expected["seen"], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_quantized_file_is_smaller_and_answers_nearly_so() -> None:
    model = models.model(64)
    features = to_batch(models.table()[:5], model.preprocessor).features
    files = [to_lite(model, quantize=quantize) for quantize in (False, True)]
    assert len(files[1]) < 0.5 * len(files[0])
    answers = [
        tf.lite.Interpreter(model_content=file).get_signature_runner()(**{n: v.numpy() for n, v in features.items()})
        for file in files
    ]
    for name, value in answers[0].items():
        assert 0 <= np.abs(answers[1][name] - value).max() < 0.05 * np.abs(value).max() + 1e-3, name


def test_operation_that_litert_lacks_is_named() -> None:
    model = models.model(3)
    outputs = dict(model.network.output)
    broken = keras.layers.Lambda(lambda x: x + tf.strings.to_number(tf.strings.as_string(x)))
    outputs["rating"] = broken(outputs["rating"])
    with pytest.raises(RuntimeError, match="The network has an operation that LiteRT lacks"):
        to_lite(model.with_network(keras.Model(model.network.input, outputs)))
