"""Poolings: a list or a history becomes one vector."""
