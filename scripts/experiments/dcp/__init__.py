"""Experiments on received power and angles."""
