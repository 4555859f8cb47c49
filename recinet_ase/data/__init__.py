"""Datasets, splits and the packed store that training reads."""
