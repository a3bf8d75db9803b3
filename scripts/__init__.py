"""Command lines: train, evaluate, demo, reproduce. Each is a thin main over the packages beside it."""
