"""A training run: its settings, the order of its data, its loop, checkpoints and records."""
