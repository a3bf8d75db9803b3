"""What ``scripts/benchmark.py`` measures, one module per subject, each imported when it is asked for."""
