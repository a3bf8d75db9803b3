"""Calibration of a site from its users' ranges: offsets and scales, spreads, anchors' positions and clocks."""
