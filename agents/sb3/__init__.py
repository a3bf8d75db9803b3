"""PPO, SAC and TD3 of Stable-Baselines3 behind the interface of our agents."""
