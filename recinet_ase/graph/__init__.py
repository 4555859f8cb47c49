"""Crystals as graphs: checks, neighbour shells, adapters, batching and symmetry reduction."""
