"""Experiments on public measured sets."""
