"""A mesh for what is solid and sparse voxels for what is not: a radiance field as two files that are small to
keep and quick to draw (after VMesh, Guo et al., "Hybrid volume-mesh representation for efficient view
synthesis", SIGGRAPH Asia 2023).

The mesh is the field's level set with a baked texture. Of the voxels those stay that have light to add before
it: with a corner outside of the mesh where the field is not clear. What is solid has a skin of such voxels,
where its density rises; they stay only if pictures say that they are missed. A ray takes what the voxels
show up to the mesh, and the mesh's colour for the light that is left there. Unlike the paper nothing is
trained again: what is solid is what the field says.
"""

import copy
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.evaluation.images import psnr
from sparse3d.fields.mesh import MeshConfig, field_mesh, seen_on_surface
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.rays import pixel_centres
from sparse3d.io.files import write_text
from sparse3d.io.meshes import read_mesh, write_mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.drawing import covered
from sparse3d.recipes.conversion.finishing import FinishConfig, finished
from sparse3d.recipes.conversion.views import bounds_of, ring, sight
from sparse3d.recipes.conversion.voxel_files import read_voxel_file, write_voxel_file
from sparse3d.recipes.radiance.config import Vector

MESH, VOLUME, SCENE = "mesh.glb", "volume.safetensors", "scene.json"
_LEAST_ALPHA = 0.01  # of a step through a voxel that has light to add; what training prunes at
_SKIN = 2.0  # voxels from the mesh, up to which those of a solid reach
_MISSED = 0.05  # dB: voxels that make pictures better by less are left out
_VIEWS, _SIZE = 6, 128  # pictures that both are judged by, and pixels along their sides
_AT_ONCE = 1 << 16  # rays


class MeshAndVolume(NamedTuple):
    """`volume` is None where the mesh alone is all there is to see."""

    mesh: Mesh
    volume: VoxelField | None


class Likeness(NamedTuple):
    """PSNR, dB, of pictures against those of the field: of the mesh alone, and of both together."""

    mesh: float
    both: float


@torch.no_grad()
def mesh_and_volume(field: VoxelField, config: MeshConfig, finish: FinishConfig) -> MeshAndVolume:
    """Part a field. ValueError for one with a contraction, whose voxels are no cubes in the world, and where
    it passes the level nowhere."""
    if field.config.space.unbounded:
        raise ValueError("a field with a contraction cannot be parted into a mesh and voxels")
    mesh = finished(field_mesh(field, config), finish, lambda *place: seen_on_surface(field, *place))
    lattice, low = field.lattice, torch.tensor(field.config.space.low, dtype=torch.float64)
    places = low + lattice.points[:, 1:].double().cpu() * field.voxel_size
    distance = torch.from_numpy(MeshDistance(mesh).signed(places.numpy())).to(lattice.points.device)
    sigma = torch.nn.functional.softplus(field.raw_density[:, 0])
    alpha = -torch.expm1(-sigma * field.config.step * field.voxel_size / field.unit)
    parts = [MeshAndVolume(mesh, None)]
    for reach in (_SKIN * field.voxel_size, 0.0):
        adds = ((distance > reach) & (alpha >= _LEAST_ALPHA))[lattice.corner_rows.long()].any(1)
        if adds.any():
            parts.append(MeshAndVolume(mesh, copy.deepcopy(field)))
            parts[-1].volume.keep(adds)  # pyright: ignore[reportOptionalMemberAccess]
    scores = _scores(parts, field, _VIEWS, _SIZE) if len(parts) > 1 else [0.0]
    return next(part for part, score in zip(parts, scores, strict=True) if score >= max(scores) - _MISSED)


