"""Three textured spheres, seen from a ring of cameras: a scene whose pictures and surfaces are known exactly.

Everything lies in the cube [-0.75, 0.75]^3, metres, before a white background. Colours are a smooth
function of the place on the surface, lit by one lamp without shadows (`specular` adds Phong's highlight, so
that colour depends on where one looks from). A pixel is the mean over a grid of rays through it.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sparse3d.io.files import write_text

CENTRES = np.array([[-0.25, 0.0, 0.0], [0.30, 0.15, 0.10], [0.10, -0.32, 0.20]])
RADII = np.array([0.35, 0.25, 0.18])
HALF_SIDE = 0.75
LAMP = np.array([0.5, 0.6, 0.62])
DISTANCE = 2.4  # of the cameras from the middle
FIELD_OF_VIEW = math.radians(40)
SHININESS = 20
DEPTH_UNIT = 1e-4  # metres a step of the depth maps


@dataclass(frozen=True)
class ThreeSpheresConfig:
    """How many pictures, of which size, and how shiny the spheres are."""

    views: int = 50
    held_out: int = 12
    size: int = 100  # pixels along each side
    specular: float = 0.0
    rays: int = 3  # a pixel and side

    def __post_init__(self):
        for name in ("views", "held_out", "size", "rays"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def surface_distance(points: np.ndarray) -> np.ndarray:
    """Signed distance of (N, 3) points from the nearest surface, metres, negative inside: (N,)."""
    return (np.linalg.norm(points[:, None] - CENTRES, axis=2) - RADII).min(1)


def trace(
    origins: np.ndarray, directions: np.ndarray, specular: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (R, 3) before white and the way to the surface (R,), metres, inf where there is none, of rays
    (R, 3) from outside with unit directions."""
    from_centre = origins[:, None] - CENTRES
    along = np.einsum("rsi,ri->rs", from_centre, directions)
    reach = along**2 - (from_centre**2).sum(2) + RADII**2
    way = np.where(reach > 0, -along - np.sqrt(np.maximum(reach, 0)), np.inf)
    way[way <= 0] = np.inf
    which = way.argmin(1)
    way = way.min(1)
    colors = np.ones((len(origins), 3))
    hit = np.isfinite(way)
    place = origins[hit] + way[hit, None] * directions[hit]
    colors[hit] = _shade(place, which[hit], directions[hit], specular)
    return colors, way


def _shade(place: np.ndarray, which: np.ndarray, directions: np.ndarray, specular: float) -> np.ndarray:
    x, y, z = place.T
    normal = (place - CENTRES[which]) / RADII[which, None]
    light = 0.7 * np.maximum(normal @ LAMP, 0) + 0.3
    fine = 0.5 + 0.5 * np.sin(18 * x) * np.sin(18 * y) * np.cos(14 * z)
    coarse = 0.5 + 0.5 * np.sin(9 * x + 2 * which) * np.cos(11 * z)
    paint = np.stack([0.2 + 0.7 * fine, 0.25 + 0.6 * coarse, 0.8 - 0.5 * fine], 1)
    half = LAMP - directions
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    highlight = specular * np.maximum((normal * half).sum(1), 0) ** SHININESS
    return np.minimum(light[:, None] * paint + highlight[:, None], 1)


def cameras(count: int, seed: int) -> np.ndarray:
    """Cameras on the upper half of a sphere, spread evenly: camera_to_world (count, 4, 4), OpenCV axes."""
    turn = np.random.default_rng(seed).uniform(0, 2 * math.pi)
    number = np.arange(count) + 0.5
    angle, height = number * math.pi * (3 - math.sqrt(5)) + turn, number / count * 0.9 + 0.02
    ring = np.sqrt(1 - height**2)
    out = np.stack([np.cos(angle) * ring, np.sin(angle) * ring, height], 1)
    right = np.cross(-out, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3] = np.stack([right, np.cross(-out, right), -out, out * DISTANCE], 2)
    return poses


def pixel_rays(pose: np.ndarray, size: int, per_side: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Origins and unit directions of per_side^2 rays through each pixel: (size per_side)^2 rows, row by
    row."""
    at = (np.arange(size * per_side) + 0.5) / per_side - size / 2
    focal = 0.5 * size / math.tan(FIELD_OF_VIEW / 2)
    column, row = np.meshgrid(at / focal, at / focal)
    directions = np.stack([column, row, np.ones_like(row)], 2).reshape(-1, 3) @ pose[:3, :3].T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.broadcast_to(pose[:3, 3], directions.shape), directions


def picture(pose: np.ndarray, config: ThreeSpheresConfig) -> np.ndarray:
    """(size, size, 4): colour before nothing (straight alpha), and the part of the pixel that is covered."""
    side, n = config.size, config.rays
    colors, way = trace(*pixel_rays(pose, side, n), config.specular)
    covered = np.isfinite(way)[:, None]
    both = np.concatenate([colors * covered, covered], 1).reshape(side, n, side, n, 4).mean((1, 3))
    both[..., :3] /= np.maximum(both[..., 3:], 1e-9)
    return both


def depth_map(pose: np.ndarray, size: int) -> np.ndarray:
    """(size, size) metres along the optical axis through the pixels' centres, 0 where nothing is."""
    origins, directions = pixel_rays(pose, size)
    _, way = trace(origins, directions)
    depth = np.where(np.isfinite(way), way, 0) * (directions @ pose[:3, 2])
    return depth.reshape(size, size)


def write_three_spheres(folder: str | Path, config: ThreeSpheresConfig = ThreeSpheresConfig()) -> None:
    """Write pictures and poses in the layout of NeRF's synthetic scenes: transforms_{train,test}.json, PNGs
    with alpha. Depth maps in steps of DEPTH_UNIT are in depth/; the test views name theirs, so that depth is
    judged; training takes them where it is told to (data.depth=FOLDER/depth data.depth_unit=1e-4)."""
    folder = Path(folder)
    for split, count, seed in (("train", config.views, 1), ("test", config.held_out, 7)):
        for name in (split, f"depth/{split}"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        frames = []
        for number, pose in enumerate(cameras(count, seed)):
            pixels = np.round(picture(pose, config) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / f"r_{number:03d}.png")
            steps = np.round(depth_map(pose, config.size) / DEPTH_UNIT).astype(np.uint16)
            Image.fromarray(steps).save(folder / "depth" / split / f"r_{number:03d}.png")
            opengl = pose * [1, -1, -1, 1]
            frame = {"file_path": f"./{split}/r_{number:03d}", "transform_matrix": opengl.tolist()}
            judged = {"depth_file_path": f"./depth/{split}/r_{number:03d}.png"} if split == "test" else {}
            frames.append(frame | judged)
        tree = {
            "camera_angle_x": FIELD_OF_VIEW,
            "depth_unit_scale_factor": DEPTH_UNIT,
            "frames": frames,
        }
        write_text(folder / f"transforms_{split}.json", json.dumps(tree, indent=1) + "\n")
