"""Solvers of the division of a budget between tasks."""
