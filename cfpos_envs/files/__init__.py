"""Other people's files: tables, coordinates, positions; nothing in here knows a game."""
