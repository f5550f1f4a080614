"""Embedding tables that several features share, or that are compressed."""
