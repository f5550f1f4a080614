"""Allocation: the tasks that share a network, by their effect on each other."""

from tfmtl.allocation.affinity import Affinity as Affinity
from tfmtl.allocation.grouping import TaskGroups as TaskGroups
from tfmtl.allocation.grouping import group_tasks as group_tasks
