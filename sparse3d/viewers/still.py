"""A picture of an exhibit, drawn on the CPU and without a display."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sparse3d.gaussians.geometry import render_geometry
from sparse3d.gaussians.render import SplatView, render
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.drawing import covered
from sparse3d.viewers.exhibit import Exhibit
from sparse3d.viewers.squares import fill_squares

SIZE = (1600, 900)
PLAIN = (199, 204, 214)  # of triangles that have no colour
AMBIENT = 0.3  # part of the light that comes from everywhere, where things are shaded
_OVERSAMPLING = 2
_LINE_WIDTH = 1.5  # pixels
_NEAR = 1e-3  # of the way to what one looks at


def draw_exhibit(exhibit: Exhibit, size: tuple[int, int] = SIZE, title: bool = True) -> Image.Image:
    """Triangles and points by a z-buffer, Gaussians by the renderer, which are drawn over the others."""
    camera = exhibit.viewpoint.camera(*size)
    image = _opaque(exhibit, camera)
    if exhibit.splats is not None:
        color, alpha = splats_seen(exhibit, camera)
        behind = np.asarray(image, dtype=np.float32) / 255
        image = Image.fromarray(to_bytes(color + (1 - alpha[..., None]) * behind))
    if title:
        light = sum(exhibit.background) > 384
        font = ImageFont.load_default(14)
        ImageDraw.Draw(image).text(
            (14, 10), exhibit.title, fill=(30,) * 3 if light else (226,) * 3, font=font
        )
    return image


@torch.no_grad()
def splats_seen(exhibit: Exhibit, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) of an exhibit's Gaussians before black, and their opacity (H, W)."""
    cloud = exhibit.splats
    assert cloud is not None
    draw = render_geometry if cloud.surfels else render
    black = torch.zeros(3).to(cloud.means)
    seen = draw(cloud, SplatView.of(camera, cloud.means), black, exhibit.drawing)
    return seen.color.cpu().numpy(), seen.alpha.cpu().numpy()


def to_bytes(color: np.ndarray) -> np.ndarray:
    """Fractions to uint8."""
    return np.rint(255 * np.clip(color, 0, 1)).astype(np.uint8)


def _opaque(exhibit: Exhibit, camera: Camera) -> Image.Image:
    large = camera.resized(camera.width * _OVERSAMPLING, camera.height * _OVERSAMPLING)
    pixels = np.full((large.height, large.width, 3), exhibit.background, dtype=np.float32)
    depth = np.full((large.height, large.width), np.inf, dtype=np.float32)
    for mesh in exhibit.meshes:
        _draw_mesh(mesh, large, pixels, depth)
    pose, near = large.camera_to_world, _NEAR * exhibit.viewpoint.distance
    if exhibit.points is not None:
        lens = np.array([large.fx, large.fy, large.cx, large.cy])
        seen = (exhibit.points.places - pose[:3, 3]) @ pose[:3, :3]
        colors = exhibit.points.colors.astype(np.float64)
        fill_squares(seen, colors, exhibit.points.size, lens, near, pixels, depth)
    if exhibit.lines is not None:
        ends = (exhibit.lines.ends - pose[:3, 3]) @ pose[:3, :3]
        ribbons, faces = _ribbons(ends, _LINE_WIDTH * _OVERSAMPLING / large.fx, near)
        places = ribbons @ pose[:3, :3].T + pose[:3, 3]
        _draw_mesh(Mesh(places, faces, exhibit.lines.colors.repeat(4, axis=0)), large, pixels, depth)
    return Image.fromarray(np.rint(pixels).astype(np.uint8)).reduce(_OVERSAMPLING)


def _draw_mesh(mesh: Mesh, camera: Camera, pixels: np.ndarray, depth: np.ndarray) -> None:
    """Into a z-buffer. Triangles with a corner behind the camera are left out."""
    found, seen = covered(mesh, camera)
    hit = found.face >= 0
    face, weights = found.face[hit], found.weights[hit].astype(np.float64)
    rows = mesh.faces[face]
    z = (weights * seen[rows, 2]).sum(1)
    nearer = z < depth[hit]
    hit[hit] = nearer
    face, weights, rows = face[nearer], weights[nearer], rows[nearer]
    colors = 255 * mesh.colors_at(face, weights).clip(0, 1) if is_painted(mesh) else np.array(PLAIN)
    if is_shaded(mesh):  # by a lamp beside the eye, from both sides
        place = (weights[..., None] * seen[rows]).sum(1)
        normal = (weights[..., None] * mesh.vertex_normals[rows]).sum(1) @ camera.camera_to_world[:3, :3]
        cosine = np.abs((normal * place).sum(1)) / np.maximum(
            np.linalg.norm(normal, axis=1) * np.linalg.norm(place, axis=1), 1e-12
        )
        colors = (AMBIENT + (1 - AMBIENT) * cosine)[:, None] * colors
    depth[hit], pixels[hit] = z[nearer], colors


def is_painted(mesh: Mesh) -> bool:
    """Whether it says which colour it has."""
    return mesh.colors is not None or mesh.material is not None


def is_shaded(mesh: Mesh) -> bool:
    """Whether it is drawn as if a lamp stood beside the eye: it has no colours, or they hold no light yet."""
    return not is_painted(mesh) or mesh.material is not None and not mesh.material.unlit


def _ribbons(ends: np.ndarray, width: float, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Lines (L, 2, 3) in camera axes as ribbons that face the camera, `width` times their depth wide: corners
    (4 L, 3) and faces (2 L, 3). They lie a little before what they run along."""
    a, b = ends[:, 0], ends[:, 1]
    # Across the line and the way to it; a line that runs away from the eye has none, and is left out.
    across = np.cross(b - a, a + b)
    length = np.linalg.norm(across, axis=1, keepdims=True)
    across = np.divide(across, length, out=np.zeros_like(across), where=length > 0) * width / 2
    reach = np.maximum(ends[..., 2:], near)
    sides = np.stack([ends[:, 0] - across * reach[:, 0], ends[:, 0] + across * reach[:, 0]], 1)
    sides = np.concatenate(
        [sides, np.stack([ends[:, 1] - across * reach[:, 1], ends[:, 1] + across * reach[:, 1]], 1)], 1
    )
    first = 4 * np.arange(len(ends), dtype=np.int64)[:, None]
    faces = np.concatenate([first + [0, 1, 2], first + [1, 3, 2]])
    return 0.995 * sides.reshape(-1, 3), faces
