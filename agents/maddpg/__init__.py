"""MADDPG: actors and critics of all agents as batched networks, their losses, and the loop that trains them."""
