"""Trained models: one network, several that answer as one, and their files."""
