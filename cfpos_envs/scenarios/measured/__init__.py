"""Measured epochs as a game: the rules of the time-based and power games on what somebody has measured."""
