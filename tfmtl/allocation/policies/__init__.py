"""Policies that learn the weights of tasks: their state, networks, learners and use."""
