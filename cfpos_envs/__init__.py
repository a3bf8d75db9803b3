"""Multi-agent radio positioning in cell-free networks: environments, their registry and one evaluator."""

from cfpos_envs.evaluation import evaluate
from cfpos_envs.registry import list_envs, make_env, make_scenario, register

__version__ = "0.1.0"

__all__ = ["__version__", "evaluate", "list_envs", "make_env", "make_scenario", "register"]
