"""PPO of RLlib behind the interface of our agents; needs the extra ``ray``."""
