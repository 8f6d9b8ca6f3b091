"""A user's corrections of one case: propagated to other slices, carried, or learned from; the model's files stay."""
