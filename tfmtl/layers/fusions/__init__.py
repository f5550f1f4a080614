"""Fusions: several modalities become one encoding."""
