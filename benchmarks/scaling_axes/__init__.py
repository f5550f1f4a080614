"""The axes of `benchmarks/scaling.py`, one module per kind."""
