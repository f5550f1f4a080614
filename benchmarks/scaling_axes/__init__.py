"""The axes of `benchmarks/scaling.py`, a module each."""
