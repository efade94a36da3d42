"""Regions of interest: the boxes of a first stage that a second one looks at, and their geometry.

A box in the frame of its RoI has the RoI's centre as origin and x along its length. The code of a box g
relative to its RoI r is that of anchors (see `anchors`) within that frame, where r is an anchor at the origin
with yaw 0.

Sources: PointRCNN (arXiv 1812.04244), section 3.3, for the canonical frame; PV-RCNN (arXiv 1912.13192),
section 3.3, for the grid; CenterPoint (arXiv 2006.11275), section 4.3, for the five points.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse3d.frames import Detections
from sparse3d.geometry.boxes import CORNER_SIGNS
from sparse3d.models import anchors


class Rois(NamedTuple):
    """RoIs of all frames of a batch; those of one frame stand together, frames in rising order."""

    boxes: Float[Tensor, "R 7"]
    scores: Float[Tensor, "R"]
    labels: Int[Tensor, "R"]
    frame: Int[Tensor, "R"]
    velocities: Float[Tensor, "R 2"] | None = None

    @staticmethod
    def of(found: Sequence[Detections], like: Tensor) -> "Rois":
        """The detections of each frame as RoIs; without a frame, none on the device of `like`."""
        if not found:
            nobody = torch.zeros(0, dtype=torch.int64, device=like.device)
            nothing = like.new_zeros(0, dtype=torch.float32)
            return Rois(nothing.reshape(0, 7), nothing, nobody, nobody)
        told = [frame.velocities for frame in found if frame.velocities is not None]
        owner = [torch.full_like(frame.labels, index) for index, frame in enumerate(found)]
        return Rois(
            torch.cat([frame.boxes for frame in found]),
            torch.cat([frame.scores for frame in found]),
            torch.cat([frame.labels for frame in found]),
            torch.cat(owner),
            torch.cat(told) if told else None,
        )

    def select(self, rows: Tensor) -> "Rois":
        """Some of the RoIs: (R,) bool or row numbers that keep frames in rising order."""
        velocities = None if self.velocities is None else self.velocities[rows]
        return Rois(self.boxes[rows], self.scores[rows], self.labels[rows], self.frame[rows], velocities)

    def detections(self, boxes: Tensor, scores: Tensor, frame: int) -> Detections:
        """One frame's, highest score first, with refined `boxes` (R, 7) and `scores` (R,) of all RoIs."""
        rows = (self.frame == frame).nonzero()[:, 0]
        rows = rows[scores[rows].argsort(descending=True, stable=True)]
        velocities = None if self.velocities is None else self.velocities[rows]
        return Detections(boxes[rows], scores[rows], self.labels[rows], velocities)


def turn(points: Float[Tensor, "R P D"], yaw: Float[Tensor, "R"]) -> Float[Tensor, "R P D"]:
    """Points (x, y, ...) of each row turned about z by its yaw, counter-clockwise seen from above."""
    c, s = yaw.cos()[:, None], yaw.sin()[:, None]
    x, y = points[..., 0], points[..., 1]
    return torch.cat([torch.stack([c * x - s * y, s * x + c * y], dim=-1), points[..., 2:]], dim=-1)


def points_at(boxes: Float[Tensor, "R 7"], places: Float[Tensor, "P 3"]) -> Float[Tensor, "R P 3"]:
    """The points of each box that lie at `places`, in half lengths, widths and heights from its centre."""
    return turn(places * boxes[:, None, 3:6] / 2, boxes[:, 6]) + boxes[:, None, :3]


def grid_points(boxes: Float[Tensor, "R 7"], size: int) -> Float[Tensor, "R P 3"]:
    """Centres of the size^3 equal parts of each box, z running fastest, then y, then x."""
    along = (torch.arange(size, dtype=boxes.dtype, device=boxes.device) + 0.5) * (2 / size) - 1
    return points_at(boxes, torch.cartesian_prod(along, along, along).reshape(-1, 3))


def five_points(boxes: Float[Tensor, "R 7"]) -> Float[Tensor, "R 5 3"]:
    """The centre, and the centres of the front, back, left and right face."""
    places = [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)]
    return points_at(boxes, boxes.new_tensor(places))


def corners(boxes: Float[Tensor, "R 7"]) -> Float[Tensor, "R 8 3"]:
    """In the order of `geometry.boxes.CORNER_SIGNS`, differentiable."""
    return points_at(boxes, boxes.new_tensor(CORNER_SIGNS))


def encode(boxes: Float[Tensor, "R 7"], rois: Float[Tensor, "R 7"]) -> Float[Tensor, "R 7"]:
    """The code of each box relative to its RoI. Sizes must be positive; not checked.

    Front and back are not told apart: the difference in yaw is taken in [-pi/2, pi/2).
    """
    local = boxes.clone()
    local[:, :3] = turn((boxes - rois)[:, None, :3], -rois[:, 6])[:, 0]
    local[:, 6] = torch.remainder(boxes[:, 6] - rois[:, 6] + math.pi / 2, math.pi) - math.pi / 2
    return anchors.encode(local, _at_origin(rois))


def decode(code: Float[Tensor, "R 7"], rois: Float[Tensor, "R 7"]) -> Float[Tensor, "R 7"]:
    """The box of each code, differentiable; its yaw is not wrapped."""
    local = anchors.decode(code, _at_origin(rois))
    centre = turn(local[:, None, :3], rois[:, 6])[:, 0] + rois[:, :3]
    return torch.cat([centre, local[:, 3:6], local[:, 6:] + rois[:, 6:]], dim=1)


def _at_origin(rois: Tensor) -> Tensor:
    origin = torch.zeros_like(rois)
    origin[:, 3:6] = rois[:, 3:6]
    return origin
