"""What leads from one representation to another directly, and the ways that are put together of these."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from sparse3d.fields.build import Field
from sparse3d.fields.mesh import MeshConfig, field_mesh
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.initial import from_mesh, from_points
from sparse3d.gaussians.shapes import quaternions, rotation_matrices
from sparse3d.gaussians.transform import with_sh_degree
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.painted_points import PaintedPoints
from sparse3d.mesh.occupancy import OccupiedVoxels, occupancy_of_band, occupancy_to_mesh
from sparse3d.mesh.painting import paint_of
from sparse3d.mesh.signed_band import SignedBand, band_from_mesh, band_to_mesh
from sparse3d.recipes.conversion.fitting import fitted_cloud, fitted_field, goals_of
from sparse3d.recipes.conversion.kinds import ConversionConfig, Kind, Thing, kind_of
from sparse3d.recipes.conversion.radiance_voxels import voxels_of_band, voxels_of_cloud, voxels_of_field
from sparse3d.recipes.conversion.views import extent_of, surface_of_splats

_BAND = 3.0  # voxels on each side
# Gaussians on a surface, before they are fitted: opacity, deviation as part of the distance to the next. Of
# 0.9 and 1 a silhouette is a voxel too wide (22.9 dB, these have 27.4).
_OPAQUE, _NARROW = 0.95, 0.5
_A_VOXEL = 0.5  # Gaussians on the square of a voxel; twice as many look no better
_SEEN = 0.3  # opacity from which on a Gaussian is a point
_THICKNESS = 0.1  # of what were surfels, in their smaller width


class Step(NamedTuple):
    """From a kind to another."""

    source: Kind
    target: Kind
    change: Callable[[Any, ConversionConfig], Thing]


# ---- surfaces and distances ------------------------------------------------------------------------------


def mesh_to_band(mesh: Mesh, config: ConversionConfig) -> SignedBand:
    """Exact distances within three voxels; colours of the nearest place, from textures too."""
    size = config.voxel(extent_of(mesh))
    if not mesh.has_texture:
        return band_from_mesh(mesh, size, _BAND)
    band = band_from_mesh(replace(mesh, uv=None, material=None, colors=None), size, _BAND)
    shades = paint_of(mesh)(band.places, np.zeros_like(band.places))
    return replace(band, colors=np.rint(shades.clip(0, 1) * 255).astype(np.uint8))


def band_to_surface(band: SignedBand, config: ConversionConfig) -> Mesh:
    """Marching cubes."""
    return band_to_mesh(band)


def band_to_occupancy(band: SignedBand, config: ConversionConfig) -> OccupiedVoxels:
    """Voxels within."""
    return occupancy_of_band(band)


def occupancy_to_surface(voxels: OccupiedVoxels, config: ConversionConfig) -> Mesh:
    """Marching cubes, calmed."""
    return occupancy_to_mesh(voxels)


def band_to_voxels(band: SignedBand, config: ConversionConfig) -> VoxelField:
    """On the same lattice: as near to the surface as it can be drawn, so that nothing is left to fit (three
    painted balls at 96^3: 40.8 dB; fitting loses half of one and more)."""
    return voxels_of_band(band)


def mesh_to_points(mesh: Mesh, config: ConversionConfig) -> PaintedPoints:
    """Spread evenly by area, with colours and normals."""
    face, weights = mesh.spread_points(_count_on(mesh, config, 1.0), config.seed)
    places = (weights[:, :, None] * mesh.vertices[mesh.faces[face]]).sum(1)
    normals = mesh.face_normals[face]
    normals = (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32)
    colors = None
    if mesh.has_paint:
        colors = np.rint(mesh.colors_at(face, weights).clip(0, 1) * 255).astype(np.uint8)
    return PaintedPoints(places, colors, normals)


# ---- radiance --------------------------------------------------------------------------------------------


def field_to_mesh(field: Field, config: ConversionConfig) -> Mesh:
    """Where its density, or distance, passes its level."""
    cells = None
    if config.voxel_size is not None:
        cells = max(2, math.ceil(field.config.space.side / config.voxel_size))
    return field_mesh(field, MeshConfig(resolution=cells))


def field_to_gaussians(field: Field, config: ConversionConfig) -> GaussianCloud:
    """On its surface, then fitted to its pictures."""
    return _fitted_on(field, field_to_mesh(field, config), config, surfels=False)


def field_to_surfels(field: Field, config: ConversionConfig) -> GaussianCloud:
    """As `field_to_gaussians`."""
    return _fitted_on(field, field_to_mesh(field, config), config, surfels=True)


def field_to_voxels(field: Field, config: ConversionConfig) -> VoxelField:
    """Its density at lattice points, then fitted to its pictures."""
    return _fitted_to(field, voxels_of_field(field, config), config)


def splats_to_voxels(cloud: GaussianCloud, config: ConversionConfig) -> VoxelField:
    """Their density at lattice points, then fitted to their pictures."""
    return _fitted_to(cloud, voxels_of_cloud(cloud, config), config)


def mesh_to_gaussians(mesh: Mesh, config: ConversionConfig) -> GaussianCloud:
    """Flat ones on it, then fitted to its pictures."""
    return _fitted_on(mesh, mesh, config, surfels=False)


def mesh_to_surfels(mesh: Mesh, config: ConversionConfig) -> GaussianCloud:
    """As `mesh_to_gaussians`."""
    return _fitted_on(mesh, mesh, config, surfels=True)


def splats_to_mesh(cloud: GaussianCloud, config: ConversionConfig) -> Mesh:
    """Their surface."""
    resolution = config.resolution
    if config.voxel_size is not None:
        resolution = min(max(8, math.ceil(extent_of(cloud) / config.voxel_size)), 1 << 14)
    return surface_of_splats(cloud, resolution)


def gaussians_to_surfels(cloud: GaussianCloud, config: ConversionConfig) -> GaussianCloud:
    """Without the axis along which each is the thinnest, then fitted to their pictures."""
    thinnest = cloud.scales.argmin(1)
    # The axes in another order, of the same hand: turned until the thinnest is the third.
    order = (thinnest[:, None] + torch.tensor([1, 2, 3])) % 3
    axes = rotation_matrices(cloud.quats).gather(2, order[:, None].expand(-1, 3, 3))
    flat = {"scales": cloud.scales.gather(1, order[:, :2]), "quats": quaternions(axes)}
    surfels = GaussianCloud.of({**cloud.parameters(), **flat})
    return fitted_cloud(surfels, goals_of(cloud, config), config.refine, config.seed)


def surfels_to_gaussians(cloud: GaussianCloud, config: ConversionConfig) -> GaussianCloud:
    """A tenth as thick as their smaller width, then fitted to their pictures."""
    thickness = cloud.scales.amin(1, keepdim=True) + math.log(_THICKNESS)
    solid = GaussianCloud.of({**cloud.parameters(), "scales": torch.cat([cloud.scales, thickness], 1)})
    return fitted_cloud(solid, goals_of(cloud, config), config.refine, config.seed)


# ---- points ----------------------------------------------------------------------------------------------


def splats_to_points(cloud: GaussianCloud, config: ConversionConfig) -> PaintedPoints:
    """The middles of those that can be seen, with the colours that they have from everywhere, and normals, of
    either sign: the axes along which they are the thinnest. ValueError where none can be seen."""
    cloud = cloud[(torch.sigmoid(cloud.opacities) >= _SEEN) & torch.isfinite(cloud.means).all(1)]
    if config.count is not None and len(cloud) > config.count:
        random = torch.Generator().manual_seed(config.seed)
        cloud = cloud[torch.randperm(len(cloud), generator=random)[: config.count].sort().values]
    if not len(cloud):
        raise ValueError(f"no Gaussian has an opacity of {_SEEN} or more: no points to take")
    axes = rotation_matrices(cloud.quats)
    which = cloud.scales.argmin(1) if not cloud.surfels else torch.full((len(cloud),), 2)
    normals = axes[torch.arange(len(cloud)), :, which]
    colors = (cloud.sh0[:, 0] * SH0 + 0.5).clamp(0, 1)
    shades = (colors * 255).round().to(torch.uint8).numpy()
    return PaintedPoints(cloud.means.numpy(), shades, normals.float().numpy())


def points_to_gaussians(points: PaintedPoints, config: ConversionConfig) -> GaussianCloud:
    """As wide as they are apart, flat along planes through neighbours; grey without colours."""
    return _cloud_of(points, surfels=False)


def points_to_surfels(points: PaintedPoints, config: ConversionConfig) -> GaussianCloud:
    """As `points_to_gaussians`."""
    return _cloud_of(points, surfels=True)


def _cloud_of(points: PaintedPoints, surfels: bool) -> GaussianCloud:
    colors = points.colors if points.colors is not None else np.full(points.positions.shape, 128, np.uint8)
    normals = None if points.normals is None else torch.from_numpy(points.normals)
    shades = torch.from_numpy(colors / np.float32(255))
    places = torch.from_numpy(points.positions)
    return from_points(
        places, shades, sh_degree=0, opacity=_OPAQUE, normals=normals, flat=True, surfels=surfels
    )


# ---- parts -----------------------------------------------------------------------------------------------


def _count_on(mesh: Mesh, config: ConversionConfig, a_voxel: float) -> int:
    """So many on the square of a voxel, where nothing is said."""
    return config.count or max(1000, round(a_voxel * mesh.area / config.voxel(extent_of(mesh)) ** 2))


def _fitted_to(thing: Thing, field: VoxelField, config: ConversionConfig) -> VoxelField:
    """Voxels fitted to pictures of a thing; half of the steps are enough for them."""
    return fitted_field(field, goals_of(thing, config), config.refine // 2, config.seed)


def _fitted_on(thing: Thing, mesh: Mesh, config: ConversionConfig, surfels: bool) -> GaussianCloud:
    """Gaussians on a mesh that are fitted to pictures of a thing."""
    painted = mesh if mesh.colors is not None or not mesh.has_texture else mesh.with_vertex_colors()
    count, shape = _count_on(mesh, config, _A_VOXEL), {"opacity": _OPAQUE, "scale": _NARROW}
    cloud = from_mesh(painted, count, seed=config.seed, sh_degree=0, surfels=surfels, **shape)
    if mesh.has_texture:  # finer than its vertices
        face, weights = mesh.spread_points(count, config.seed)
        shades = torch.from_numpy(mesh.colors_at(face, weights)).float()
        cloud = GaussianCloud.of({**cloud.parameters(), "sh0": ((shades - 0.5) / SH0)[:, None]})
    seen_from = getattr(getattr(thing, "config", None), "sh_degree", 0 if isinstance(thing, Mesh) else 3)
    cloud = with_sh_degree(cloud, min(seen_from, config.sh_degree))
    return fitted_cloud(cloud, goals_of(thing, config), config.refine, config.seed)


STEPS = (
    Step(Kind.MESH, Kind.BAND, mesh_to_band),
    Step(Kind.MESH, Kind.POINTS, mesh_to_points),
    Step(Kind.MESH, Kind.GAUSSIANS, mesh_to_gaussians),
    Step(Kind.MESH, Kind.SURFELS, mesh_to_surfels),
    Step(Kind.BAND, Kind.MESH, band_to_surface),
    Step(Kind.BAND, Kind.OCCUPANCY, band_to_occupancy),
    Step(Kind.BAND, Kind.VOXELS, band_to_voxels),
    Step(Kind.OCCUPANCY, Kind.MESH, occupancy_to_surface),
    Step(Kind.VOXELS, Kind.MESH, field_to_mesh),
    Step(Kind.VOXELS, Kind.GAUSSIANS, field_to_gaussians),
    Step(Kind.VOXELS, Kind.SURFELS, field_to_surfels),
    Step(Kind.FIELD, Kind.MESH, field_to_mesh),
    Step(Kind.FIELD, Kind.VOXELS, field_to_voxels),
    Step(Kind.FIELD, Kind.GAUSSIANS, field_to_gaussians),
    Step(Kind.FIELD, Kind.SURFELS, field_to_surfels),
    Step(Kind.GAUSSIANS, Kind.MESH, splats_to_mesh),
    Step(Kind.GAUSSIANS, Kind.VOXELS, splats_to_voxels),
    Step(Kind.GAUSSIANS, Kind.SURFELS, gaussians_to_surfels),
    Step(Kind.GAUSSIANS, Kind.POINTS, splats_to_points),
    Step(Kind.SURFELS, Kind.MESH, splats_to_mesh),
    Step(Kind.SURFELS, Kind.VOXELS, splats_to_voxels),
    Step(Kind.SURFELS, Kind.GAUSSIANS, surfels_to_gaussians),
    Step(Kind.SURFELS, Kind.POINTS, splats_to_points),
    Step(Kind.POINTS, Kind.SURFELS, points_to_surfels),
    Step(Kind.POINTS, Kind.GAUSSIANS, points_to_gaussians),
)


def way(source: Kind, target: Kind) -> list[Step]:
    """The fewest steps from one to another; of equally many those that stand first in `STEPS`. None for the
    same kind. ValueError where nothing leads there."""
    reached: dict[Kind, list[Step]] = {source: []}
    waiting = deque([source])
    while waiting:
        kind = waiting.popleft()
        for step in STEPS:
            if step.source is kind and step.target not in reached:
                reached[step.target] = [*reached[kind], step]
                waiting.append(step.target)
    if target not in reached:
        raise ValueError(f"nothing leads from {source} to {target}; there are {', '.join(reached)}")
    return reached[target]


def convert(thing: Thing, target: Kind, config: ConversionConfig | None = None) -> Thing:
    """A thing as another kind of representation, by the fewest steps; itself where it is one already.
    ValueError where nothing leads there, or where a step finds nothing to make it of."""
    for step in way(kind_of(thing), target):
        thing = step.change(thing, config or ConversionConfig())
    return thing
