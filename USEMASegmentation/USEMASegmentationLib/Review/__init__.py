"""Correcting with the model's help: thresholds, doubtful regions, refining. No Qt, and no scene but through a port."""
