"""How dense a cloud of Gaussians is in space, and of what colour: the sum of what each one has at a point.

    density(p) = sum of o_i exp(-q_i(p) / 2),  color(p) = the mean of the colours with these weights

In units of opacity: a Gaussian of full opacity has 1 in its middle. Which Gaussians reach a point is known
from voxels of the hash, each of which lists those whose box touches it. Scales below `least_scale` are taken
for that: lattice points would else step over what is thinner than they are apart, as surfels are.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.shapes import rotation_matrices
from sparse3d_ops import hashing
from sparse3d_ops.gaussian_density import gaussian_density
from sparse3d_ops.splat_projection import LEAST_ALPHA

_MOST_PAIRS = 1 << 28  # of a Gaussian and a voxel: 6 GB


class Density(NamedTuple):
    """density (Q,), and colors (Q, 3) in [0, 1], 0 where there is no density."""

    density: Tensor
    colors: Tensor


class CloudDensity:
    """The density of a cloud within a box (2, 3), lowest and highest corner, world, metres. `voxel_size`: of
    the lists; a few times as large as most Gaussians is quick. `voxels` (V, 4) int32 are those that a
    Gaussian reaches, i for [i, i + 1) voxel_size from the box's lowest corner.

    ValueError where more voxels would have to be listed than memory holds.
    """

    def __init__(self, cloud: GaussianCloud, box: Tensor, voxel_size: float, least_scale: float):
        if not (voxel_size > 0 and least_scale > 0):
            raise ValueError(f"sizes must be above 0, got {voxel_size} and {least_scale}")
        cloud = GaussianCloud.of({name: value.detach() for name, value in cloud.parameters().items()})
        self.origin, self.voxel_size = box[0].to(cloud.means), voxel_size
        scales = torch.nn.functional.pad(cloud.scales.exp(), (0, 3 - cloud.scales.shape[1]))
        scales = scales.clamp(min=least_scale)
        turned = rotation_matrices(cloud.quats)
        self._means, self._opacities = cloud.means, torch.sigmoid(cloud.opacities)
        self._roots = turned.mT / scales[:, :, None]
        self._colors = (cloud.sh0[:, 0] * SH0 + 0.5).clamp(0, 1)
        sigmas = (2 * torch.log((self._opacities / LEAST_ALPHA).clamp(min=1))).sqrt()
        reach = sigmas[:, None] * (turned * scales[:, None]).norm(dim=2)
        keys, of_pairs, rows = self._pairs(cloud.means, reach, box.to(cloud.means))
        found, voxel, counts = hashing.unique(keys)
        self.voxels = hashing.unpack(found)
        self._order = of_pairs[torch.sort(voxel, stable=True).indices] if len(rows) else of_pairs
        self._starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self._table = hashing.build(found)

    def _pairs(self, means: Tensor, reach: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys of voxels that a Gaussian's box touches, and its row, for all of them."""
        last = ((box[1] - box[0]) / self.voxel_size).ceil() - 1
        low = ((means - reach - self.origin) / self.voxel_size).floor()
        high = ((means + reach - self.origin) / self.voxel_size).floor()
        touches = (reach > 0).all(1) & ((high >= 0) & (low <= last)).all(1)
        rows = touches.nonzero()[:, 0]
        low = torch.minimum(low[rows].clamp(min=0), last).long()
        counts = torch.minimum(high[rows], last).long() - low + 1
        each = counts.prod(1)
        if int(each.sum()) > _MOST_PAIRS:
            raise ValueError(
                f"{int(each.sum())} voxels to list for {len(rows)} Gaussians; take a coarser resolution"
            )
        owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), each)
        begins = torch.repeat_interleave(each.cumsum(0) - each, each)
        place = torch.arange(len(owner), device=rows.device) - begins
        size = counts[owner]
        z = place % size[:, 2]
        y = place // size[:, 2] % size[:, 1]
        x = place // size[:, 2] // size[:, 1]
        cells = low[owner] + torch.stack((x, y, z), 1)
        return hashing.pack(torch.nn.functional.pad(cells.int(), (1, 0))), rows[owner], rows

    def __call__(self, points: Tensor) -> Density:
        """(Q, 3) world, metres."""
        points = points.to(self._means).contiguous()
        cells = ((points - self.origin) / self.voxel_size).floor()
        inside = ((cells >= 0) & (cells < hashing.COORDINATE_LIMIT)).all(1)  # NaN is not
        cells = cells.where(inside[:, None], 0.0).int()
        voxel = hashing.look_up(*self._table, hashing.pack(torch.nn.functional.pad(cells, (1, 0)))).long()
        voxel = voxel.where(inside, -1)
        lists = voxel, self._starts, self._order, self._means, self._roots, self._opacities, self._colors
        density, sums = gaussian_density(points, *lists)
        return Density(density, sums / density.clamp(min=LEAST_ALPHA)[:, None])


def span_of(cloud: GaussianCloud, margin: float = 0.0, share: float = 0.98) -> Tensor:
    """(2, 3) world: the middle `share` of the Gaussians along each axis: without strays, which may be far
    away; wider by `margin` of it to each side, and by three deviations at least. ValueError where no mean is
    finite."""
    means = cloud.means.detach()
    finite = means[torch.isfinite(means).all(1)]
    if not len(finite):
        raise ValueError("the cloud has no Gaussian at a finite place")
    # By sorting: torch's own quantiles refuse more than 16 million numbers.
    ranks = [math.floor((len(finite) - 1) * part) for part in ((1 - share) / 2, (1 + share) / 2)]
    low, high = finite.sort(0).values[ranks]
    widest = float(torch.exp(cloud.scales.detach()).max(1).values.median())
    room = (margin * (high - low)).clamp(min=3 * widest)
    return torch.stack((low - room, high + room))


def box_of(cloud: GaussianCloud) -> Tensor:
    """(2, 3) world: half as long again as the span of the Gaussians: with what lies around their middles."""
    return span_of(cloud, margin=0.25)
