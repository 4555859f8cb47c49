"""How a screen is worked through: chunks, processes, GPUs, clusters."""
