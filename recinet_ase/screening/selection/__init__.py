"""Which rows are wanted, in what order: conditions, ranking, Pareto fronts, duplicates."""
