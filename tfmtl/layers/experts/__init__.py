"""Experts and the gates that mix them."""
