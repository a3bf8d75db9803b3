"""Ranges, directions and powers of the same users in one game: which kind of measurement to believe, and whose."""
