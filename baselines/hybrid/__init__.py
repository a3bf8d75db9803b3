"""Estimators from ranges, directions and powers together."""
