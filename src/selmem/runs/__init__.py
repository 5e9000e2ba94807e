"""A training run: its settings, the order of its data, the loop, its checkpoints and its records."""
