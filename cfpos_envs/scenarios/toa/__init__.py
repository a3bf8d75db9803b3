"""Positioning by arrival time: APs as agents decide how far to believe the ranges they measure (TOA, TDOA, RTT)."""
