"""How well a hypothesised position and clock explain what was received, without any label; differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.ris.modes import BS_MODES, DELAY_MODE, UE_MODES, correlate, focus_delay, steering
from cfpos_envs.scenarios.ris.config import RisGameConfig
from cfpos_envs.scenarios.ris.state import RisState, pair_parameters

# Relative to a path's own energy: paths that coincide are fitted as one.
_RIDGE = 1e-5
_NEAREST_M = 0.01


def quality(
    config: RisGameConfig,
    state: RisState,
    position_m: Float[Tensor, "B J 3"],
    bias_m: Float[Tensor, "B J I"],
    reward: str,
) -> Float[Tensor, "B J"]:
    """What a reward measures of hypothesised positions and clocks, mean over the base stations; differentiable.

    Args:
        config, state: the game.
        position_m, bias_m: the hypotheses.
        reward: ``explained``, ``error``, or ``paths`` (whose increase in a round is ``gain``).
    """
    if reward == "error":
        return log_error(position_m, state.true_position_m)
    system, parameters = config.system, pair_parameters(state, position_m, bias_m)
    if reward == "explained":
        return explained_share(system.sizes, system.slopes, state.received, parameters).mean(dim=-1)
    return path_shares(system.sizes, system.slopes, state.received, parameters).mean(dim=(-2, -1))


def explained_share(
    sizes: Sequence[int],
    slopes: Sequence[float],
    received: Complex[Tensor, "*batch U1 U2 B1 B2 N"],
    parameters: Float[Tensor, "*batch L 5"],
) -> Float[Tensor, "*batch"]:
    """Share of the received energy in the span of the hypothesised paths, in [0, 1]: their gains are fitted.

    y^H V (V^H V)^-1 V^H y / |y|^2 with the paths' steering vectors as columns of V: what least squares over the gains
    leaves is the rest. Minus the log of that rest is the log-likelihood of white noise of unknown power, concentrated
    in gains and power.

    Args:
        sizes, slopes: of the five axes, see ``physics.ris.modes``.
        received: y.
        parameters: of the paths.
    """
    vectors = steering(sizes, slopes, parameters)
    size = received.shape[-5:].numel()
    matched = correlate(received, vectors).unsqueeze(-1)
    gram = torch.ones_like(matched @ matched.mH)
    for vector in vectors:
        gram = gram * (vector.conj() @ vector.mT)
    fitted = loaded_solve(gram, matched, _RIDGE * size)
    energy = received.abs().square().sum(dim=(-5, -4, -3, -2, -1))
    return ((matched.conj() * fitted).real.sum(dim=(-2, -1)) / energy).clamp(0.0, 1.0)


def path_shares(
    sizes: Sequence[int],
    slopes: Sequence[float],
    received: Complex[Tensor, "*batch U1 U2 B1 B2 N"],
    parameters: Float[Tensor, "*batch L 5"],
) -> Float[Tensor, "*batch L"]:
    """Share of what belongs to every path by its departure that the path explains, in [0, 1].

    The base station's array separates the paths: what passes a filter towards a surface that is blind to all other
    hypothesised departures is judged by that surface's path, what is orthogonal to all surfaces by the line of sight.
    So a weak path counts as much as a strong one.

    Args:
        sizes, slopes, received, parameters: see ``explained_share``.
    """
    vectors = steering(sizes, slopes, parameters)
    ue, bs = ((vectors[a].unsqueeze(-1) * vectors[b].unsqueeze(-2)).flatten(-2) for a, b in (UE_MODES, BS_MODES))
    departures = bs.mT
    # Every column passes its own departure and no other one.
    filters = departures @ _solved(departures, torch.eye(bs.shape[-2], dtype=bs.dtype, device=bs.device))
    filters = filters / torch.linalg.vector_norm(filters, dim=-2, keepdim=True).clamp(min=1e-6)
    at_delay = focus_delay(received, vectors[DELAY_MODE])
    matched = torch.einsum("...lub,...bl,...lu->...l", at_delay, filters.conj(), ue.conj())
    block = received.flatten(-5, -4).flatten(-3, -2)
    beams = torch.einsum("...ubn,...br->...run", block, filters[..., 1:].conj())
    towards = beams.abs().square().sum(dim=(-2, -1))
    rest = block.abs().square().sum(dim=(-3, -2, -1)) - _energy_in_span(block, departures[..., 1:])
    energy = torch.cat((rest.unsqueeze(-1), towards), dim=-1).clamp(min=1e-12)
    norm = ue.shape[-1] * vectors[DELAY_MODE].shape[-1]
    return (matched.abs().square() / (energy * norm)).clamp(0.0, 1.0)


def orthogonal_part(
    columns: Complex[Tensor, "*batch n r"], vectors: Complex[Tensor, "*batch n k"]
) -> Complex[Tensor, "*batch n k"]:
    """What of ``vectors`` lies outside the span of ``columns``."""
    return vectors - columns @ _solved(columns, columns.mH @ vectors)


def loaded_solve(
    gram: Complex[Tensor, "*batch r r"], right: Complex[Tensor, "*#batch r k"], loading: float
) -> Complex[Tensor, "*batch r k"]:
    """(G + loading I)^-1 right: normal equations that stay solvable where columns coincide."""
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + loading * eye, right)


def log_error(position_m: Float[Tensor, "B J 3"], true_position_m: Float[Tensor, "B J 3"]) -> Float[Tensor, "B J"]:
    """-log(error / m + 0.01); privileged."""
    error = torch.linalg.vector_norm(position_m - true_position_m.to(position_m), dim=-1)
    return -torch.log(error + _NEAREST_M)


def _solved(columns: Tensor, right: Tensor) -> Tensor:
    """(C^H C)^-1 right, with the ridge where columns coincide."""
    return loaded_solve(columns.mH @ columns, right, _RIDGE * columns.shape[-2])


def _energy_in_span(block: Tensor, columns: Tensor) -> Tensor:
    """Energy [...] of a block [..., U, B, N] in the span of columns [..., B, r] of the base station's side."""
    flat = block.movedim(-2, -3).flatten(-2)
    inside = columns @ _solved(columns, columns.mH @ flat)
    return (inside.conj() * flat).real.sum(dim=(-2, -1))
