"""What a trained model has learned: filters, contributions, gates and routing."""
