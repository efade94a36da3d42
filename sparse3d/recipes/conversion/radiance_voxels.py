"""Radiance voxels from what has a surface or a density: values at the corners of those voxels that hold
something.

From a signed distance the field's own value before its softplus falls along the way out, `_SLOPE` a voxel,
and passes the level at which a field is cut into a mesh (`sparse3d.fields.mesh`) where the distance is 0.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sparse3d.fields.build import Field
from sparse3d.fields.mesh import DEPTH_OF_SIDE
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig
from sparse3d.fields.voxel_lattice import VoxelLattice
from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.density import CloudDensity, box_of
from sparse3d.mesh.signed_band import SignedBand
from sparse3d.recipes.conversion.kinds import ConversionConfig
from sparse3d.recipes.conversion.views import bounds_of
from sparse3d_ops.hashing import build, look_up, pack

_SLOPE = 8.0  # a voxel: opaque within one, and still a slope that can be learned from
_LEAST = -9.0  # before softplus: nothing
_DARKEST = 0.004  # colours between that and one less: the sigmoid reaches neither 0 nor 1
_DENSE = 1e-2  # opacity along a voxel from which on one is kept
_AT_ONCE = 1 << 18
_CELLS = 4  # along a side of a voxel of the lists of Gaussians

# (N, 3) world -> density (N,) in 1 / metre, and colours (N, 3) in [0, 1].
Sampled = Callable[[Tensor], tuple[Tensor, Tensor]]


def voxels_of_band(band: SignedBand, sh_degree: int = 0) -> VoxelField:
    """On the lattice of the band; grey where it has no colours. ValueError where no voxel has all its
    corners in the band."""
    points = torch.from_numpy(band.points)
    table = build(pack(points))
    whole = torch.ones(len(points), dtype=torch.bool)
    for corner in torch.cartesian_prod(*[torch.arange(2, dtype=torch.int32)] * 3):
        whole &= look_up(*table, pack(points + torch.nn.functional.pad(corner, (1, 0)))) >= 0
    voxels = points[whole]
    if not len(voxels):
        raise ValueError("no voxel of the band has all its corners: a wider band")
    low = voxels[:, 1:].amin(0)
    resolution = int((voxels[:, 1:].amax(0) - low + 1).max())
    corner = band.origin + band.voxel_size * low.numpy()
    field = _empty(corner, band.voxel_size * resolution, resolution, sh_degree)
    shifted = voxels - torch.nn.functional.pad(low, (1, 0))
    lattice = VoxelLattice(shifted.contiguous(), resolution)
    rows = look_up(*table, pack(lattice.points + torch.nn.functional.pad(low, (1, 0)))).long()
    level = math.log(math.expm1(DEPTH_OF_SIDE / field.config.space.side * field.unit))
    raw = level - _SLOPE * torch.from_numpy(band.distances)[rows] / band.voxel_size
    colors = torch.full((len(rows), 3), 0.5)
    if band.colors is not None:
        colors = torch.from_numpy(band.colors)[rows].float() / 255
    return _filled(field, lattice, raw, colors)


def voxels_of_cloud(cloud: GaussianCloud, config: ConversionConfig) -> VoxelField:
    """The density of Gaussians or surfels: along the way through one as much light is lost as it takes.
    ValueError for a cloud of which nothing can be seen."""
    low, high = box_of(cloud).double().numpy()
    bounds = bounds_of(cloud)
    size = config.voxel(float((bounds[1] - bounds[0]).max()))
    resolution = math.ceil(float((high - low).max()) / size)
    box = torch.from_numpy(np.stack([low, low + resolution * size])).float()
    # Thinner ones fall between lattice points.
    least = 0.5 * size
    density = CloudDensity(cloud, box, _CELLS * size, least)

    def sampled(points: Tensor) -> tuple[Tensor, Tensor]:
        found = density(points)
        # Through the middle of one: depth = -log(1 - opacity), about 3 for what is opaque, over sqrt(2 pi)
        # deviations.
        return 3 * found.density / (math.sqrt(2 * math.pi) * least), found.colors

    cells = torch.cartesian_prod(*[torch.arange(_CELLS, dtype=torch.int32)] * 3)
    fine = density.voxels[:, None].repeat(1, len(cells), 1)
    fine[..., 1:] = _CELLS * fine[..., 1:] + cells
    fine = fine.flatten(0, 1)
    fine = fine[(fine[:, 1:] < resolution).all(1)].contiguous()
    degree = min(cloud.sh_degree, config.sh_degree)
    field = _empty(low, resolution * size, resolution, degree)
    return _sampled(field, fine, sampled)


def voxels_of_field(field: Field, config: ConversionConfig) -> VoxelField:
    """Another field's density and its colours as seen straight from its middle outwards (they are fitted to
    its pictures later), in its cube. ValueError for one that is empty there."""
    space = field.config.space
    size = config.voxel(space.side)
    resolution = math.ceil(space.side / size)
    device = next(field.parameters()).device
    middle = torch.tensor(space.low) + space.side / 2

    @torch.no_grad()
    def sampled(points: Tensor) -> tuple[Tensor, Tensor]:
        toward = torch.nn.functional.normalize(middle - points, dim=1)
        places = points.to(device)
        return field.density(places).cpu(), field.color(places, toward.to(device)).cpu()

    degree = min(getattr(field.config, "sh_degree", config.sh_degree), config.sh_degree)
    made = _empty(np.array(space.low), resolution * size, resolution, degree)
    return _sampled(made, VoxelLattice.full(resolution).coordinates, sampled)


def _empty(low: np.ndarray, side: float, resolution: int, sh_degree: int) -> VoxelField:
    """A field of a cube, to be filled."""
    x, y, z = (float(value) for value in low)
    space = SpaceConfig((x, y, z), float(side))
    config = VoxelFieldConfig(space=space, resolution=2, sh_degree=sh_degree, unit=1 / resolution)
    return VoxelField(config)


@torch.no_grad()
def _sampled(field: VoxelField, voxels: Tensor, sampled: Sampled) -> VoxelField:
    """Of voxels (N, 4) those with something in them, or beside one."""
    resolution = round(1 / field.config.unit)
    lattice = VoxelLattice(voxels, resolution)
    low, size = torch.tensor(field.config.space.low), field.config.space.side / resolution
    parts = [sampled(low + part[:, 1:].float() * size) for part in lattice.points.split(_AT_ONCE)]
    density, colors = (torch.cat(columns) for columns in zip(*parts, strict=True))
    raw = density * field.unit
    raw = torch.where(raw > 20, raw, torch.log(torch.expm1(raw.clamp(min=1e-9)).clamp(min=math.exp(_LEAST))))
    solid = -torch.expm1(-density * size)[lattice.corner_rows.long()].amax(1) >= _DENSE
    if not bool(solid.any()):
        raise ValueError("nothing in it is dense enough to be seen: no voxel to keep")
    fewer, rows = lattice.keep(lattice.dilate(solid))
    return _filled(field, fewer, raw[rows], colors[rows])


def _filled(field: VoxelField, lattice: VoxelLattice, raw: Tensor, colors: Tensor) -> VoxelField:
    harmonics = torch.zeros(len(raw), (field.config.sh_degree + 1) ** 2, 3)
    harmonics[:, 0] = torch.logit(colors.float().clamp(_DARKEST, 1 - _DARKEST)) / SH0
    tensors = {
        "coordinates": lattice.coordinates,
        "resolution": torch.tensor(lattice.resolution),
        "raw_density": raw.float().clamp(min=_LEAST)[:, None],
        "harmonics": harmonics.flatten(1),
    }
    field.reshape_for(tensors)
    field.load_state_dict(tensors)
    return field
