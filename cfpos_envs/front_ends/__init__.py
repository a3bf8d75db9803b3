"""The ways into a scenario: many episodes as tensors, one episode as PettingZoo or Gymnasium expect it."""

from cfpos_envs.front_ends.base import BatchedEnv, Env, VectorStep
from cfpos_envs.front_ends.parallel import ParallelEnv
from cfpos_envs.front_ends.single import SingleAgentEnv
from cfpos_envs.front_ends.single_vector import SingleAgentVectorEnv
from cfpos_envs.front_ends.vector import VectorEnv

__all__ = ["BatchedEnv", "Env", "ParallelEnv", "SingleAgentEnv", "SingleAgentVectorEnv", "VectorEnv", "VectorStep"]
