"""The surface of a cloud of Gaussians where its density passes a level, with its colours.

Gaussians that were trained on photos are spread over what is seen, thin across it. Their density is a ridge
along the surface; the level set is a skin on both sides of the ridge, and the inner one is a hollow that
nobody sees. The outer one lies where the ridge has fallen to the level: outside of the surface by part of the
Gaussians' thickness. Where depth is well known, fusing what cameras see is nearer to the surface
(`sparse3d.recipes.splatting.surface`); this needs no cameras.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.density import CloudDensity, box_of
from sparse3d.geometry.level_set import corner_cases, level_set
from sparse3d.geometry.mesh import Mesh
from sparse3d_ops.splat_projection import LEAST_ALPHA
from sparse3d_ops.visible_samples import lattice

_CELLS = 4  # along a side of a voxel of the lists
_VOXELS_AT_ONCE = 1 << 14  # a million cells: what memory is bounded by


@dataclass(frozen=True)
class DensityMeshConfig:
    """How a surface is cut out of the density."""

    level: float = 0.1  # in opacities
    resolution: int = 256  # cells along the longest side of the box
    min_faces: int = 100  # pieces of fewer triangles are left out, but not the largest

    def __post_init__(self):
        if not self.level > LEAST_ALPHA or not 2 <= self.resolution <= 1 << 14:
            raise ValueError(f"level must be above 1/255 and resolution 2 to {1 << 14}, got {self}")


@torch.no_grad()
def density_mesh(
    cloud: GaussianCloud, config: DensityMeshConfig = DensityMeshConfig(), box: Tensor | None = None
) -> Mesh:
    """The surface within a box (2, 3), world, metres (`density.box_of` where there is none). Colours are the
    mean of the Gaussians' own, without what depends on the direction. ValueError where nothing is as dense.
    """
    box = (box_of(cloud) if box is None else box).to(cloud.means)
    cell = float((box[1] - box[0]).max()) / config.resolution
    density = CloudDensity(cloud, box, _CELLS * cell, cell / 2)

    def at(points: Tensor) -> Tensor:
        # Of Gaussians the logarithm is what is nearly straight from one lattice point to the next.
        return density(box[0] + points[:, 1:].to(box) * cell).density.clamp(min=LEAST_ALPHA).log()

    level = math.log(config.level)
    found = [_crossed(part, at, level) for part in density.voxels.split(_VOXELS_AT_ONCE)]
    cells = torch.cat(found) if found else density.voxels
    if not len(cells):
        raise ValueError(f"the cloud is nowhere as dense as {config.level:g}; take a lower level")
    points, corner_rows = lattice(cells)
    surface = level_set(corner_rows, at(points), level)
    places = box[0] + surface.positions(points).to(box) * cell
    mesh = Mesh(places.cpu().numpy(), surface.faces.cpu().numpy())
    mesh = mesh.without_cavities().without_small_pieces(config.min_faces)
    colors = density(torch.from_numpy(mesh.vertices).to(box)).colors
    return mesh.with_colors((colors * 255).round().to(torch.uint8).cpu().numpy())


def _crossed(voxels: Tensor, at, level: float) -> Tensor:
    """Those of the cells of some voxels that the surface passes."""
    off = torch.cartesian_prod(*[torch.arange(_CELLS, dtype=torch.int32, device=voxels.device)] * 3)
    cells = voxels[:, None].repeat(1, len(off), 1)
    cells[..., 1:] = _CELLS * cells[..., 1:] + off
    cells = cells.flatten(0, 1)
    points, corner_rows = lattice(cells)
    case = corner_cases(corner_rows, at(points), level)
    return cells[(case > 0) & (case < 255)]
