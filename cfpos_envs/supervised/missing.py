"""Answers to fewer messages than usual: how far an answer moves when one more is left out says what it rests on.

Networks that have seen lost messages in training answer without them, and their calibration, learned from places that
all stations hear, states the errors of complete data. No stored number tells how large errors then are; the network
itself does (the idea of the jackknife: Tukey, Ann. Math. Stat. 29 (1958) 614).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.supervised.calibration import Answering, Calibration
from cfpos_envs.supervised.data import Batch

_OFTEN = 0.97
"""Share of a calibration's places from which on a station that they hear is one that is always there."""


def lacks_messages(valid: Bool[Tensor, "S L"], calibration: Calibration | None) -> Bool[Tensor, " S"]:
    """Answers to fewer messages than the calibration knows: a station is missing that its places hear, or more are.

    Args:
        valid: stations that are heard; users whom none hears lack nothing, they have no answer.
        calibration: of the network; None: whoever is missing is unusual.
    """
    if calibration is None:
        lacks = ~valid.all(dim=1)
    else:
        always = calibration.heard_share(valid.shape[1]).to(valid.device) >= _OFTEN
        lacks = (always & ~valid).any(dim=1) | (valid.sum(dim=1) < calibration.fewest)
    return lacks & valid.any(dim=1)


@torch.no_grad()
def leave_one_out(
    network: Answering, batch: Batch, position_m: Float[Tensor, "S 3"], anywhere_m2: Float[Tensor, "3 3"]
) -> Float[Tensor, "S 3 3"]:
    """Covariance that answers to few messages have beside the one that is stated: (L/n) times the mean of d d^T.

    d is how far an answer moves without one of its n messages of L. Half of it is taken as it is, half spread in
    proportion to where users may be: n moves show n directions at most. Of one message alone nothing is known.

    Args:
        network: that answered.
        batch: what it was asked; somebody hears every user.
        position_m: what it answered.
        anywhere_m2: covariance of a user anywhere in the area.
    """
    total = position_m.new_zeros((len(batch), 3, 3), dtype=torch.float64)
    heard = batch.valid.sum(dim=1)
    for station in range(batch.valid.shape[1]):
        rows = (batch.valid[:, station] & (heard > 1)).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        fewer = batch.select(rows)
        fewer = fewer.replace(valid=fewer.valid.index_fill(1, torch.tensor(station, device=rows.device), False))
        move = (network.answers(fewer).belief.position_m - position_m[rows]).double()
        total[rows] += move.unsqueeze(-1) * move.unsqueeze(-2)
    share = batch.valid.shape[1] / heard.double().square()
    total = total * share[:, None, None]
    wide = anywhere_m2.to(total)
    even = torch.diagonal(total, dim1=-2, dim2=-1).sum(dim=-1)[:, None, None] * wide / wide.trace()
    return torch.where((heard > 1)[:, None, None], (total + even) / 2, wide)
