"""The space before a camera that looks one way, with depth in steps of disparity: for photos that all face
forward.

In the frame of a viewer, x right, y down, z forward, the point (x, y, z) with near <= z <= far comes to

    (x / (z slope_x), y / (z slope_y), 1 - 2 (1/z - 1/far) / (1/near - 1/far))

in [-1, 1]^3: what fills the pictures fills the cube, each step in depth shifts pictures by as much, and
straight lines stay straight. Source: NeRF's normalised device coordinates (arXiv 2003.08934, appendix C),
with a far end and with the last axis turned around.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class FrustumConfig:
    """Where the viewer stands and looks, world, and what it sees."""

    origin: Vector = (0.0, 0.0, 0.0)  # metres
    right: Vector = (1.0, 0.0, 0.0)  # of length 1
    down: Vector = (0.0, 1.0, 0.0)  # of length 1
    slopes: tuple[float, float] = (1.0, 1.0)  # x / z and y / z on the sides
    near: float = 1.0  # metres along the optical axis
    far: float = 100.0

    def __post_init__(self):
        if not 0 < self.near < self.far < math.inf or not min(self.slopes) > 0:
            raise ValueError(f"a frustum needs 0 < near < far and slopes above 0, got {self}")
        right, down = torch.tensor(self.right), torch.tensor(self.down)
        if max(abs(float(right @ down)), abs(float(right.norm()) - 1), abs(float(down.norm()) - 1)) > 1e-4:
            raise ValueError(f"right and down must be of length 1 and at a right angle, got {self}")

    def matrix(self, like: Tensor) -> Tensor:
        """(4, 4): world, homogeneous -> the cube, homogeneous; the last entry of what comes out is z."""
        right, down = (torch.tensor(v, dtype=torch.float64) for v in (self.right, self.down))
        axes = torch.stack([right, down, torch.linalg.cross(right, down)])
        world_to_viewer = torch.eye(4, dtype=torch.float64)
        world_to_viewer[:3, :3] = axes
        world_to_viewer[:3, 3] = -axes @ torch.tensor(self.origin, dtype=torch.float64)
        scale = 2 / (1 / self.near - 1 / self.far)
        to_cube = torch.tensor(
            [
                [1 / self.slopes[0], 0, 0, 0],
                [0, 1 / self.slopes[1], 0, 0],
                [0, 0, 1 + scale / self.far, -scale],
                [0, 0, 1, 0],
            ],
            dtype=torch.float64,
        )
        return (to_cube @ world_to_viewer).to(like)
