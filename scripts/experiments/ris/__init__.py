"""Experiments with reflecting surfaces."""
