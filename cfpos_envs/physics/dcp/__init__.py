"""Received power and angles at multi-antenna access points: channels, predictions and their Fisher information."""
