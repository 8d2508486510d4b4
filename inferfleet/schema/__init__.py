"""Frozen, validated shapes of everything a user writes: one module per kind of file.

The package is called schema because a model, in this field, is what an engine serves.
"""
