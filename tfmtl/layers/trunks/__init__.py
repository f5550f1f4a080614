"""Trunks: the part of a network that several tasks share."""
