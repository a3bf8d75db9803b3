"""Estimators from received power and angles: fingerprints, Gauss-Newton, triangulation, searches."""
