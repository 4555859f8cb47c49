"""From a few sites and a stated symmetry to all atoms of a cell."""
