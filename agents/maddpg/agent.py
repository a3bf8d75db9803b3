"""The MADDPG agent: its policies and how they learn."""

from __future__ import annotations

from .config import MaddpgConfig
from .policies import MaddpgPolicies
from .rollout import CriticRollout, ModelRollout

__all__ = ["Maddpg", "MaddpgConfig"]


class Maddpg(MaddpgPolicies):
    """Multi-agent DDPG: policies trained centrally, used with each agent's observation alone (Lowe et al. 2017).

    Arguments, attributes and errors are those of ``MaddpgPolicies``.
    """

    def rollout(self) -> CriticRollout | ModelRollout:
        """Exploration with a learned critic, or ascent of the environment's own objective."""
        return ModelRollout(self) if self.config.critic == "model" else CriticRollout(self)
