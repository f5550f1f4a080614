"""Feature kinds: one file per kind, which describes a column, its statistics and its encoding.

A kind outside of the package derives from `Feature` and is registered with Keras, so that a saved schema finds it.
"""

from __future__ import annotations

from tfmtl.data.features.categorical import Categorical as Categorical
from tfmtl.data.features.feature import Feature as Feature
from tfmtl.data.features.id_sequence import IdSequence as IdSequence
from tfmtl.data.features.multi_valued import MultiValued as MultiValued
from tfmtl.data.features.numeric import Numeric as Numeric
from tfmtl.data.features.numeric_sequence import NumericSequence as NumericSequence
from tfmtl.data.features.text import Text as Text
from tfmtl.data.features.vector import Vector as Vector
from tfmtl.data.values import MISSING_INTEGER as MISSING_INTEGER
