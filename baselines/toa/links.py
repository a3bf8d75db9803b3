"""The links that a fix is made from, what their ranges say at a point, and whether their APs determine a position."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.geometry import metres_outside
from cfpos_envs.physics.toa.bounds import unit_vectors_to

from ..least_squares import Fit

# Two unknowns and a clock, or two unknowns and the choice between two intersections of two circles.
FEWEST_LINKS = 3
# Residuals of that many standard deviations, beyond which one of 370 good links lies, still count as noise.
_BELIEVED = 3.0
# APs that leave a line by less than this share of their extent (1 mm in 100 m) count as standing in it.
_COLLINEAR = 1e-5
# APs whose extent is below this share of the area's side stand in one place.
_COINCIDENT = 1e-6
# Around the square of an environment, which no wall says, this share of its side belongs to the area.
_NEAR_MARGIN = 0.1


@dataclass(frozen=True)
class RangeLinks:
    """Ranges of all links in double precision; links that do not count hold harmless numbers.

    Attributes:
        ap_positions_m, height_diff_m: the site.
        range_m, std_m: measured ranges and their standard deviation in line of sight.
        usable: links that count.
        unknown_offset: all ranges of a UE share an unknown offset (TDOA).
        area_m: corners of the area that is known to hold every user; None: the square, and some space around it.
        reference: index of the AP whose range is subtracted from all others, if differences are treated as
            independent; then ``std_m`` is that of the difference and the reference itself is not usable.
        side_m: side of the area.
    """

    ap_positions_m: Float[Tensor, "B M 2"]
    height_diff_m: Float[Tensor, "B M"]
    range_m: Float[Tensor, "B M K"]
    std_m: Float[Tensor, "B M K"]
    usable: Bool[Tensor, "B M K"]
    unknown_offset: bool
    side_m: float
    reference: Int[Tensor, "B K"] | None = None
    area_m: tuple[tuple[float, float], ...] | None = None

    @property
    def weight(self) -> Float[Tensor, "B M K"]:
        """1 / variance of every range, 1/m^2; 0 for links that do not count."""
        return self.usable / self.std_m.square()

    def at(self, points_m: Float[Tensor, "B K 2"]) -> tuple[Float[Tensor, "B M K 2"], Float[Tensor, "B M K"]]:
        """Gradients of the predicted ranges and residuals measured - predicted, metres (of differences, if so)."""
        unit, slant = unit_vectors_to(self.ap_positions_m, self.height_diff_m, points_m)
        residual = self.range_m - slant
        if self.reference is not None:
            residual = residual - at_reference(residual, self.reference)
            unit = unit - torch.stack([at_reference(part, self.reference) for part in unit.unbind(-1)], dim=-1)
        return unit, residual

    def repeated(self, count: int) -> RangeLinks:
        """Every UE ``count`` times, copy after copy: for several starts at once."""
        copies = {name: getattr(self, name).repeat(1, 1, count) for name in ("range_m", "std_m", "usable")}
        reference = None if self.reference is None else self.reference.repeat(1, count)
        return dataclasses.replace(self, reference=reference, **copies)

    def only(self, kept: Bool[Tensor, "B M K"]) -> RangeLinks:
        """The same with fewer links that count."""
        return dataclasses.replace(self, usable=self.usable & kept)

    def box(self) -> tuple[Float[Tensor, "B 1 2"], Float[Tensor, "B 1 2"]]:
        """Lowest and highest corner of the area together with its APs, metres."""
        low = self.ap_positions_m.amin(dim=1, keepdim=True).clamp(max=0.0)
        high = self.ap_positions_m.amax(dim=1, keepdim=True).clamp(min=self.side_m)
        return low, high

    def inside(self, points_m: Float[Tensor, "B K 2"], margin: float) -> Float[Tensor, "B K 2"]:
        """The nearest points of the box grown by ``margin`` sides of the area all round."""
        low, high = self.box()
        return torch.minimum(torch.maximum(points_m, low - margin * self.side_m), high + margin * self.side_m)


def range_links(measurements: TimingMeasurements, unknown_offset: bool | None = None) -> RangeLinks:
    """The links of a batch, ready for a fix.

    Links that are not ``valid``, have a range that is not finite or an infinite variance do not count.

    Args:
        measurements: any family.
        unknown_offset: eliminate a common offset per UE; None: if the family is "tdoa".

    Raises:
        ValueError: a valid link with a variance that is not positive, or tensors that do not fit together.
    """
    measurements.check()
    valid, variance = measurements.valid, measurements.variance_m2.double()
    if not bool((variance > 0)[valid].all()):
        raise ValueError(
            "variance_m2 of a valid link is zero, negative or NaN; it must be positive (or set valid=False)"
        )
    usable = valid & torch.isfinite(measurements.range_m) & torch.isfinite(variance)
    return RangeLinks(
        ap_positions_m=measurements.ap_positions_m.double(),
        height_diff_m=measurements.height_diff_m.double(),
        range_m=torch.where(usable, measurements.range_m.double(), 0.0),
        std_m=torch.where(usable, variance, 1.0).sqrt(),
        usable=usable,
        unknown_offset=measurements.model.family == "tdoa" if unknown_offset is None else unknown_offset,
        side_m=measurements.model.side_m,
        area_m=measurements.area_m,
    )


def as_independent_differences(links: RangeLinks) -> RangeLinks:
    """The textbook shortcut: differences to each UE's first usable AP, as if their errors were independent.

    Every difference gets the variance sigma_m^2 + sigma_ref^2; that all share the reference's error is ignored.
    """
    reference = links.usable.int().argmax(dim=1)
    others = torch.ones_like(links.usable).scatter(1, reference.unsqueeze(1), False)
    std = (links.std_m.square() + at_reference(links.std_m, reference).square()).sqrt()
    return dataclasses.replace(
        links, std_m=std, usable=links.usable & others, unknown_offset=False, reference=reference
    )


def near_links(links: RangeLinks, fit: Fit) -> Bool[Tensor, "B M K"]:
    """Links whose residual is what their noise makes: those that a robust answer is judged by."""
    return links.usable & (fit.residual_m.abs() <= _BELIEVED * links.std_m)


def determined(links: RangeLinks) -> Bool[Tensor, "B K"]:
    """Whether three or more usable links come from APs that do not stand in one line or one place.

    From a line the user and its mirror image look the same, whatever the heights.
    """
    return enough_links(links) & ~in_a_line(links)


def enough_links(links: RangeLinks) -> Bool[Tensor, "B K"]:
    """Whether three or more usable links come from APs that are not all in one place."""
    used = _used(links)
    (_, high), _ = spread_of_aps(links.ap_positions_m, used)
    return (used.sum(dim=1) >= FEWEST_LINKS) & (high > _COINCIDENT * links.side_m)


def in_a_line(links: RangeLinks) -> Bool[Tensor, "B K"]:
    """Whether the usable links come from APs in one line: the user and its mirror image look the same."""
    (low, high), _ = spread_of_aps(links.ap_positions_m, _used(links))
    return ~(low > _COLLINEAR * high.clamp(min=_COINCIDENT * links.side_m))


def mirrored(links: RangeLinks, points_m: Float[Tensor, "B S K 2"]) -> Float[Tensor, "B S K 2"]:
    """The points on the other side of the principal axis of each UE's usable APs."""
    _, axis = spread_of_aps(links.ap_positions_m, links.usable)
    middle, axis = middle_of_aps(links).unsqueeze(1), axis.unsqueeze(1)
    away = points_m - middle
    return middle + 2 * (away * axis).sum(dim=-1, keepdim=True) * axis - away


