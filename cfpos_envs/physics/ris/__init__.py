"""Positioning with reconfigurable intelligent surfaces: signal tensors, geometry, information, channel, phase designs."""
