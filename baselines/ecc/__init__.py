"""Estimators that read the channel state information of several base stations."""
