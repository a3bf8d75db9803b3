"""Pictures of a training run: what the autoencoder keeps of phases and of angle-delay power, and the errors' CDF."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cfpos_envs.drawing.figures import draw_cdf
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.physics.ecc.features import adcpm
from cfpos_envs.supervised.agent_config import EccAgentConfig
from cfpos_envs.supervised.data import Batch

from .autoencoder import Autoencoders


@torch.no_grad()
def reconstruction(model: Autoencoders, batch: Batch, config: EccAgentConfig, system: CsiSystem) -> dict[str, Figure]:
    """Figures of the first snapshot of a batch at the BS that hears it best, original beside reconstruction.

    Args:
        model: Stage I.
        batch: some snapshots.
        config, system: what the features are.

    Returns:
        ``local/phase`` and ``local/adcpm`` for stabilised CSI (two channels, antennas as rows), ``local/features``
        for other features.
    """
    station = int(batch.log_gain[0].argmax())
    images = [model.images(batch)[station, 0].cpu(), model(batch)[station, 0].float().cpu()]
    if config.features != "stabilised":
        return {"local/features": _pair([image[0].numpy() for image in images], "lag or angle", "lag or delay", None)}
    csi = [torch.complex(image[0], image[1]) for image in images]
    phases = [stabilised_phase(values).numpy() for values in csi]
    powers = [relative_adcpm(values, system).numpy() for values in csi]
    return {
        "local/phase": _pair(phases, "slot x antenna", "subcarrier", (-np.pi, np.pi)),
        "local/adcpm": _pair(powers, "angle bin", "delay bin", (0.0, 1.0)),
    }


def error_cdf(errors_m: np.ndarray, title: str) -> Figure:
    """Distribution of 3-D errors, metres."""
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    draw_cdf(axes, {"validation": errors_m[:, None]})
    axes.set(title=title, xlabel="3-D error [m]")
    return figure


def stabilised_phase(csi: Tensor) -> Tensor:
    """Phases relative to the strongest row: the cosine loss (22) does not see a common one."""
    row = csi.abs().square().sum(dim=1).argmax()
    return (csi * csi[row].conj()).angle()


def relative_adcpm(csi: Tensor, system: CsiSystem) -> Tensor:
    """Angle-delay power over its maximum; (22) does not see the scale."""
    power = adcpm(csi.unflatten(0, (-1, system.num_antennas)), system.array_shape)
    return power / power.amax().clamp(min=1e-12)


def _pair(values: list[np.ndarray], rows: str, columns: str, limits: tuple[float, float] | None) -> Figure:
    low, high = limits or (float(values[0].min()), float(values[0].max()))
    # Phases close into a circle, and so must their colours.
    colours = "twilight" if limits == (-np.pi, np.pi) else "viridis"
    figure, panels = plt.subplots(1, 2, figsize=(7, 3), layout="constrained", sharey=True)
    for axes, image, title in zip(panels, values, ("original", "reconstruction"), strict=True):
        drawn = axes.imshow(image, aspect="auto", vmin=low, vmax=high, cmap=colours)
        axes.set(title=title, xlabel=columns)
    panels[0].set_ylabel(rows)
    figure.colorbar(drawn, ax=panels)
    return figure
