"""MRML in and out: volumes, segments, and what speaks against a run. No Qt."""
