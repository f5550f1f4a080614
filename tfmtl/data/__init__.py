"""Tables to tensors: schema, statistics of the training split, preprocessing in the graph, files, splits."""

from __future__ import annotations

from tfmtl._label_graph import LabelGraph
from tfmtl.data.chains import mask_immature, mask_unreached
from tfmtl.data.columns import to_columns
from tfmtl.data.encoded_table import EncodedTable, cache
from tfmtl.data.features import Categorical, Feature, IdSequence, MultiValued, Numeric, Text, Vector
from tfmtl.data.files import FileSource, open_files
from tfmtl.data.fingerprint import fingerprint
from tfmtl.data.folds import grouped_kfold, random_kfold, rolling_origin
from tfmtl.data.frames import Batch, encode, from_frame, to_batch
from tfmtl.data.preprocessor import Preprocessor
from tfmtl.data.schema import Label, Schema
from tfmtl.data.sequences import Sequences, to_sequences, with_histories
from tfmtl.data.sharded import distribute
from tfmtl.data.splits import Split, leave_last_split, random_split, temporal_split
from tfmtl.data.statistics import LabelStatistics, Statistics, fit_statistics
from tfmtl.data.streams import from_files
from tfmtl.data.tfrecord_writer import write_tfrecords

__all__ = [
    "Batch",
    "Categorical",
    "EncodedTable",
    "Feature",
    "FileSource",
    "IdSequence",
    "Label",
    "LabelGraph",
    "LabelStatistics",
    "MultiValued",
    "Numeric",
    "Preprocessor",
    "Schema",
    "Sequences",
    "Split",
    "Statistics",
    "Text",
    "Vector",
    "cache",
    "distribute",
    "encode",
    "fingerprint",
    "fit_statistics",
    "from_files",
    "from_frame",
    "grouped_kfold",
    "leave_last_split",
    "mask_immature",
    "mask_unreached",
    "open_files",
    "random_kfold",
    "random_split",
    "rolling_origin",
    "temporal_split",
    "to_batch",
    "to_columns",
    "to_sequences",
    "with_histories",
    "write_tfrecords",
]
