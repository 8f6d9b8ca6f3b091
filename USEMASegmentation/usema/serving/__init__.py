"""A process that keeps a model warm or fetches models, its other end, and what it can be asked for."""
