"""A corner of a room whose surface is known: what a depth camera sees of it, and how far points are from it.

The floor is z = 0, the walls are x = 0 and y = 0; boxes and balls stand before them. Metres.
"""

from typing import NamedTuple

import numpy as np

from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.rays import pixel_centres

SIDE = 3.2  # of the floor and of the walls
HEIGHT = 2.2  # of the walls
# Lowest and highest corner, colour: a table and its legs, a sofa, a cupboard, a picture on the wall.
WOOD, CLOTH, PAINT = (176, 124, 80), (72, 112, 150), (205, 200, 185)
BOXES = [
    ((1.30, 1.20, 0.66), (2.30, 1.80, 0.72), WOOD),
    *(((x, y, 0.0), (x + 0.06, y + 0.06, 0.66), WOOD) for x in (1.34, 2.20) for y in (1.24, 1.70)),
    ((0.05, 0.60, 0.0), (0.85, 2.20, 0.40), CLOTH),
    ((0.05, 0.60, 0.40), (0.30, 2.20, 0.85), CLOTH),
    ((1.20, 0.0, 0.0), (2.60, 0.40, 1.10), PAINT),
    ((0.0, 1.00, 1.20), (0.03, 1.80, 1.75), (190, 80, 70)),
]
# Centre, radius, colour: a globe on the table, a lamp on the cupboard, a ball on the floor.
BALLS = [
    ((1.60, 1.50, 0.90), 0.18, (70, 150, 120)),
    ((2.35, 0.22, 1.28), 0.18, (240, 210, 130)),
    ((1.05, 2.45, 0.22), 0.22, (215, 110, 60)),
]
LIGHT = np.array([0.45, 0.35, 0.82])


class Frame(NamedTuple):
    """`depth` (H, W) float32 along the optical axis, 0 where nothing is; `color` (H, W, 3) uint8."""

    depth: np.ndarray
    color: np.ndarray


def look(camera: Camera) -> Frame:
    """Each pixel's ray, as far as the first thing that it meets."""
    rays = camera.unproject(pixel_centres(camera.width, camera.height))
    rays /= rays[:, 2:]  # the way along one of them is the depth
    origin, toward = camera.camera_to_world[:3, 3], rays @ camera.camera_to_world[:3, :3].T
    best = np.full(len(rays), np.inf)
    normals, colors = np.zeros((len(rays), 3)), np.zeros((len(rays), 3))

    def meet(way: np.ndarray, normal: np.ndarray, color: np.ndarray) -> None:
        nearer = (way > 0) & (way < best)
        best[nearer] = way[nearer]
        normals[nearer] = np.broadcast_to(normal, normals.shape)[nearer]
        colors[nearer] = np.broadcast_to(color, colors.shape)[nearer]

    with np.errstate(divide="ignore", invalid="ignore"):
        for axis in range(3):
            way = -origin[axis] / toward[:, axis]
            place = origin + way[:, None] * toward
            inside = (place >= -1e-9).all(1) & (place <= [SIDE, SIDE, HEIGHT]).all(1)
            meet(np.where(inside, way, np.inf), np.eye(3)[axis], _painted(place, axis))
        for low, high, color in BOXES:
            ends = np.sort((np.array([low, high])[:, None] - origin) / toward, axis=0)
            enter, leave, side = ends[0].max(1), ends[1].min(1), ends[0].argmax(1)
            normal = -np.eye(3)[side] * np.sign(toward[np.arange(len(rays)), side])[:, None]
            meet(np.where(enter < leave, enter, np.inf), normal, np.array(color))
        for centre, radius, color in BALLS:
            a, b = (toward**2).sum(1), toward @ (origin - np.array(centre))
            root = b**2 - a * (((origin - np.array(centre)) ** 2).sum() - radius**2)
            way = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
            meet(way, (origin + way[:, None] * toward - np.array(centre)) / radius, np.array(color))
    hit = np.isfinite(best)
    shaded = colors * (0.55 + 0.45 * np.maximum(normals @ LIGHT, 0))[:, None]
    shape = camera.height, camera.width
    depth = np.where(hit, best, 0).astype(np.float32).reshape(shape)
    return Frame(depth, np.where(hit[:, None], shaded, 0).astype(np.uint8).reshape(*shape, 3))


def distance(points: np.ndarray) -> np.ndarray:
    """(N, 3) -> (N,): how far each point is from the nearest surface."""
    found = np.abs(points).min(1)  # of the floor and the walls
    for low, high, _ in BOXES:
        middle, half = np.add(low, high) / 2, np.subtract(high, low) / 2
        off = np.abs(points - middle) - half
        outside = np.linalg.norm(np.maximum(off, 0), axis=1)
        found = np.minimum(found, np.abs(outside + np.minimum(off.max(1), 0)))
    for centre, radius, _ in BALLS:
        found = np.minimum(found, np.abs(np.linalg.norm(points - np.array(centre), axis=1) - radius))
    return found


def _painted(place: np.ndarray, axis: int) -> np.ndarray:
    """Boards on the floor, and walls in two tones."""
    if axis == 2:
        board = np.floor(np.nan_to_num(place[:, 1], posinf=0, neginf=0) / 0.16).astype(np.int64) % 3
        return np.array([(150, 110, 78), (162, 120, 86), (138, 100, 70)])[board]
    return np.where(place[:, 2:] < 0.9, np.array((150, 170, 160)), np.array((214, 210, 198)))
