"""A picture of an exhibit, drawn on the CPU and without a display."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sparse3d.gaussians.geometry import render_geometry
from sparse3d.gaussians.render import SplatView, render
from sparse3d.geometry.cameras import Camera
from sparse3d.viewers.exhibit import Exhibit
from sparse3d.viewers.raster import fill_squares, fill_triangles

SIZE = (1600, 900)
PLAIN = (199, 204, 214)  # of triangles that have no colour; these are shaded
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
    lens = np.array([large.fx, large.fy, large.cx, large.cy])
    pose, near = large.camera_to_world, _NEAR * exhibit.viewpoint.distance
    for mesh in exhibit.meshes:
        seen = (mesh.vertices - pose[:3, 3]) @ pose[:3, :3]
        if mesh.colors is None:  # a lamp beside the eye, from both sides
            facing = np.abs((mesh.vertex_normals @ pose[:3, :3] * seen).sum(1)) / np.linalg.norm(seen, axis=1)
            colors = (0.3 + 0.7 * facing)[:, None] * np.array(PLAIN)
        else:
            colors = mesh.colors.astype(np.float64)
        fill_triangles(seen, colors, mesh.faces, lens, near, pixels, depth)
    if exhibit.points is not None:
        seen = (exhibit.points.places - pose[:3, 3]) @ pose[:3, :3]
        colors = exhibit.points.colors.astype(np.float64)
        fill_squares(seen, colors, exhibit.points.size, lens, near, pixels, depth)
    if exhibit.lines is not None:
        ends = (exhibit.lines.ends - pose[:3, 3]) @ pose[:3, :3]
        ribbons, faces = _ribbons(ends, _LINE_WIDTH * _OVERSAMPLING / large.fx, near)
        colors = exhibit.lines.colors.astype(np.float64).repeat(4, axis=0)
        fill_triangles(ribbons, colors, faces, lens, near, pixels, depth)
    return Image.fromarray(np.rint(pixels).astype(np.uint8)).reduce(_OVERSAMPLING)


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
