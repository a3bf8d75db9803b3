"""Fisher information on bearing and power in the sample covariance of one link, tabulated, and the position bound.

The information is what it would be if all path angles were known, less what their posterior leaves open (T. A. Louis,
J. R. Stat. Soc. B 44, 1982; here by simulation, ``path_posterior``): J = J_known - E Cov[score | R_hat]. Chains that
begin at the true angles are in their law from the first step; one of finite length finds *less* spread than there is,
in expectation, so that a table errs to the side of too much information: the bound stays a bound.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.dcp.bounds import LinksToUsers
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw, shipped_path
from cfpos_envs.physics.dcp.covariance.path_posterior import DB_PER_NEPER, angle_information, draw_links, path_scores

SNRS_DB = tuple(float(snr) for snr in range(-10, 90, 10))
ANGLES_DEG = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 75.0, 90.0)
"""The other half of half a turn mirrors this one."""


@dataclass(frozen=True)
class TableSettings:
    """How carefully a table is simulated.

    Attributes:
        links: simulated per angle and SNR.
        sweeps: of the chain of each, over all its paths.
        seed: of all draws.
    """

    links: int = 60
    sweeps: int = 80
    seed: int = 0


@dataclass(frozen=True)
class LinkInformation:
    """Information of one link by SNR (S values) and angle to the array axis (A values).

    Attributes:
        snr_db: of the LS channel estimate per antenna, ascending, evenly spaced.
        angle_rad: from 0 to pi / 2, ascending.
        values: on (bearing, bearing), (bearing, power), (power, power): 1/rad^2, 1/(rad dB), 1/dB^2.
        errors: standard errors of these, of the simulation.
        source: what the numbers are, one line.
    """

    snr_db: Float[Tensor, " S"]
    angle_rad: Float[Tensor, " A"]
    values: Float[Tensor, "S A 3"]
    errors: Float[Tensor, "S A 3"]
    source: str

    def look_up(
        self, snr_db: Float[Tensor, "*batch"], angle_rad: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """The three entries at any signed angle and SNR, linear between nodes; beyond the last SNR that counts.

        pi - theta and -theta mirror theta: what bearing and power have in common changes its sign.
        """
        signed = torch.remainder(angle_rad.double() + math.pi, 2.0 * math.pi) - math.pi
        folded = signed.abs()
        sign = torch.sign(signed) * torch.sign(math.pi / 2 - folded)
        table, angles = self.values.to(angle_rad.device), self.angle_rad.to(angle_rad.device)
        row, up = _between(self.snr_db.to(angle_rad.device), snr_db.double())
        column, right = _between(angles, torch.minimum(folded, math.pi - folded))
        low = table[row, column] * (1.0 - right) + table[row, column + 1] * right
        high = table[row + 1, column] * (1.0 - right) + table[row + 1, column + 1] * right
        bearing, mixed, power = (low * (1.0 - up) + high * up).unbind(dim=-1)
        return bearing, sign * mixed, power

    def content(self) -> dict[str, Any]:
        """For a JSON file; five significant digits."""
        numbers = {name: getattr(self, name) for name in ("snr_db", "angle_rad", "values", "errors")}
        return {"source": self.source, **{name: _rounded(value.tolist()) for name, value in numbers.items()}}

    @classmethod
    def of_content(cls, content: dict[str, Any]) -> LinkInformation:
        """What ``content`` gave."""
        numbers = {
            name: torch.tensor(content[name], dtype=torch.float64)
            for name in ("snr_db", "angle_rad", "values", "errors")
        }
        return cls(**numbers, source=content["source"])


def simulate_information(law: ArrayLaw, settings: TableSettings | None = None) -> LinkInformation:
    """Compute the table of an array: about 0.2 ms of a core per link and sweep.

    Args:
        law: array and scattering.
        settings: None takes the defaults.

    Raises:
        ValueError: no angular spread.
    """
    settings = settings or TableSettings()
    generator = torch.Generator().manual_seed(settings.seed)
    angle = torch.tensor(ANGLES_DEG, dtype=torch.float64).deg2rad()
    bearing, known = angle.repeat_interleave(settings.links), angle_information(law)
    values, errors = [], []
    for level in SNRS_DB:
        snr = torch.full_like(bearing, level)
        found = path_scores(generator, law, bearing, snr, draw_links(generator, law, bearing, snr), settings.sweeps)
        lost = found.spread
        each = torch.stack((known - lost[:, 0, 0], -lost[:, 0, 1], found.power_information - lost[:, 1, 1]), dim=-1)
        each = each.view(len(angle), settings.links, 3)
        mean, error = each.mean(dim=1), each.std(dim=1) / math.sqrt(settings.links)
        # On the axis there is none on the bearing; chance must not make it negative.
        mean[:, 0].clamp_(min=0.0)
        most = (mean[:, 0] * mean[:, 2].clamp(min=0.0)).sqrt()
        mean[:, 1] = torch.maximum(torch.minimum(mean[:, 1], most), -most)
        values.append(mean)
        errors.append(error)
    source = f"simulated: {settings.links} links per node, {settings.sweeps} sweeps, seed {settings.seed}"
    snrs = torch.tensor(SNRS_DB, dtype=torch.float64)
    return LinkInformation(snrs, angle, torch.stack(values), torch.stack(errors), source)


def known_paths_information(law: ArrayLaw) -> LinkInformation:
    """What no simulation has to find: the information if all path angles and the noise were known.

    2 N / spread^2 on the bearing and T min(L, N) on the power in nepers, whatever angle and SNR: more than there is,
    so that the bound holds for every array, loosely.

    Raises:
        ValueError: no angular spread.
    """
    power = law.snapshots * min(law.num_antennas, law.num_paths) / DB_PER_NEPER**2
    values = torch.tensor([angle_information(law), 0.0, power], dtype=torch.float64).expand(2, 2, 3)
    ends = torch.tensor([0.0, math.pi / 2], dtype=torch.float64)
    return LinkInformation(torch.tensor([0.0, 10.0]).double(), ends, values, 0.0 * values, "all path angles known")


def information_path(law: ArrayLaw) -> Path:
    """Where the table of an array lies, if it comes along: beside the networks."""
    return shipped_path(law).with_suffix(".json")


@functools.lru_cache(maxsize=32)
def link_information(law: ArrayLaw, simulate: bool = True) -> LinkInformation:
    """The table of an array: the one that comes along, or one made now and kept while the process lasts.

    Args:
        law: array and scattering.
        simulate: whether a missing one is simulated, which takes minutes; else ``known_paths_information`` stands in.

    Raises:
        ValueError: no angular spread.
    """
    path = information_path(law)
    if path.is_file():
        return LinkInformation.of_content(json.loads(path.read_text(encoding="utf-8")))
    return simulate_information(law) if simulate else known_paths_information(law)


def covariance_fisher(
    links: LinksToUsers,
    information: LinkInformation,
    shadowing_std_db: Float[Tensor, "*#batch"] | float,
) -> Float[Tensor, "*batch K 2 2"]:
    """Fisher information on the position in the sample covariances of all APs, 1/m^2.

    sum_m G_m^T K_m G_m with the gradients G_m = (d bearing, d power) / d position. Unknown shadowing of variance s^2
    makes K = (J^-1 + diag(0, s^2))^-1 of the link's J, written without an inverse of J, which is singular on the axis.

    Args:
        links: geometry, SNR and the gradients of the power.
        information: of one link.
        shadowing_std_db: standard deviation of the shadowing that is not known, per batch entry.
    """
    bearing, mixed, power = information.look_up(links.snr_db, links.angle_rad)
    hidden = torch.as_tensor(shadowing_std_db, dtype=torch.float64, device=bearing.device)[..., None, None].square()
    left = 1.0 / (1.0 + hidden * power)
    bearing, mixed, power = bearing - hidden * left * mixed.square(), mixed * left, power * left
    turn, slope = links.bearing_gradient, links.power_gradient
    both = torch.einsum("...mki,...mkj,...mk->...kij", turn, slope, mixed)
    return (
        torch.einsum("...mki,...mkj,...mk->...kij", turn, turn, bearing)
        + torch.einsum("...mki,...mkj,...mk->...kij", slope, slope, power)
        + both
        + both.mT
    )


def _between(grid: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the cell of an ascending grid and the place in it [..., 1], off the grid its nearest end."""
    clamped = value.clamp(float(grid[0]), float(grid[-1]))
    low = (torch.searchsorted(grid, clamped.contiguous(), right=True) - 1).clamp(0, len(grid) - 2)
    return low, ((clamped - grid[low]) / (grid[low + 1] - grid[low])).unsqueeze(-1)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.5g}")
