from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers import PiecewiseLinear


def test_it_is_its_definition() -> None:
    """(x - low) / (high - low) within [0, 1]: below, inside each bin, above, and zeros where missing."""
    encode = PiecewiseLinear({"x": [-1.0, 0.0, 4.0], "y": [0.0, 2.0]})
    x = tf.constant([[-3.0, 0.0], [-0.25, 0.0], [1.0, 0.0], [9.0, 0.0], [0.0, 1.0]])
    y = tf.constant([[0.5, 0.0], [-1.0, 0.0], [3.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    expected = [[0.0, 0.0, 0.25], [0.75, 0.0, 0.0], [1.0, 0.25, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.5]]
    np.testing.assert_allclose(encode([x, y]), expected)


@pytest.mark.parametrize("edges", [[1.0], [0.0, 0.0], [1.0, 0.0]])
def test_edges_must_increase(edges: list[float]) -> None:
    with pytest.raises(ValueError, match="must increase"):
        PiecewiseLinear({"x": edges})
    with pytest.raises(ValueError, match="at least one feature"):
        PiecewiseLinear({})
