"""What ``scripts/fuzz.py`` tries: cases of games, policies, agents, files and commands, and children that try them."""
