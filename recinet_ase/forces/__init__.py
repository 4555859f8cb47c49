"""The force model: energies, forces and stresses from the smooth sibling of the network."""
