"""Aliases that all packages share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import tensorflow as tf

Features: TypeAlias = Mapping[str, tf.Tensor]
"""Feature tensors by feature name; dimension 0 is the batch."""

Outputs: TypeAlias = Mapping[str, "tf.Tensor | Mapping[str, tf.Tensor]"]
"""Network outputs by task name; a retrieval task's output is `{"query": [B, d], "candidate": [B, d]}`."""
