"""Learning from a user's corrections: a model adapted to one case, kept as a small delta beside it."""
