"""A person's own table of measurements as a set: what ``cfpos locate`` reads, with the true places beside it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.datasets.scale import check_scale
from cfpos_envs.files.epochs import EpochOptions, Epochs, read_epochs
from cfpos_envs.files.sites import load_site

TRAIN_SHARE = 0.25
_FEWEST_EPOCHS = 2
OWN = Source("own measurements", "", "", "columns truth_x_m and truth_y_m")
_USER_HEIGHT_M = 1.5
_RANGE_STD_M = 1.0


def load_table(measurements: str | PathLike[str], site: str | Path, options: EpochOptions | None = None) -> MeasuredSet:
    """Ranges or powers of one's own network; the first recording trains and the others test.

    Args:
        measurements: see ``read_epochs``, with ``truth_x_m`` and ``truth_y_m``. Without a column ``episode`` of more
            than one value the first quarter of the lines trains.
        site: places of the access points, see ``load_site``.
        options: how to read the table.

    Raises:
        ValueError: no truth, no range or power, or whatever the two readers refuse.
        OSError: a file cannot be read.
    """
    network = load_site(site)
    epochs = read_epochs(measurements, network.ap_names, options)
    name = Path(measurements).name
    if epochs.truth_m is None:
        raise ValueError(f"{name} has no truth_x_m and truth_y_m to score by; positions without them: cfpos locate")
    if not {"range", "rss"} & epochs.links.keys():
        raise ValueError(f"{name} has neither ranges nor powers, which the measured game plays")
    if len(epochs) < _FEWEST_EPOCHS:
        raise ValueError(f"{name} has {len(epochs)} epochs; the game needs one to train and another to test at least")
    places = (network.ap_positions_m + torch.tensor(network.origin_m, dtype=torch.float64)).numpy()
    height_m: float | None = None
    if network.ap_height_m is not None:
        places = np.concatenate((places, network.ap_height_m.double().numpy()[:, None]), axis=1)
        height_m = float(network.fields.get("ue_height_m", _USER_HEIGHT_M))
    whole, first = _recording(epochs), _training(epochs)
    measured = MeasuredSet(
        name=f"table/{name}",
        source=OWN,
        ap_names=network.ap_names,
        ap_positions_m=places,
        user_height_m=height_m,
        range_std_m=_RANGE_STD_M if whole.range_m is not None else None,
        train=whole.select(first),
        test=whole.select(~first),
        notes=epochs.notes,
    )
    check_scale(measured)
    return measured


def _recording(epochs: Epochs) -> Recording:
    assert epochs.truth_m is not None
    return Recording(
        truth_m=epochs.truth_m[:, :2],
        group=epochs.episode.astype(str),
        user=epochs.user,
        range_m=epochs.links.get("range"),
        std_m=epochs.links.get("std"),
        rss_dbm=epochs.links.get("rss"),
        time_s=epochs.time_s,
    )


def _training(epochs: Epochs) -> np.ndarray:
    """[n] which epochs train."""
    if len(np.unique(epochs.episode)) > 1:
        return epochs.episode == epochs.episode[0]
    return np.arange(len(epochs)) < max(round(TRAIN_SHARE * len(epochs)), 1)
