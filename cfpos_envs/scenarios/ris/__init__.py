"""Positioning in three dimensions with the help of reconfigurable intelligent surfaces and an unknown clock bias."""
