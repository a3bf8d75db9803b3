"""Experiments on CSI over a thin fronthaul."""
