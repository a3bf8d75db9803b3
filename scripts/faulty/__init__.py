"""What ``scripts/faults.py`` does to runs, part by part."""
