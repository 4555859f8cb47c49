"""Predictions: structures to graphs, graphs to numbers, numbers to where they are kept."""
