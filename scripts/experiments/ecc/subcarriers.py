"""What every further subcarrier is worth to the network with the LSTM: the source's Fig. 12."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.learning import trained
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.data import Pool
from cfpos_envs.supervised.network import EccNetwork

READ, BANDS = "one network, read after n", "a network of its own for n"
SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24)
BAND = (3, 6, 12, 24)
_CHUNK = 512


def run(effort: Effort) -> Outcome:
    """Read one network's estimate after every subcarrier, and train networks for narrower bands."""
    config = ecc.narrow(effort, strategy="scratch")
    network, pool = trained(config, effort), ecc.test_pool(config, effort)
    whole = ecc.system().num_subcarriers
    per_subcarrier = network.layout.payload_bits // whole
    steps = errors_by_step_m(network, pool)
    rows = [_row(READ, count, count * per_subcarrier, steps[:, count - 1]) for count in SHOWN]
    bands = effort.chosen(BAND)
    for count in progress(bands, "training", len(bands)):
        env = {} if count == whole else {"num_subcarriers": count}
        narrower = trained(config, effort, **env)
        errors = errors_by_step_m(narrower, ecc.test_pool(config, effort, **env))[:, -1]
        rows.append(_row(BANDS, count, narrower.layout.payload_bits, errors))
    remark = (
        f"'{READ}': the LSTM's estimate after n of {whole} subcarriers, each of which its encoder has seen with its "
        f"neighbours; '{BANDS}': trained and tested with n subcarriers, 720 kHz apart, and as many fewer bits."
    )
    return Outcome(rows, _figure(rows, steps), [ecc.narrow_remark(effort, local=False), remark])


@torch.no_grad()
def errors_by_step_m(network: EccNetwork, pool: Pool) -> np.ndarray:
    """[S, N] 3-D errors of the estimates after every subcarrier, metres; the last column is the network's answer.

    Args:
        network: with an LSTM.
        pool: labelled snapshots.
    """
    parts = []
    for index in torch.arange(len(pool)).split(_CHUNK):
        batch = pool.batch(index)
        places: Float[Tensor, "B N 3"] = network.head.position_m(network(batch))
        parts.append((places - batch.position_m[:, None]).norm(dim=-1))
    found: np.ndarray = torch.cat(parts).numpy()
    return found


def _row(label: str, count: int, bits: int, errors: np.ndarray) -> dict[str, Any]:
    return {
        "estimate": label,
        "subcarriers": count,
        "bits_per_bs": bits,
        "mean_m": float(errors.mean()),
        "standard_error_m": float(errors.std() / len(errors) ** 0.5),
        "median_m": float(np.median(errors)),
        "p90_m": float(np.percentile(errors, 90)),
    }


def _figure(rows: list[dict[str, Any]], steps: np.ndarray) -> Any:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    counts = np.arange(1, steps.shape[1] + 1)
    axes.plot(counts, steps.mean(axis=0), "o-", markersize=3, color=OKABE_ITO[0], label=f"{READ}, mean")
    axes.plot(counts, np.percentile(steps, 90, axis=0), ":", color=OKABE_ITO[0], label=f"{READ}, p90")
    own = [line for line in rows if line["estimate"] == BANDS]
    values = [line["mean_m"] for line in own]
    axes.plot([line["subcarriers"] for line in own], values, "s--", color=OKABE_ITO[1], label=f"{BANDS}, mean")
    axes.set(xlabel="subcarriers n", ylabel="3-D error [m]", ylim=(0, None))
    axes.grid(True, color="#E4E4E4")
    axes.legend()
    return figure
