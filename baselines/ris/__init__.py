"""Positions and clock biases from channels over reconfigurable surfaces: the pipeline at the bound, and its benchmarks."""
