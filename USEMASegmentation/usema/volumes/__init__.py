"""Volumes and the grids they lie on: files in, files out, and what a label looks like in a file or a scene."""
