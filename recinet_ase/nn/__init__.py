"""The network: element features, local and reciprocal blocks, decoder."""
