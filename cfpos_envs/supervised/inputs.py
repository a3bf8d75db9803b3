"""From CSI measurements to what the networks take, and pools of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.csi import normalise_gain, side_gain, stabilise_phase
from cfpos_envs.physics.ecc.features import csi_features, feature_size, frequency_lags
from cfpos_envs.supervised.agent_config import EccAgentConfig
from cfpos_envs.supervised.data import Batch, Pool
from cfpos_envs.supervised.encoders import InputShape
from cfpos_envs.supervised.heads import Area
from cfpos_envs.supervised.network import NetworkShape


def input_shape(config: EccAgentConfig, system: CsiSystem) -> InputShape:
    """The image that ``feature_images`` makes of one BS's CSI.

    Raises:
        ValueError: ``slots`` does not divide the slots of a snapshot.
    """
    antennas, subcarriers = system.num_antennas, system.num_subcarriers
    if config.features == "stabilised":
        slots = config.slots or system.num_slots
        if system.num_slots % slots:
            raise ValueError(f"slots={slots} does not divide the {system.num_slots} slots of a snapshot; use 0 or 1.")
        return InputShape(2, slots * antennas, subcarriers)
    if config.features == "amplitude":
        return InputShape(1, antennas, subcarriers)
    size = feature_size(config.features, system.array_shape, subcarriers)
    if config.features == "acf":
        lags = len(frequency_lags(subcarriers))
        return InputShape(2, size // (2 * lags), lags)
    return InputShape(1, 1, size)


def network_shape(config: EccAgentConfig, system: CsiSystem) -> NetworkShape:
    """Everything that the scene decides about the network.

    Raises:
        ValueError: a delay whose bits leave none for the latents.
    """
    inputs = input_shape(config, system)
    images = config.encoder == "segnet" or not config.encodes
    tokens = inputs.columns if images else system.num_subcarriers - config.delay_tokens
    if tokens < 1:
        raise ValueError(
            f"delay_bits={config.delay_bits} take all {system.num_subcarriers} tokens of latent_width="
            f"{config.latent_width} with bits={config.bits}; lower delay_bits or raise one of these."
        )
    return NetworkShape(system.num_bs, inputs, tokens, Area(system.area_min_m, system.area_max_m))


def feature_images(
    csi: Complex[Tensor, "*batch T A N"], config: EccAgentConfig, system: CsiSystem
) -> Float[Tensor, "*batch C H W"]:
    """What the encoder of a BS sees.

    ``stabilised`` is (7)-(15) with subcarriers as columns and slots x antennas as rows, averaged over all slots by
    ``csi_features`` or, with ``slots`` other than 1, in groups. ``acf`` has frequency lags as columns.

    Args:
        csi: estimated CSI.
        config: features, slots, stabilise.
        system: sizes.
    """
    shape = input_shape(config, system)
    if config.features == "stabilised" and config.slots != 1:
        stable = stabilise_phase(normalise_gain(csi), config.stabilise)
        groups = shape.rows // system.num_antennas
        averaged = stable.unflatten(-3, (groups, -1)).mean(dim=-3).flatten(-3, -2)
        # In units of the root mean square of an entry, as half-precision numbers like it.
        scale = (2 * csi.shape[-3] * csi.shape[-2] * csi.shape[-1]) ** 0.5
        return torch.view_as_real(averaged).movedim(-1, -3) * scale
    return as_images(csi_features(csi, config.features, system.array_shape, config.stabilise), config, system)


def as_images(
    flat: Float[Tensor, "*batch F"], config: EccAgentConfig, system: CsiSystem
) -> Float[Tensor, "*batch C H W"]:
    """The numbers of ``physics.ecc.features`` (as environments show them too) as an image.

    Args:
        flat: in their order.
        config: which features.
        system: sizes.
    """
    shape = input_shape(config, system)
    if config.features == "stabilised":
        return flat.unflatten(-1, (shape.rows, shape.columns, shape.channels)).movedim(-1, -3)
    if config.features == "acf":
        return flat.unflatten(-1, (shape.columns, shape.channels, shape.rows)).movedim(-3, -1)
    return flat.unflatten(-1, (shape.channels, shape.rows, shape.columns))


def snapshots(measurements: CsiMeasurements, config: EccAgentConfig, system: CsiSystem) -> Batch:
    """All users of all episodes, one after another, as a batch; their positions are unknown.

    Links with NaN, infinity or nothing but zeros are taken as invalid, not believed.

    Args:
        measurements: what the base stations estimated.
        config: which features.
        system: of the network that was trained: its long-term averages standardise the gains.

    Raises:
        ValueError: another number of base stations, slots, antennas or subcarriers than the network has.
    """
    there = measurements.system
    for name in ("num_bs", "num_slots", "array_shape", "num_subcarriers", "element_positions_m"):
        if getattr(there, name) != getattr(system, name):
            raise ValueError(
                f"the measurements have {name}={getattr(there, name)}, the network was made for "
                f"{getattr(system, name)}; mask a silent BS with valid=False, or train on this system."
            )
    return batch_of(measurements.csi.flatten(0, 1), measurements.valid.flatten(0, 1), config, system)


def batch_of(
    csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], config: EccAgentConfig, system: CsiSystem
) -> Batch:
    """Features and gains of snapshots whose positions are unknown; see ``snapshots``.

    Raises:
        ValueError: shapes that are not those of the system.
    """
    check_raw(csi, valid, config, system)
    gain = side_gain(csi)
    valid = valid & torch.isfinite(gain) & (gain > 0)
    clean = torch.where(valid[..., None, None, None], csi, torch.zeros_like(csi))
    features = feature_images(clean, config, system)
    log_gain = system.standardise_log_gain(torch.where(valid, gain, torch.zeros_like(gain)), valid)
    return Batch(features, log_gain, valid, csi.real.new_zeros((csi.shape[0], 3)))


def check_raw(csi: Tensor, valid: Tensor, config: EccAgentConfig, system: CsiSystem) -> None:
    """ValueError unless CSI and flags have the shapes of the system; where slots are averaged any number of them will
    do."""
    slots = system.num_slots if config.features == "stabilised" and config.slots != 1 else csi.shape[2:3].numel()
    wanted = (system.num_bs, slots, system.num_antennas, system.num_subcarriers)
    if csi.dim() != 5 or not csi.is_complex() or tuple(csi.shape[1:]) != wanted:
        sizes = ", ".join(map(str, (system.num_bs, system.num_slots, system.num_antennas, system.num_subcarriers)))
        raise ValueError(
            f"csi is {csi.dtype} of shape {tuple(csi.shape)}, the network takes complex [snapshots, base stations, "
            f"slots, antennas, subcarriers] = [S, {sizes}]; bring it into this order, or train on this system."
        )
    if tuple(valid.shape) != tuple(csi.shape[:2]):
        raise ValueError(f"valid has shape {tuple(valid.shape)}, with this csi it must be {tuple(csi.shape[:2])}.")


def pool_of(
    parts: Iterable[tuple[Tensor, Tensor, Tensor]], config: EccAgentConfig, system: CsiSystem, count: int
) -> Pool:
    """A pool of the first ``count`` snapshots of several parts.

    Args:
        parts: CSI [S, L, T, A, N], valid links [S, L] and positions [S, 3] in metres.
        config, system: as in ``snapshots``.
        count: at least 1.

    Raises:
        ValueError: the parts hold fewer snapshots.
    """
    shape = input_shape(config, system)
    features = torch.empty((count, system.num_bs, shape.channels, shape.rows, shape.columns), dtype=torch.float16)
    pool = Pool(
        features,
        torch.empty(count, system.num_bs),
        torch.empty(count, system.num_bs, dtype=torch.bool),
        torch.empty(count, 3),
    )
    filled = 0
    for csi, valid, position_m in parts:
        batch = batch_of(csi, valid, config, system)
        taken = min(len(batch), count - filled)
        part = slice(filled, filled + taken)
        pool.features[part] = batch.features[:taken].half()
        pool.log_gain[part] = batch.log_gain[:taken]
        pool.valid[part] = batch.valid[:taken]
        pool.position_m[part] = position_m[:taken]
        filled += taken
        if filled == count:
            return pool
    raise ValueError(f"only {filled} of {count} snapshots could be made; ask for a smaller pool.")
