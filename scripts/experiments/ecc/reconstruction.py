"""What Stage I keeps of the CSI: phases and angle-delay power of unseen links beside their reconstruction (Fig. 13)."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos.agents.ecc.autoencoder import cosine_loss
from cfpos.agents.ecc.pictures import relative_adcpm, stabilised_phase
from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.learning import local_stage
from cfpos_envs.physics.ecc.features import adcpm

LINKS, _QUICK_LINKS = 1000, 40


def run(effort: Effort) -> Outcome:
    """Reconstruct unseen snapshots with every base station's autoencoder."""
    config, known = ecc.narrow(effort), ecc.system()
    model = local_stage(config, effort).model
    pool = ecc.test_pool(config, effort)
    batch = pool.batch(slice(0, _QUICK_LINKS if effort.is_quick else LINKS))
    with torch.no_grad():
        original, rebuilt = model.images(batch), model(batch).float()
    rows = []
    for station in range(known.num_bs):
        heard = batch.valid[:, station]
        csi, copy = (as_csi(images[station, heard]) for images in (original, rebuilt))
        powers = [adcpm(entries.unflatten(1, (-1, known.num_antennas)), known.array_shape) for entries in (csi, copy)]
        similarity = -cosine_loss(original[station, heard], rebuilt[station, heard])
        rows.append(
            {
                "base station": station,
                "links": int(heard.sum()),
                "cosine similarity": float(similarity.mean()),
                "10th percentile": float(similarity.quantile(0.1)),
                "phase error, degrees": float(phase_error_deg(csi, copy).median()),
                "correlation of powers": float(correlation(*powers).mean()),
                "same strongest bin, %": 100 * float(same_peak(*powers).float().mean()),
            }
        )
    best = int(batch.log_gain[0].argmax())
    remark = (
        "Averages over links of unseen users: cosine similarity (22) of CSI and "
        "reconstruction; phase error: weighted with power, the common phase removed, median over the links; powers: "
        "of the angle-delay matrix (ADCPM). The picture is the first of these users at its strongest base station."
    )
    figure = _figure(original[best, 0], rebuilt[best, 0])
    return Outcome(rows, figure, [ecc.narrow_remark(effort), remark])


def as_csi(images: Float[Tensor, "*batch 2 H N"]) -> Complex[Tensor, "*batch H N"]:
    """Two channels as complex numbers."""
    return torch.complex(images[..., 0, :, :], images[..., 1, :, :])


def phase_error_deg(truth: Complex[Tensor, "B H N"], copy: Complex[Tensor, "B H N"]) -> Float[Tensor, " B"]:
    """Mean absolute phase difference of every link, weighted with |h|^2, after the best common phase; degrees.

    Args:
        truth, copy: CSI and reconstruction.
    """
    crossed = copy * truth.conj()
    common = crossed.sum(dim=(1, 2), keepdim=True)
    power = truth.abs().square()
    difference = (crossed * common.conj()).angle().abs()
    return torch.rad2deg((difference * power).sum(dim=(1, 2)) / power.sum(dim=(1, 2)))


def correlation(first: Float[Tensor, "B A N"], second: Float[Tensor, "B A N"]) -> Float[Tensor, " B"]:
    """Pearson correlation of the entries of every matrix."""
    a, b = (values.flatten(1) - values.flatten(1).mean(dim=1, keepdim=True) for values in (first, second))
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-20)


def same_peak(first: Float[Tensor, "B A N"], second: Float[Tensor, "B A N"]) -> Tensor:
    """[B] whether the largest entry is at the same place."""
    return first.flatten(1).argmax(dim=1) == second.flatten(1).argmax(dim=1)


def _figure(original: Tensor, rebuilt: Tensor) -> Any:
    known = ecc.system()
    figure = plt.figure(figsize=(11, 6), layout="constrained")
    for row, (name, image) in enumerate((("original", original), ("reconstruction", rebuilt))):
        csi = as_csi(image)
        power = relative_adcpm(csi, known).numpy()
        phases = figure.add_subplot(2, 3, 3 * row + 1)
        drawn = phases.imshow(stabilised_phase(csi), aspect="auto", cmap="twilight", vmin=-np.pi, vmax=np.pi)
        phases.set(title=f"phase, {name}", xlabel="subcarrier", ylabel="antenna")
        figure.colorbar(drawn, ax=phases, label="rad")
        surface: Any = figure.add_subplot(2, 3, 3 * row + 2, projection="3d")
        delay, angle = np.meshgrid(*(np.arange(count) for count in power.shape[::-1]))
        surface.plot_surface(delay, angle, power, cmap="viridis", vmin=0, vmax=1)
        surface.set(title=f"angle-delay power, {name}", xlabel="delay bin", ylabel="angle bin", zlim=(0, 1))
        top = figure.add_subplot(2, 3, 3 * row + 3)
        drawn = top.imshow(power, aspect="auto", cmap="viridis", vmin=0, vmax=1)
        top.set(title=f"from above, {name}", xlabel="delay bin", ylabel="angle bin")
        figure.colorbar(drawn, ax=top, label="of the maximum")
    return figure
