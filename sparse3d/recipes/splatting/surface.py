"""Gaussians and surfels to triangles: the level set of their density, or the depth that cameras see of them,
fused in a truncated distance field on the voxel hash.

Clouds that were trained on colours alone are not opaque: their Gaussians have opacities of 0.16 in the middle
of the list, and half of a ray's light goes on into the thing. So a rendered depth is too deep, by 10 to 13 mm
on three spheres of 0.18 to 0.35 m where the density's level is 1.2 mm off (Gaussians) and 1.8 mm (surfels).
Hence `density` is the default; `fusion` is for clouds that were taught depth or opacity.

What decides the bounds and the size of voxels is where the Gaussians are, never how far the cameras stand off
(the usual cause of meshes that are empty, or take all memory). Blocks of the field that are not looked at
wait on disk, so that memory is bounded.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from sparse3d.fusion.volume import TSDFVolume
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.density import box_of
from sparse3d.gaussians.density_mesh import DensityMeshConfig, density_mesh
from sparse3d.gaussians.geometry import render_geometry
from sparse3d.gaussians.render import SplatConfig, SplatView
from sparse3d.geometry.cameras import Camera, Lens
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.orbits import even_directions, looking
from sparse3d.geometry.rays import pixel_centres
from sparse3d.recipes.radiance.reconstruct import photos_of_split
from sparse3d.recipes.splatting.reconstruct import LoadedCloud

MOST_BLOCKS = 1 << 15  # in memory at a time: 340 MB
_AROUND = 64  # cameras, where no photos are known
_SIZE = 400  # pixels of theirs
_VIEW = 40.0  # degrees


@dataclass(frozen=True)
class SplatMeshConfig:
    """How a surface is made of a cloud."""

    method: Literal["density", "fusion"] = "density"
    resolution: int = 256  # voxels along the longest side of the cloud's box
    level: float = DensityMeshConfig.level  # of the density, in opacities
    truncation: float = 4.0  # voxels before and behind a depth that are averaged
    depth: Literal["mean", "median"] = "median"  # along a ray; where half of its light is gone
    least_alpha: float = 0.5  # a pixel with less shows no surface
    min_weight: float = 1.0  # cameras that must have seen a voxel
    min_faces: int = 100  # pieces of fewer triangles are left out, but not the largest

    def __post_init__(self):
        if not 2 <= self.resolution <= 1 << 14 or not self.truncation >= 2:
            raise ValueError(f"resolution must lie in 2 to {1 << 14}, truncation not below 2, got {self}")
        if not 0 < self.least_alpha <= 1:
            raise ValueError(f"least_alpha must lie in (0, 1], got {self.least_alpha}")


def run_to_mesh(loaded: LoadedCloud, config: SplatMeshConfig = SplatMeshConfig()) -> Mesh:
    """The surface of a trained cloud, seen from where its photos were taken. DataError where these are gone:
    `density` needs none."""
    photos = photos_of_split(loaded.config.data, loaded.config.data.split)
    cameras = (photos.cameras[row] for row in range(len(photos)))
    return splats_to_mesh(loaded.cloud, config, cameras, loaded.config.drawing)


def splats_to_mesh(
    cloud: GaussianCloud,
    config: SplatMeshConfig = SplatMeshConfig(),
    cameras: Iterable[Camera] | None = None,
    drawing: SplatConfig | None = None,
) -> Mesh:
    """The surface of a cloud, world, metres, with colours. Without `cameras` they stand evenly around it and
    look at its middle, which shows what can be seen from outside. ValueError where there is no surface."""
    box = box_of(cloud)
    if config.method == "density":
        cut = DensityMeshConfig(config.level, config.resolution, config.min_faces)
        return density_mesh(cloud, cut, box)
    voxel = float((box[1] - box[0]).max()) / config.resolution
    with tempfile.TemporaryDirectory() as folder:
        volume = TSDFVolume(voxel, config.truncation * voxel, max_blocks=MOST_BLOCKS, folder=folder)
        for camera in cameras_around(cloud) if cameras is None else cameras:
            camera = replace(camera, lens=Lens())
            depth, color = _seen(cloud, camera, config, drawing, box.cpu().numpy())
            lens = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
            volume.integrate(depth, lens, camera.camera_to_world, color)
        mesh = volume.mesh(config.min_weight)
    if not len(mesh.faces):
        raise ValueError(
            "no camera sees a surface of this cloud: less than least_alpha of the light ends in its Gaussians"
        )
    return mesh.without_small_pieces(config.min_faces)


@torch.no_grad()
def _seen(
    cloud: GaussianCloud,
    camera: Camera,
    config: SplatMeshConfig,
    drawing: SplatConfig | None,
    box: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) metres, 0 where there is no surface within the box, and (H, W, 3) uint8 of the cloud alone."""
    view = SplatView.of(camera, cloud.means)
    seen = render_geometry(cloud, view, torch.zeros(3).to(cloud.means), drawing)
    depth = (seen.depth if config.depth == "mean" else seen.median).cpu().numpy().astype(np.float32)
    alpha = seen.alpha.cpu().numpy()
    depth[alpha < config.least_alpha] = 0
    rays = camera.unproject(pixel_centres(camera.width, camera.height)).reshape(*depth.shape, 3)
    local = rays * (depth / rays[..., 2])[..., None]
    places = local @ camera.camera_to_world[:3, :3].T + camera.camera_to_world[:3, 3]
    depth[((places < box[0]) | (places > box[1])).any(-1)] = 0
    color = seen.color.cpu().numpy() / np.maximum(alpha, 1e-6)[..., None]
    return depth, np.rint(color.clip(0, 1) * 255).astype(np.uint8)


def cameras_around(cloud: GaussianCloud, count: int = _AROUND, size: int = _SIZE) -> Iterator[Camera]:
    """`count` pinholes on a sphere (Fibonacci's, which is even), far enough to see all of the cloud's box."""
    box = box_of(cloud).cpu().double().numpy()
    middle, half = box.mean(0), float(np.linalg.norm(box[1] - box[0])) / 2
    away, focal = half / np.sin(np.radians(_VIEW / 2)), size / 2 / np.tan(np.radians(_VIEW / 2))
    for direction in even_directions(count):
        eye = middle + away * direction
        pose = looking(eye, middle, np.array([0.0, 0.0, 1.0]))
        yield Camera(focal, focal, size / 2, size / 2, size, size, pose)
