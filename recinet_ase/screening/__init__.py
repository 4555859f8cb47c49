"""Screening: structure files in, a table of predictions out."""
