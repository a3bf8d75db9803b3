"""The trainer's compiled kernels: gradients of critics and actors, and small matrix products."""
