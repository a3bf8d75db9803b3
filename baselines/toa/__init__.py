"""Positions from arrival times: classical, robust and joint estimators for TOA, TDOA and round trips."""
