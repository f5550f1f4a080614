"""Noise and augmentation that act in training only."""
