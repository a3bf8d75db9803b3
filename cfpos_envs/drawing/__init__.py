"""Pictures: episodes, scenes in space, error distributions, convergence."""
