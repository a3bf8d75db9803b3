"""Arrival times: ranges, clocks, delay estimation and their Fisher information."""