@torch.no_grad()
def draw_both(
    thing: MeshAndVolume, camera: Camera, background: Vector = (1.0, 1.0, 1.0), side: int = 2
) -> np.ndarray:
    """(H, W, 3) in [0, 1]: what a pinhole camera sees; a pixel is the mean of side^2 rays."""
    large = camera.resized(camera.width * side, camera.height * side)
    found, seen = covered(thing.mesh, large)
    hit = found.face >= 0
    face, weights = found.face[hit], found.weights[hit].astype(np.float64)
    color = np.tile(np.array(background, dtype=np.float64), (*hit.shape, 1))
    color[hit] = thing.mesh.colors_at(face, weights).clip(0, 1)
    if thing.volume is not None:
        ways = large.unproject(pixel_centres(large.width, large.height))
        depth = np.full(hit.shape, np.inf)
        depth[hit] = (weights * seen[:, 2][thing.mesh.faces[face]]).sum(1)
        lengths = np.linalg.norm(ways, axis=1)
        ends = depth.ravel() * lengths / ways[:, 2]
        directions = (ways / lengths[:, None]) @ large.camera_to_world[:3, :3].T
        color = _before(thing.volume, large, directions, ends, color.reshape(-1, 3)).reshape(color.shape)
    return color.reshape(camera.height, side, camera.width, side, 3).mean((1, 3))


def _before(
    volume: VoxelField, camera: Camera, directions: np.ndarray, ends: np.ndarray, behind: np.ndarray
) -> np.ndarray:
    device = volume.raw_density.device
    origin = torch.from_numpy(camera.camera_to_world[:3, 3].copy()).float().to(device)
    arrays = (
        torch.from_numpy(array).float().to(device).split(_AT_ONCE) for array in (directions, ends, behind)
    )
    parts = []
    for ways, end, color in zip(*arrays, strict=True):
        seen = volume.render(origin.expand(len(ways), 3), ways, color, ends=end)
        parts.append(seen.color.double().cpu())
    return torch.cat(parts).numpy()


def likeness(thing: MeshAndVolume, field: VoxelField, views: int = _VIEWS, size: int = _SIZE) -> Likeness:
    """From a ring of `views` cameras around the field, in pictures of `size` pixels a side."""
    return Likeness(*_scores([thing._replace(volume=None), thing], field, views, size))


def _scores(things: list[MeshAndVolume], field: VoxelField, views: int, size: int) -> list[float]:
    """PSNR, dB, of each against the field, mean of the views."""
    scores = []
    for camera in ring(*bounds_of(field), views, size, turn=0.37):
        truth = sight(field, camera).color.clip(0, 1)
        scores.append([psnr(draw_both(thing, camera), truth) for thing in things])
    return np.mean(scores, 0).tolist()


def write_mesh_and_volume(folder: str | Path, thing: MeshAndVolume) -> None:
    """mesh.glb, volume.safetensors where there are voxels, and scene.json, which names both and is written
    last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_mesh(folder / MESH, thing.mesh)
    if thing.volume is not None:
        write_voxel_file(folder / VOLUME, thing.volume)
    tree = {"sparse3d": 1, "mesh": MESH, "volume": None if thing.volume is None else VOLUME}
    write_text(folder / SCENE, json.dumps(tree, indent=1) + "\n")


def read_mesh_and_volume(folder: str | Path) -> MeshAndVolume:
    """What `write_mesh_and_volume` wrote. Raises DataError."""
    folder = Path(folder)
    try:
        tree = json.loads((folder / SCENE).read_text())
        has_volume = {"sparse3d": 1, "mesh": MESH, "volume": VOLUME} == tree
        if not has_volume and {"sparse3d": 1, "mesh": MESH, "volume": None} != tree:
            raise ValueError(f"it holds {tree}")
    except (OSError, ValueError) as error:
        raise DataError(folder / SCENE, f"names no mesh with its voxels: {error}") from error
    volume = read_voxel_file(folder / VOLUME) if has_volume else None
    if volume is not None and not isinstance(volume, VoxelField):
        raise DataError(folder / VOLUME, "holds no radiance voxels")
    return MeshAndVolume(read_mesh(folder / MESH), volume)
