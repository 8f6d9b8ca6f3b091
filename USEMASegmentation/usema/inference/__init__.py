"""Volumes in, labels out. ``predictor`` is the only file that knows the whole journey."""
