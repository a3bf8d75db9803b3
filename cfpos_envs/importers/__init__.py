"""Data of other tools, converted into what the suite plays and measures."""
