"""The same messages without a network that reads them: nearest neighbours among the latents of the training places."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos.baselines.ecc.knn import nearest_mean
from cfpos_envs.supervised.bitstream import unpack_messages
from cfpos_envs.supervised.data import Batch, Pool
from cfpos_envs.supervised.fusion import Received
from cfpos_envs.supervised.network import EccNetwork
from cfpos_envs.supervised.quantiser import gain_levels

NEIGHBOURS = 4
_CHUNK = 512


def nearest_m(network: EccNetwork, train: Pool, asked: Pool) -> Float[Tensor, "S 3"]:
    """Positions by the training places whose messages are most like those of ``asked``, metres.

    Mean of the nearest ``NEIGHBOURS``, weighted with the inverse of their distances. The messages are those of the
    network, so that nothing but the reading at the central unit differs.

    Args:
        network: trained, with a quantiser.
        train: labelled snapshots.
        asked: snapshots to locate.
    """
    known = _parts(network, train)
    places = train.position_m
    return torch.cat([nearest_mean(rows, known, places, NEIGHBOURS) for rows in _parts(network, asked).split(_CHUNK)])


@torch.no_grad()
def received_numbers(network: EccNetwork, batch: Batch) -> Float[Tensor, "S F"]:
    """What the central unit decodes of a snapshot: latents of every link (0 where there is none), gains, flags.

    Args:
        network: with a quantiser.
        batch: what the base stations measured.
    """
    codes, gains, valid = unpack_messages(network.encode(batch))
    latents = network.quantiser.levels(codes) * valid[..., None]
    side = Received(latents.transpose(0, 1)[:, :, None], gain_levels(gains, network.config.gain_bits), valid).side()
    return torch.cat((latents.flatten(1), side.flatten(1)), dim=1)


def _parts(network: EccNetwork, pool: Pool) -> Tensor:
    index = torch.arange(len(pool)).split(_CHUNK)
    return torch.cat([received_numbers(network, pool.batch(part)) for part in index])
