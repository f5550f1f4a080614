"""Tables to tensors: schema, statistics of the training split, preprocessing in the graph, files, splits."""

from __future__ import annotations

from tfmtl._identity import keys_of as keys_of
from tfmtl._label_graph import LabelGraph as LabelGraph
from tfmtl.data.chains import mask_immature as mask_immature
from tfmtl.data.chains import mask_unreached as mask_unreached
from tfmtl.data.chains import repair_order as repair_order
from tfmtl.data.columns import to_columns as to_columns
from tfmtl.data.encoded_table import EncodedTable as EncodedTable
from tfmtl.data.encoded_table import cache as cache
from tfmtl.data.features import Categorical as Categorical
from tfmtl.data.features import Feature as Feature
from tfmtl.data.features import IdSequence as IdSequence
from tfmtl.data.features import MultiValued as MultiValued
from tfmtl.data.features import Numeric as Numeric
from tfmtl.data.features import NumericSequence as NumericSequence
from tfmtl.data.features import Text as Text
from tfmtl.data.features import Vector as Vector
from tfmtl.data.files import FileSource as FileSource
from tfmtl.data.files import open_files as open_files
from tfmtl.data.folds import grouped_kfold as grouped_kfold
from tfmtl.data.folds import random_kfold as random_kfold
from tfmtl.data.folds import rolling_origin as rolling_origin
from tfmtl.data.frames import Batch as Batch
from tfmtl.data.frames import encode as encode
from tfmtl.data.frames import from_frame as from_frame
from tfmtl.data.frames import to_batch as to_batch
from tfmtl.data.negatives import with_sampled_negatives as with_sampled_negatives
from tfmtl.data.preprocessor import Preprocessor as Preprocessor
from tfmtl.data.raw_table import fingerprint as fingerprint
from tfmtl.data.schema import Label as Label
from tfmtl.data.schema import Schema as Schema
from tfmtl.data.sequences import Sequences as Sequences
from tfmtl.data.sequences import to_sequences as to_sequences
from tfmtl.data.sequences import with_histories as with_histories
from tfmtl.data.sharded import distribute as distribute
from tfmtl.data.splits import Split as Split
from tfmtl.data.splits import leave_last_split as leave_last_split
from tfmtl.data.splits import random_split as random_split
from tfmtl.data.splits import temporal_split as temporal_split
from tfmtl.data.statistics import LabelStatistics as LabelStatistics
from tfmtl.data.statistics import Statistics as Statistics
from tfmtl.data.statistics import fit_statistics as fit_statistics
from tfmtl.data.streams import from_files as from_files
from tfmtl.data.tfrecord_writer import write_tfrecords as write_tfrecords
