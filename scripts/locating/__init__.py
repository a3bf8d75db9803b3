"""What ``cfpos locate`` does, by the kind of measurements: from files to a table of positions."""
