"""How good a model is: predictions on a split, errors, where they lie, comparison, plots."""
