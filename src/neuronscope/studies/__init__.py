"""One question each about the units of a network. Studies never import one another."""
