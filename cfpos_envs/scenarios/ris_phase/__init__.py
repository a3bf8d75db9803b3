"""The game of the surfaces: profiles for users of whom only a sector is known."""
