"""Pilots over a network with surfaces, sent and removed again: the reference of the direct draw of received blocks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex
from torch import Tensor


def pilot_matrix(num_bs_antennas: int, num_slots: int, power_w: float) -> Complex[Tensor, "NB G"]:
    """X = sqrt(P / N_B) times the first N_B rows of the G-point DFT; X X^H = (G P / N_B) I.

    Args:
        num_bs_antennas, num_slots: N_B <= G.
        power_w: P, the power of every column.

    Raises:
        ValueError: fewer slots than antennas.
    """
    if num_slots < num_bs_antennas:
        raise ValueError(
            f"num_slots={num_slots} is fewer than {num_bs_antennas} base station antennas; send more pilots"
        )
    antenna, slot = torch.arange(num_bs_antennas, dtype=torch.float64), torch.arange(num_slots, dtype=torch.float64)
    phase = -2 * math.pi / num_slots * torch.outer(antenna, slot).remainder(num_slots)
    return torch.polar(torch.full_like(phase, math.sqrt(power_w / num_bs_antennas)), phase)


def send_pilots(
    channel: Complex[Tensor, "*batch U1 U2 B1 B2 N"], pilots: Complex[Tensor, "NB G"]
) -> Complex[Tensor, "*batch U1 U2 G N"]:
    """What arrives without noise, H_n X in every subcarrier.

    Args:
        channel: H.
        pilots: X.
    """
    return torch.einsum("...bn,bg->...gn", channel.flatten(-3, -2), pilots)


def remove_pilots(
    samples: Complex[Tensor, "*batch U1 U2 G N"], pilots: Complex[Tensor, "NB G"], bs_shape: tuple[int, int]
) -> Complex[Tensor, "*batch U1 U2 B1 B2 N"]:
    """Least-squares channel: the samples times X^H N_B / (G P).

    Args:
        samples: what arrived.
        pilots: X.
        bs_shape: base station antennas along both axes.
    """
    energy = pilots[0].abs().square().sum()
    channel = torch.einsum("...gn,bg->...bn", samples, pilots.conj() / energy)
    return channel.unflatten(-2, bs_shape)
