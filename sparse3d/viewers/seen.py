"""Pictures of what a camera sees: of its colours, of its depth, of the surfaces in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from sparse3d.gaussians.geometry import normals_of_depth
from sparse3d.geometry.cameras import Camera
from sparse3d.viewers.colors import height_colors

Kind = Literal["colour", "depth", "normal"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Seen(NamedTuple):
    """`color` (H, W, 3) in [0, 1], `depth` (H, W) metres along the optical axis, and `opacity` (H, W)."""

    color: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


@dataclass(frozen=True, eq=False)
class Sight:
    """What cameras see of a scene that lies around `middle` (3,), world, within `reach`, metres."""

    see: Callable[[Camera], Seen]
    middle: np.ndarray
    reach: float

    def depths(self, camera: Camera) -> tuple[float, float]:
        """Metres: the nearest and the farthest that there is to be seen."""
        away = float(np.linalg.norm(camera.camera_to_world[:3, 3] - self.middle))
        return max(away - self.reach, 0.0), away + self.reach


def paint(seen: Seen, kind: Kind, camera: Camera, near: float, far: float) -> np.ndarray:
    """(H, W, 3) uint8. Depth goes from `near` (pale) to `far` (dark), metres; a normal (world) is red, green
    and blue of x, y and z; both are black where less than half of the light comes from the scene."""
    if kind == "colour":
        return np.rint(255 * np.clip(seen.color, 0, 1)).astype(np.uint8)
    known = seen.opacity > 0.5
    if kind == "depth":
        part = np.where(known, (far - seen.depth) / (far - near), 0)
        return (height_colors(part.ravel()).reshape(*part.shape, 3) * known[..., None]).astype(np.uint8)
    normal = normals_of_depth(np.where(known, seen.depth, np.nan), camera)
    return np.rint(255 * np.nan_to_num(normal / 2 + 0.5)).astype(np.uint8)
