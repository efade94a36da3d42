"""How each representation looks from a camera, and where its surface is: what conversions are fitted to and
judged by."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from sparse3d.fields.mesh import field_mesh
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.density import span_of
from sparse3d.gaussians.geometry import render_geometry
from sparse3d.gaussians.initial import from_points
from sparse3d.gaussians.render import SplatView, render
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.orbits import looking
from sparse3d.geometry.painted_points import PaintedPoints
from sparse3d.mesh.drawing import draw
from sparse3d.mesh.occupancy import OccupiedVoxels, occupancy_to_mesh
from sparse3d.mesh.signed_band import SignedBand, band_to_mesh
from sparse3d.nn.threads import one_torch_thread
from sparse3d.recipes.conversion.kinds import Thing
from sparse3d.recipes.radiance.config import RadianceEvaluationConfig, Vector
from sparse3d.recipes.radiance.judge import render_view
from sparse3d.recipes.splatting.surface import SplatMeshConfig, splats_to_mesh

FIELD_OF_VIEW = math.radians(40)
_ROOM = 1.1  # how much farther away than where the ball around a thing fills the picture
_HEIGHTS = (0.15, 0.5, -0.35, 0.75)  # of cameras over the middle, in turn: parts of the distance
_SOLID = 0.95  # opacity of the discs that points are drawn as
_RAYS = 2  # a pixel and side, of fields and meshes


class Sight(NamedTuple):
    """What a camera sees: `color` (H, W, 3) before a background, `depth` (H, W) metres along the optical
    axis, 0 where nothing is, `opacity` (H, W)."""

    color: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


def bounds_of(thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (3,) of what there is of a thing. ValueError where there is nothing."""
    if isinstance(thing, Mesh):
        places = thing.vertices[np.unique(thing.faces)]
    elif isinstance(thing, SignedBand):
        places = thing.places[thing.distances <= 0]
    elif isinstance(thing, OccupiedVoxels):
        cells = thing.coordinates[:, 1:]
        places = thing.origin + thing.voxel_size * np.concatenate([cells, cells + 1])
    elif isinstance(thing, GaussianCloud):
        places = span_of(thing).cpu().numpy()
    elif isinstance(thing, PaintedPoints):
        places = thing.positions
    elif isinstance(thing, VoxelField) and not thing.config.space.unbounded:
        cells = thing.coordinates[:, 1:].cpu().numpy()
        places = np.array(thing.config.space.low) + thing.voxel_size * np.concatenate([cells, cells + 1])
    else:
        low = np.array(thing.config.space.low)
        places = np.stack([low, low + thing.config.space.side])
    if not len(places):
        raise ValueError(f"there is nothing in this {type(thing).__name__}")
    places = places.astype(np.float64)
    return places.min(0), places.max(0)


def extent_of(thing: Thing) -> float:
    """Metres along the longest side."""
    low, high = bounds_of(thing)
    return float((high - low).max())


def ring(low: np.ndarray, high: np.ndarray, count: int, size: int, turn: float = 0.0) -> list[Camera]:
    """`count` pinholes around a box, at several heights, that see all of it; +z is up. `turn`: parts of a
    step that they are turned by, for views that stand between those of another ring."""
    middle, reach = (low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-9)
    distance = _ROOM * reach / math.sin(FIELD_OF_VIEW / 2)
    focal = 0.5 * size / math.tan(FIELD_OF_VIEW / 2)
    cameras = []
    for number in range(count):
        angle, height = 2 * math.pi * (number + turn) / count, _HEIGHTS[number % len(_HEIGHTS)]
        across = math.sqrt(1 - height**2)
        off = np.array([across * math.cos(angle), across * math.sin(angle), height])
        pose = looking(middle + distance * off, middle, np.array([0.0, 0.0, 1.0]))
        cameras.append(Camera(focal, focal, size / 2, size / 2, size, size, pose))
    return cameras


@torch.no_grad()
def sight(thing: Thing, camera: Camera, background: Vector = (1.0, 1.0, 1.0), rays: int = _RAYS) -> Sight:
    """What a camera sees of a thing; of bands and occupancy, their surfaces; points as discs that touch.
    `rays` a pixel and side, of meshes and fields."""
    if isinstance(thing, (Mesh, SignedBand, OccupiedVoxels)):
        return Sight(*draw(shown_mesh(thing), camera, background, rays))
    if isinstance(thing, (GaussianCloud, PaintedPoints)):
        cloud = discs_of(thing) if isinstance(thing, PaintedPoints) else thing
        paint = render_geometry if cloud.surfels else render
        with one_torch_thread():
            seen = paint(cloud, SplatView.of(camera, cloud.means), torch.tensor(background).to(cloud.means))
        return Sight(*(part.cpu().numpy() for part in (seen.color, seen.depth, seen.alpha)))
    with one_torch_thread():
        return Sight(*render_view(thing, camera, background, RadianceEvaluationConfig(rays_per_side=rays)))


@lru_cache(maxsize=4)
def shown_mesh(thing: Mesh | SignedBand | OccupiedVoxels) -> Mesh:
    """The surface of what is drawn as one; the last few are kept, for one camera after the other."""
    if isinstance(thing, SignedBand):
        return band_to_mesh(thing)
    return occupancy_to_mesh(thing) if isinstance(thing, OccupiedVoxels) else thing


@lru_cache(maxsize=4)
def discs_of(points: PaintedPoints) -> GaussianCloud:
    """Points as surfels."""
    colors = points.colors if points.colors is not None else np.full(points.positions.shape, 128, np.uint8)
    normals = None if points.normals is None else torch.from_numpy(points.normals)
    return from_points(
        torch.from_numpy(points.positions),
        torch.from_numpy(colors / np.float32(255)),
        sh_degree=0,
        opacity=_SOLID,
        normals=normals,
        surfels=True,
    )


def surface_of(thing: Thing, resolution: int = 128) -> Mesh:
    """The surface of a thing as a mesh, with colours. ValueError where there is none."""
    if isinstance(thing, (Mesh, SignedBand, OccupiedVoxels)):
        mesh = shown_mesh(thing)
    elif isinstance(thing, PaintedPoints):
        return surface_of(discs_of(thing), resolution)
    elif isinstance(thing, GaussianCloud):
        return surface_of_splats(thing, resolution)
    else:
        mesh = field_mesh(thing)
    if not len(mesh.faces):
        raise ValueError("it has no surface: nothing in it is closed or dense enough")
    return mesh


def surface_of_splats(cloud: GaussianCloud, resolution: int) -> Mesh:
    """Of Gaussians or surfels that are opaque, as those on surfaces are, what cameras around them see, fused;
    of others where their density passes a level (`recipes.splatting.surface` says why)."""
    opaque = float(torch.sigmoid(cloud.opacities).median()) > 0.5
    # The box around them is wider than they are by a half.
    cells = min(math.ceil(1.5 * resolution), 1 << 14)
    return splats_to_mesh(cloud, SplatMeshConfig("fusion" if opaque else "density", cells))
