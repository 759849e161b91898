"""neuronscope: understand the single units of vision CNNs."""
