"""Interactions: products of features, attention and gates before the trunk."""
