"""TorchRL: MADDPG as in its examples (DDPGLoss on MultiAgentMLP). Prints JSON; see ``trainer_yardsticks``."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MultiAgentMLP, ProbabilisticActor, TanhDelta, ValueOperator
from torchrl.objectives import DDPGLoss, SoftUpdate, ValueEstimators

from cfpos.scripts.benchmarks.common import Options, cpu_s
from cfpos.scripts.benchmarks.trainer_sizes import ACTION, OBSERVATION, Size, sizes


def updater(size: Size) -> Callable[[], None]:
    """One update on random transitions, ready to be called."""
    n, batch = size.agents, size.batch

    def mlp(inputs: int, outputs: int, centralised: bool) -> MultiAgentMLP:
        return MultiAgentMLP(
            n_agent_inputs=inputs,
            n_agent_outputs=outputs,
            n_agents=n,
            centralised=centralised,
            share_params=False,
            depth=2,
            num_cells=size.hidden,
            activation_class=nn.ReLU,
        )

    policy = ProbabilisticActor(
        module=TensorDictModule(
            mlp(OBSERVATION, ACTION, False), in_keys=[("agents", "observation")], out_keys=[("agents", "param")]
        ),
        spec=Bounded(-1.0, 1.0, shape=(n, ACTION)),
        in_keys=[("agents", "param")],
        out_keys=[("agents", "action")],
        distribution_class=TanhDelta,
        distribution_kwargs={"low": -1.0, "high": 1.0},
        return_log_prob=False,
    )
    value = ValueOperator(
        module=mlp(OBSERVATION + ACTION, 1, True),
        in_keys=[("agents", "observation"), ("agents", "action")],
        out_keys=[("agents", "state_action_value")],
    )
    draw = torch.Generator().manual_seed(0)
    stored = TensorDict(
        {
            "agents": {
                "observation": torch.randn(batch, n, OBSERVATION, generator=draw),
                "action": torch.rand(batch, n, ACTION, generator=draw) * 2 - 1,
            },
            "next": {
                "agents": {
                    "observation": torch.randn(batch, n, OBSERVATION, generator=draw),
                    "reward": torch.randn(batch, n, 1, generator=draw),
                    "done": torch.zeros(batch, n, 1, dtype=torch.bool),
                    "terminated": torch.zeros(batch, n, 1, dtype=torch.bool),
                },
            },
        },
        batch_size=[batch],
    )
    with torch.no_grad():
        policy(stored.clone())
    loss = DDPGLoss(actor_network=policy, value_network=value, delay_value=True)
    loss.set_keys(
        state_action_value=("agents", "state_action_value"),
        reward=("agents", "reward"),
        done=("agents", "done"),
        terminated=("agents", "terminated"),
    )
    loss.make_value_estimator(ValueEstimators.TD0, gamma=0.95)
    targets = SoftUpdate(loss, eps=0.99)
    optimiser = torch.optim.Adam(loss.parameters(), 1e-3)

    def update() -> None:
        losses = loss(stored.clone(recurse=False))
        (losses["loss_actor"] + losses["loss_value"]).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        targets.step()

    return update


if __name__ == "__main__":
    chosen = Options.from_json(sys.argv[1])
    torch.set_num_threads(chosen.threads)
    seconds = [cpu_s(updater(size), chosen) for size in sizes(chosen)]
    version = importlib.metadata.version("torchrl")
    print(json.dumps({f"TorchRL {version}": seconds}))
