"""Tasks: a head in the network, a loss over the observed labels, metrics, and the served value of each prediction."""

from __future__ import annotations

from tfmtl.tasks.binary import BinaryClassification as BinaryClassification
from tfmtl.tasks.binary_task import BinaryTask as BinaryTask
from tfmtl.tasks.chained_regression import ChainedRegression as ChainedRegression
from tfmtl.tasks.doubly_robust import DoublyRobustConversion as DoublyRobustConversion
from tfmtl.tasks.duration_quantiles import DurationQuantiles as DurationQuantiles
from tfmtl.tasks.entire_space import EntireSpaceConversion as EntireSpaceConversion
from tfmtl.tasks.extra_losses import ValueLoss as ValueLoss
from tfmtl.tasks.group_loss import GroupLoss as GroupLoss
from tfmtl.tasks.history_copy import HistoryCopy as HistoryCopy
from tfmtl.tasks.huber_regression import HuberRegression as HuberRegression
from tfmtl.tasks.inverse_propensity import InversePropensityConversion as InversePropensityConversion
from tfmtl.tasks.log_link import LogLinkRegression as LogLinkRegression
from tfmtl.tasks.loss_inputs import CandidateIds as CandidateIds
from tfmtl.tasks.loss_inputs import LossInputs as LossInputs
from tfmtl.tasks.multi_class import MultiClassClassification as MultiClassClassification
from tfmtl.tasks.number_task import NumberTask as NumberTask
from tfmtl.tasks.ordinal_regression import OrdinalRegression as OrdinalRegression
from tfmtl.tasks.poisson_regression import PoissonRegression as PoissonRegression
from tfmtl.tasks.pools import Pool as Pool
from tfmtl.tasks.quantile_regression import QuantileRegression as QuantileRegression
from tfmtl.tasks.ranking import Ranking as Ranking
from tfmtl.tasks.regression import Regression as Regression
from tfmtl.tasks.retrieval import Retrieval as Retrieval
from tfmtl.tasks.row_loss import RowLoss as RowLoss
from tfmtl.tasks.stackers import Stacker as Stacker
from tfmtl.tasks.task import HeadInputs as HeadInputs
from tfmtl.tasks.task import Task as Task
from tfmtl.tasks.task import head as head
from tfmtl.tasks.task import mean_over_observed as mean_over_observed
from tfmtl.tasks.tweedie_regression import TweedieRegression as TweedieRegression
from tfmtl.tasks.user_neighbors import UserNeighbors as UserNeighbors
from tfmtl.tasks.watch_time import WatchTime as WatchTime
from tfmtl.tasks.zero_inflated_lognormal import ZeroInflatedLognormal as ZeroInflatedLognormal
