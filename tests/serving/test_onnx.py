"""The route to ONNX of saved_models/README.md; needs the packages tf2onnx and onnxruntime, which nothing else uses."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest
from servers.models import IdType, build, raw

from tfmtl._keras import tf

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the converter
README = pathlib.Path(__file__).parents[2] / "saved_models" / "README.md"


@pytest.fixture(scope="module")
def tf2onnx() -> Any:
    pytest.importorskip("onnxruntime", reason="needs tf2onnx and onnxruntime")
    return pytest.importorskip("tf2onnx", reason="needs tf2onnx and onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize("ids", ["string", "int64"])
def test_the_documented_conversion_ranks_as_the_model(ids: IdType, tf2onnx: Any) -> None:
    import onnxruntime

    (block,) = re.findall(r"```python\n(names = .*?)```", README.read_text(), re.DOTALL)
    model, frame = build(ids)
    defined: dict[str, Any] = {"tf": tf, "tf2onnx": tf2onnx, "model": model}
    exec(block, defined)  # the code that readers copy
    session = onnxruntime.InferenceSession(defined["onnx"].SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (1, 7, 300):
        encoded = model.preprocessor(raw(model, frame[:rows]))
        answer = session.run(None, {name: encoded[name].numpy() for name in defined["names"]})
        found = dict(zip((output.name for output in session.get_outputs()), answer, strict=True))
        expected = model.predict(frame[:rows], verbose=0)
        assert sorted(found) == ["clicked", "mood", "rating", "region"]
        for task, value in found.items():
            assert value.shape == expected[task].shape
            assert np.abs(value - expected[task]).max() < 1e-5, task
            assert rows == 1 or np.ptp(value, axis=0).max() > 0.01, task  # the inputs reach the outputs
