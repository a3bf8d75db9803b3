"""Positioning with reconfigurable intelligent surfaces: signal tensor, geometry, information, channel, designs."""
