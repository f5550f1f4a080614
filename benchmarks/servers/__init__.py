"""Servers of exported models, their clients, and a small model: shared by the benchmarks and the tests."""
