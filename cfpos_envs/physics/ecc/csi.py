"""From paths to CSI and from CSI to what a base station's encoder sees: (1)-(3) and (7)-(15) of An et al.

All functions take any leading batch shape; CSI is complex [..., T, A, N] (slots, antennas, subcarriers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.checks import one_of

GAIN_EPSILON = 1e-12
"""epsilon of (8): far below the gain of any link that can be heard."""
PHASE_THRESHOLD = 1e-9
"""epsilon_angle of (10), in units of the normalised CSI."""
STABILISE = ("per-entry", "per-slot")


@dataclass(frozen=True)
class CsiPaths:
    """Propagation paths of links between one user and one array; P paths, padded ones have zero gain.

    Attributes:
        gain: complex amplitude with the carrier phase exp(-j 2 pi f_c tau) in it; |gain|^2 is the path gain.
        delay_s: propagation delay tau.
        direction: unit vector at the array towards where the path comes from, world frame.
    """

    gain: Complex[Tensor, "*batch P"]
    delay_s: Float[Tensor, "*batch P"]
    direction: Float[Tensor, "*batch P 3"]

    def select(self, index: slice | Tensor) -> CsiPaths:
        """Only the entries ``index`` of the first dimension."""
        return CsiPaths(self.gain[index], self.delay_s[index], self.direction[index])


def rotation_matrix(orientation_rad: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """R = R_z(yaw) R_y(pitch) R_x(roll), which takes vectors of an array's own frame to the world's.

    Args:
        orientation_rad: (yaw, pitch, roll).
    """
    (ca, cb, cc), (sa, sb, sc) = orientation_rad.cos().unbind(-1), orientation_rad.sin().unbind(-1)
    rows = (
        (ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc),
        (sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc),
        (-sb, cb * sc, cb * cc),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def to_array_frame(
    direction: Float[Tensor, "*batch P 3"], orientation_rad: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*batch P 3"]:
    """World directions in the frame of the array, R^T u.

    Args:
        direction: unit vectors.
        orientation_rad: (yaw, pitch, roll) of the array.
    """
    return direction @ rotation_matrix(orientation_rad)


def upa_response(
    local_direction: Float[Tensor, "*batch 3"], array_shape: tuple[int, int], spacing_wavelengths: float = 0.5
) -> Complex[Tensor, "*batch A"]:
    """Response of a planar array in its y-z plane: a_m = exp(j 2 pi u . r_m / lambda), |a_m| = 1.

    Args:
        local_direction: unit vectors in the array's frame, towards the source.
        array_shape: (rows along z, columns along y); antenna row * columns + column.
        spacing_wavelengths: distance of neighbours.
    """
    rows, columns = array_shape

    def axis(component: Tensor, count: int) -> Tensor:
        index = torch.arange(count, dtype=component.dtype, device=component.device) - 0.5 * (count - 1)
        phase = (2 * math.pi * spacing_wavelengths) * component.unsqueeze(-1) * index
        return torch.polar(torch.ones_like(phase), phase)

    along_z, along_y = axis(local_direction[..., 2], rows), axis(local_direction[..., 1], columns)
    return (along_z.unsqueeze(-1) * along_y.unsqueeze(-2)).flatten(-2)


def element_response(
    local_direction: Float[Tensor, "*batch 3"], positions_wavelengths: Float[Tensor, "A 3"]
) -> Complex[Tensor, "*batch A"]:
    """Response of antennas anywhere: a_m = exp(j 2 pi u . r_m / lambda), |a_m| = 1.

    Args:
        local_direction: unit vectors in the array's frame, towards the source.
        positions_wavelengths: r_m / lambda in the array's frame.
    """
    phase = (2 * math.pi) * (local_direction @ positions_wavelengths.to(local_direction).mT)
    return torch.polar(torch.ones_like(phase), phase)


def subcarrier_offsets_hz(num_subcarriers: int, spacing_hz: float) -> Float[Tensor, " N"]:
    """f_n - f_c of a comb that is symmetric around the carrier, ascending."""
    return (torch.arange(num_subcarriers, dtype=torch.float32) - 0.5 * (num_subcarriers - 1)) * spacing_hz


def channel(
    paths: CsiPaths,
    orientation_rad: Float[Tensor, "*#batch 3"],
    array_shape: tuple[int, int],
    spacing_wavelengths: float,
    num_subcarriers: int,
    subcarrier_spacing_hz: float,
    slot_gain: Complex[Tensor, "*batch T P"] | None = None,
) -> Complex[Tensor, "*batch T A N"]:
    """Frequency-domain channel (1): h_{t,n} = sum_k alpha_{t,k} a(theta_k, phi_k) exp(-j 2 pi (f_n - f_c) tau_k).

    The carrier's own phase is part of the gains.

    Args:
        paths: of every link.
        orientation_rad: of every array.
        array_shape, spacing_wavelengths: see ``upa_response``.
        num_subcarriers, subcarrier_spacing_hz: see ``subcarrier_offsets_hz``.
        slot_gain: what each slot multiplies each path with (fading, oscillators); None: one slot, factor 1.
    """
    steering = upa_response(to_array_frame(paths.direction, orientation_rad), array_shape, spacing_wavelengths)
    offsets = subcarrier_offsets_hz(num_subcarriers, subcarrier_spacing_hz).to(paths.delay_s)
    phase = (-2 * math.pi) * paths.delay_s.unsqueeze(-1) * offsets
    tones = torch.polar(torch.ones_like(phase), phase)  # [..., P, N]
    per_antenna = (paths.gain.unsqueeze(-1) * steering).mT  # [..., A, P]
    if slot_gain is None:
        return (per_antenna @ tones).unsqueeze(-3)
    rows = slot_gain.unsqueeze(-2) * per_antenna.unsqueeze(-3)  # [..., T, A, P]
    return (rows.flatten(-3, -2) @ tones).unflatten(-2, rows.shape[-3:-1])


def slot_gains(
    generator: draws.Source, shape: tuple[int, ...], num_slots: int, num_paths: int, path_jitter_rad: float
) -> Complex[Tensor, "*batch T P"]:
    """What residual fading and oscillators do from slot to slot: exp(j (phi_t + jitter_{t,k})).

    phi_t is uniform, one per slot and link: it is common to antennas and subcarriers and carries no information. The
    jitter is Gaussian and one per path: small motion in the scene.

    Args:
        generator: source of randomness.
        shape: batch shape, one entry per link.
        num_slots, num_paths: T and P.
        path_jitter_rad: standard deviation of the jitter.
    """
    common = 2 * math.pi * draws.uniform(generator, *shape, num_slots, 1)
    phase = common + path_jitter_rad * draws.normal(generator, *shape, num_slots, num_paths)
    return torch.polar(torch.ones_like(phase), phase)


def complex_noise(generator: draws.Source, shape: torch.Size, variance: float) -> Complex[Tensor, "*shape"]:
    """Circular complex Gaussian noise of a variance."""
    parts = draws.normal(generator, *shape, 2)
    return torch.view_as_complex(parts.mul_(math.sqrt(variance / 2)))


def receive_pilots(
    generator: draws.Source,
    channel: Complex[Tensor, "*batch A N"],
    pilots: Complex[Tensor, " N"],
    noise_power_w: float,
) -> Complex[Tensor, "*batch A N"]:
    """Received pilots (2)-(3): Y = H diag(x) + N, entries of N independent CN(0, sigma^2).

    Args:
        generator: source of the noise.
        channel: H, with any leading dimensions (slots among them).
        pilots: x_n, none of them zero.
        noise_power_w: sigma^2.
    """
    return channel * pilots + complex_noise(generator, channel.shape, noise_power_w)


def side_gain(csi: Complex[Tensor, "*batch T A N"]) -> Float[Tensor, "*batch"]:
    """Scalar gain (7): Frobenius norm of a BS's whole snapshot."""
    return torch.view_as_real(csi).flatten(-4).norm(dim=-1)


