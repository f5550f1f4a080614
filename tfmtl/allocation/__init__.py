"""Allocation: the tasks that share a network, and the steps in which each task is trained."""

from tfmtl.allocation.affinity import Affinity as Affinity
from tfmtl.allocation.grouping import TaskGroups as TaskGroups
from tfmtl.allocation.grouping import group_tasks as group_tasks
from tfmtl.allocation.learning_curves import LearningCurve as LearningCurve
from tfmtl.allocation.learning_curves import fit_learning_curves as fit_learning_curves
from tfmtl.allocation.planning import plan_schedule as plan_schedule
from tfmtl.allocation.plots import affinity_heat_map as affinity_heat_map
from tfmtl.allocation.plots import schedule_chart as schedule_chart
from tfmtl.allocation.policies.environment import WeightEnvironment as WeightEnvironment
from tfmtl.allocation.policies.learned_weights import LearnedWeights as LearnedWeights
from tfmtl.allocation.policies.learning import LearnedPolicy as LearnedPolicy
from tfmtl.allocation.policies.learning import meta_train_weight_policy as meta_train_weight_policy
from tfmtl.allocation.policies.learning import train_weight_policy as train_weight_policy
from tfmtl.allocation.policies.task_state import TaskState as TaskState
from tfmtl.allocation.policies.weight_policy import WeightPolicy as WeightPolicy
from tfmtl.allocation.schedule import Phase as Phase
from tfmtl.allocation.schedule import Schedule as Schedule
from tfmtl.allocation.scheduled_training import ScheduledTraining as ScheduledTraining
from tfmtl.allocation.selective_group_updates import SelectiveGroupUpdates as SelectiveGroupUpdates
from tfmtl.allocation.session_critics import SessionCritics as SessionCritics
from tfmtl.allocation.step_costs import StepCosts as StepCosts
from tfmtl.allocation.step_costs import measure_step_costs as measure_step_costs
from tfmtl.allocation.task_affinity import TaskAffinity as TaskAffinity
