"""Experiments on arrival times."""
