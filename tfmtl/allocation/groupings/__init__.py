"""Solvers of the grouping of tasks."""
