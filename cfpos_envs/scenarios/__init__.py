"""Markov games: one file or folder each, every one a ``Scenario``."""
