"""Corrections of camera poses that are learnt with a field, from the colours alone.

Title: BARF: Bundle-adjusting neural radiance fields (arXiv 2104.06405). A field that starts blurred pulls
poses from further away, so encodings let fine detail in late (their `fine_end`). Where we differ: a
correction turns a camera about its own place and shifts it along the world's axes, in the place of a twist of
se(3), so that the two do not mix; and any field can be refined with, for only its rays are moved.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse3d.geometry.rays import Rays
from sparse3d_ops.segment import gather_rows


@dataclass(frozen=True)
class PoseRefinementConfig:
    """How poses are corrected; the paper's rate is 1e-3."""

    enabled: bool = False
    rate: float = 2e-3  # radians and half sides of the field's cube that a step moves at most, at the full lr
    test_steps: int = 100  # for the pose of each photo that the field is judged on; 0: they are only aligned
    test_pixels: int = 1024  # a step

    def __post_init__(self):
        if not self.rate > 0 or self.test_steps < 0 or self.test_pixels < 1:
            raise ValueError(f"rate and test_pixels must be above 0 and test_steps at least 0, got {self}")


class PoseRefinement(nn.Module):
    """A turn and a shift for each of N cameras, none at the start.

    `turn` radians and `shift` metres are what an entry of the parameter counts. Adam moves entries by about
    its rate a step, whatever their gradients, so these set how fast poses move beside the field.
    """

    def __init__(self, cameras: int, turn: float = 1.0, shift: float = 1.0):
        super().__init__()
        self.register_buffer("units", torch.tensor([turn] * 3 + [shift] * 3))
        self.corrections = nn.Parameter(torch.zeros(cameras, 6))

    units: Tensor

    def forward(self, rays: Rays, camera: Tensor) -> Rays:
        """Rays of cameras (R,) as the corrected cameras have them; differentiable."""
        mine = gather_rows(self.corrections * self.units, camera)
        return Rays(rays.origins + mine[:, 3:], turned(rays.directions, mine[:, :3]))

    @torch.no_grad()
    def poses(self, camera_to_world: Tensor) -> Tensor:
        """(N, 4, 4) -> (N, 4, 4) float64: the corrected cameras."""
        mine = (self.corrections * self.units).to(camera_to_world.device, torch.float64)
        out = camera_to_world.to(torch.float64, copy=True)
        axes = out[:, :3, :3].mT.reshape(-1, 3)
        out[:, :3, :3] = turned(axes, mine[:, :3].repeat_interleave(3, 0)).view(-1, 3, 3).mT
        out[:, :3, 3] += mine[:, 3:]
        return out


def turned(vectors: Tensor, turn: Tensor) -> Tensor:
    """Vectors (R, 3) turned about axes by angles, radians, the lengths of `turn` (R, 3). Rodrigues' formula;
    smooth at no turn."""
    # The derivative of the root at 0 is not finite; the square of an angle that small rounds away below.
    angle = (turn.square().sum(1, keepdim=True) + 1e-16).sqrt()
    first = torch.sinc(angle / torch.pi)
    second = torch.sinc(angle / (2 * torch.pi)).square() / 2
    across = torch.linalg.cross(turn, vectors)
    return vectors + first * across + second * torch.linalg.cross(turn, across)
