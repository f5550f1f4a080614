"""Servers of an export, programs that ask them, and a small model for both; the benchmarks and the tests share them."""
