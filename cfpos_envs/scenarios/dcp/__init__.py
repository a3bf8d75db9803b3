"""Distributed collaborative positioning (DCP): APs as agents locate users by received power and angle of arrival."""
