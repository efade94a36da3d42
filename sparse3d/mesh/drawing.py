"""What a camera sees of a mesh: colours as they are painted, without light, and depth."""

from typing import NamedTuple

import numpy as np

from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.raster import Covered, rasterized


class MeshView(NamedTuple):
    """`color` (H, W, 3) in [0, 1], sRGB, before the background; `depth` (H, W) metres along the optical axis,
    the mean over what is seen, 0 where nothing is; `opacity` (H, W), the part of the pixel that is
    covered."""

    color: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


def covered(mesh: Mesh, camera: Camera, samples: int = 1) -> tuple[Covered, np.ndarray]:
    """Which triangle each of `samples` x `samples` places a pixel shows, and the vertices (V, 3) in the
    camera's axes. Triangles with a corner behind the camera are left out; lenses are taken for pinholes."""
    pose = camera.camera_to_world
    seen = (mesh.vertices.astype(np.float64) - pose[:3, 3]) @ pose[:3, :3]
    before = seen[:, 2] > 0
    nearness = np.where(before, 1 / np.where(before, seen[:, 2], 1), 0)
    pixels = seen[:, :2] * nearness[:, None] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    size = (camera.width * samples, camera.height * samples)
    return rasterized(samples * pixels[mesh.faces], nearness[mesh.faces], size), seen


def draw(
    mesh: Mesh, camera: Camera, background: tuple[float, float, float] = (1.0, 1.0, 1.0), samples: int = 2
) -> MeshView:
    """With `samples` x `samples` places a pixel. Triangles with a corner behind the camera are left out.
    ValueError for a lens with distortion: straight lines are not straight there."""
    if camera.lens.fisheye or any(camera.lens.coefficients):
        raise ValueError("the lens is no pinhole; undistort the photos first")
    found, seen = covered(mesh, camera, samples)
    hit = found.face >= 0
    face, weights = found.face[hit], found.weights[hit].astype(np.float64)
    color = np.zeros((*hit.shape, 3))
    color[hit] = mesh.colors_at(face, weights).clip(0, 1)
    depth = np.zeros(hit.shape)
    depth[hit] = (weights * seen[:, 2][mesh.faces[face]]).sum(1)

    def pooled(values: np.ndarray) -> np.ndarray:
        shape = (camera.height, samples, camera.width, samples, *values.shape[2:])
        return values.reshape(shape).mean((1, 3))

    opacity = pooled(hit.astype(np.float64))
    shown = pooled(color) + (1 - opacity)[..., None] * np.array(background)
    return MeshView(shown, pooled(depth) / np.where(opacity > 0, opacity, 1), opacity)
