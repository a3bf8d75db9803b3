"""The losses of MADDPG as pure functions of tensors; autograd differentiates them.

``agents.maddpg.learner`` says in a few lines where their arguments come from. The compiled kernel computes the same
gradients (``tests/agents/maddpg/test_compiled_learner.py`` holds it to these functions).

Samples come first: [N, n] is one number per sample and agent. ``separate`` says whether every agent has a network of
its own. Then the sum over agents is taken, so that each network gets the gradient that it would get alone; a network
that all agents share gets the mean. Where agents come and go, ``acted`` leaves out the samples in which an agent did
not act: the mean is that over the others.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def bellman_targets(
    rewards: Float[Tensor, "N n"],
    terminated: Bool[Tensor, "N n"],
    next_values: Float[Tensor, "critics N n"],
    gamma: float,
) -> Float[Tensor, "N n"]:
    """What the critics shall answer: y = r + gamma (1 - terminated) min_k Q'_k(o', mu'(o')), a constant.

    Lowe et al. 2017, eq. 6; the minimum over twin critics is that of Fujimoto et al. 2018 (TD3), alg. 1. An episode
    that its time limit cuts off is not terminated: its value goes on.

    Args:
        rewards, terminated: of every sample and agent.
        next_values: of the target critics at the target policies' actions.
        gamma: discount in [0, 1].
    """
    _check_ranks(rewards=(rewards, 2), terminated=(terminated, 2), next_values=(next_values, 3))
    _check_equal_shapes(rewards=rewards, terminated=terminated, next_values=next_values[0])
    lowest = next_values.detach().amin(0)
    return rewards + gamma * lowest * (~terminated).to(rewards)


def critic_loss(
    values: Float[Tensor, "critics N n"],
    targets: Float[Tensor, "N n"],
    separate: bool,
    acted: Bool[Tensor, "N n"] | None = None,
) -> Float[Tensor, ""]:
    """Squared temporal-difference error, L = sum_k mean_N sum_i (Q_{i,k}(o, a) - y_i)^2 (Lowe et al. 2017, eq. 6).

    Args:
        values: of the critics at the stored joint actions; twin critics are fitted to the same targets.
        targets: ``bellman_targets``; constants.
        separate: see the module; False: mean over agents instead of the sum.
        acted: see the module; None: all.
    """
    _check_ranks(values=(values, 3), targets=(targets, 2))
    _check_equal_shapes(values=values[0], targets=targets)
    return _over_agents((values - targets.detach()).square(), separate, acted)


def actor_loss(
    values: Float[Tensor, "N n"],
    pre_tanh: Float[Tensor, "N n act"],
    saturation_penalty: float,
    separate: bool,
    acted: Bool[Tensor, "N n"] | None = None,
) -> Float[Tensor, ""]:
    """Minus the deterministic policy gradient's objective, plus a penalty on saturated actions.

    L = mean_N sum_i (-Q_i(o, a_1, .., tanh(u_i), .., a_n) + c mean(u_i^2)), u_i = net_i(o_i), the other agents'
    actions coming from the memory (Lowe et al. 2017, eq. 5; Silver et al. 2014, eq. 9).

    Args:
        values: of the first critic with each agent's own action exchanged for its policy's.
        pre_tanh: u, the policies' outputs before the squashing.
        saturation_penalty: c, at least 0: without it the gradient of a saturated action vanishes for good.
        separate: see the module; False: mean over agents instead of the sum.
        acted: see the module; None: all.
    """
    _check_ranks(values=(values, 2), pre_tanh=(pre_tanh, 3))
    _check_equal_shapes(values=values, pre_tanh=pre_tanh[..., 0])
    return _over_agents(saturation_penalty * pre_tanh.square().mean(-1) - values, separate, acted)


def model_loss(
    objective: Float[Tensor, "*episodes"], pre_tanh: Float[Tensor, "B n act"], saturation_penalty: float
) -> Float[Tensor, ""]:
    """Minus the environment's own objective J, L = -mean(J(s, tanh(u))) + c mean(u^2), u = net(o).

    The analytic critic: gradients pass through the environment's round, as in a model-based (pathwise) policy gradient
    (Heess et al. 2015, SVG(1) without discounting).

    Args:
        objective: J of every episode, differentiable in the actions tanh(u).
        pre_tanh: u, the policies' outputs before the squashing.
        saturation_penalty: c, at least 0.
    """
    _check_ranks(pre_tanh=(pre_tanh, 3))
    return saturation_penalty * pre_tanh.square().mean() - objective.mean()


def _over_agents(
    terms: Float[Tensor, "... N n"], separate: bool, acted: Bool[Tensor, "N n"] | None
) -> Float[Tensor, ""]:
    if acted is not None:
        weight = acted.to(terms)
        counted = weight.sum(0) if separate else weight.sum()
        return (terms * weight / counted.clamp_min(1.0)).sum()
    return terms.sum() / (terms.shape[-2] if separate else terms.shape[-2] * terms.shape[-1])


def _check_ranks(**given: tuple[Tensor, int]) -> None:
    for name, (tensor, rank) in given.items():
        assert tensor.ndim == rank, f"{name} has {tensor.ndim} dimensions, expected {rank}; see its annotation."


def _check_equal_shapes(**given: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
    assert len(set(shapes.values())) == 1, f"{shapes} must agree per sample and agent."