def middle_of_aps(links: RangeLinks) -> Float[Tensor, "B K 2"]:
    """Mean place of each UE's usable APs; the middle of the area where there is none."""
    share = links.usable / links.usable.sum(dim=1, keepdim=True).clamp(min=1)
    used = torch.einsum("bmk,bmd->bkd", share.to(links.ap_positions_m), links.ap_positions_m)
    low, high = links.box()
    return torch.where(links.usable.any(dim=1)[..., None], used, (low + high) / 2)


def outside_area_m(links: RangeLinks, points_m: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """How far points lie outside the stated area, or outside the square with its APs grown by a tenth of its side."""
    if links.area_m is None:
        return torch.linalg.vector_norm(points_m - links.inside(points_m, _NEAR_MARGIN), dim=-1)
    return metres_outside(points_m, points_m.new_tensor(links.area_m))


def _used(links: RangeLinks) -> Tensor:
    """Usable links together with the reference of differences."""
    if links.reference is None:
        return links.usable
    return links.usable.scatter(1, links.reference.unsqueeze(1), True) & links.usable.any(dim=1, keepdim=True)


def spread_of_aps(
    ap_positions_m: Float[Tensor, "B M 2"], usable: Bool[Tensor, "B M K"]
) -> tuple[tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]], Float[Tensor, "B K 2"]]:
    """Root mean square extent of each UE's usable APs across and along their principal axis, and that axis."""
    share = (usable / usable.sum(dim=1, keepdim=True).clamp(min=1)).to(ap_positions_m)
    mean = torch.einsum("bmk,bmd->bkd", share, ap_positions_m)
    offsets = ap_positions_m.unsqueeze(2) - mean.unsqueeze(1)
    scatter = torch.einsum("bmk,bmki,bmkj->bkij", share, offsets, offsets)
    axis_angle = 0.5 * torch.atan2(2 * scatter[..., 0, 1], scatter[..., 0, 0] - scatter[..., 1, 1])
    axis = torch.stack((axis_angle.cos(), axis_angle.sin()), dim=-1)
    normal = torch.stack((-axis[..., 1], axis[..., 0]), dim=-1)
    # Projections, not eigenvalues: the difference of two nearly equal numbers would end at 1e-8 of the extent.
    extents = [
        (share * (offsets * direction.unsqueeze(1)).sum(dim=-1).square()).sum(dim=1).sqrt()
        for direction in (normal, axis)
    ]
    return (extents[0], extents[1]), axis


def at_reference(values: Float[Tensor, "B M K"], reference: Int[Tensor, "B K"]) -> Float[Tensor, "B 1 K"]:
    """The entry of each UE's reference AP."""
    return torch.gather(values, 1, reference.unsqueeze(1))
