"""Channels of real city models: an optional ray tracer, its cache of paths, and what makes CSI of the paths."""
