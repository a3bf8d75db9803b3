"""Positions and clock biases from channels over reconfigurable surfaces: one pipeline at the bound, and benchmarks."""