def normalise_gain(csi: Complex[Tensor, "*batch T A N"]) -> Complex[Tensor, "*batch T A N"]:
    """Normalised CSI (8): H / (g + epsilon); zero stays zero."""
    return csi / (side_gain(csi) + GAIN_EPSILON)[..., None, None, None]


def reference_antenna(normalised: Complex[Tensor, "*batch T A N"]) -> Int[Tensor, "*batch"]:
    """Antenna with the largest mean power (9); the smallest index among equals."""
    power = torch.view_as_real(normalised).square().sum(dim=(-1, -2, -4))
    # argmax may return any of several maxima; the first true entry is the smallest index.
    return (power == power.amax(dim=-1, keepdim=True)).to(torch.uint8).argmax(dim=-1)


def reference_phase(
    normalised: Complex[Tensor, "*batch T A N"], antenna: Int[Tensor, "*batch"], stabilise: str = "per-entry"
) -> Float[Tensor, "*batch T N"]:
    """Phase of the reference antenna (10); 0 where it is too weak to have one.

    ``per-entry`` is (10), one phase per slot and subcarrier, which also takes out the reference antenna's delay.
    ``per-slot`` takes the phase at the subcarrier where the reference antenna is strongest (over all slots), the same
    for all subcarriers of a slot: oscillator phases go, the delay slope stays.

    Args:
        normalised: (8).
        antenna: (9).
        stabilise: see above.

    Raises:
        ValueError: unknown ``stabilise``.
    """
    check_stabilise(stabilise)
    index = antenna[..., None, None, None].expand(*normalised.shape[:-2], 1, normalised.shape[-1])
    reference = normalised.gather(-2, index).squeeze(-2)  # [..., T, N]
    if stabilise == "per-slot":
        strongest = torch.view_as_real(reference).square().sum(dim=(-1, -3)).argmax(dim=-1)
        column = strongest[..., None, None].expand(*reference.shape[:-1], 1)
        reference = reference.gather(-1, column).expand_as(reference)
    strong = reference.abs() >= PHASE_THRESHOLD
    return torch.where(strong, reference.angle(), torch.zeros_like(reference.real))


def stabilise_phase(
    normalised: Complex[Tensor, "*batch T A N"], stabilise: str = "per-entry"
) -> Complex[Tensor, "*batch T A N"]:
    """Phase-stabilised CSI (11); phases between antennas stay as they are, (12).

    Args:
        normalised: (8).
        stabilise: see ``reference_phase``.

    Raises:
        ValueError: unknown ``stabilise``.
    """
    phase = reference_phase(normalised, reference_antenna(normalised), stabilise)
    return normalised * torch.polar(torch.ones_like(phase), -phase).unsqueeze(-2)


def check_stabilise(stabilise: str) -> None:
    """Refuse an unknown way of phase stabilisation.

    Raises:
        ValueError: naming the nearest one.
    """
    one_of("stabilise", stabilise, STABILISE)
