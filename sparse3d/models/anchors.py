"""Anchors: boxes of typical size at every cell of a bird's-eye-view map. Labelled boxes are matched with them
and written relative to them.

The code of a box g relative to an anchor a, with d = sqrt(l_a^2 + w_a^2):

    (x_g - x_a) / d, (y_g - y_a) / d, (z_g - z_a) / h_a,
    log(l_g / l_a), log(w_g / w_a), log(h_g / h_a), yaw_g - yaw_a

Sources: SECOND (Yan et al., Sensors 2018), sections 3.2 and 3.3; VoxelNet (arXiv 1711.06396) for the code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse3d.errors import ConfigError
from sparse3d.models.center_code import MAX_LOG_SIZE, BevGrid


@dataclass(frozen=True)
class AnchorConfig:
    """The anchors of one class."""

    name: str
    size: tuple[float, float, float]  # l, w, h, metres
    bottom: float  # height of the lower face, metres
    matched: float  # IoU from which on an anchor is positive
    unmatched: float  # IoU below which it is background; between the two it is ignored

    def __post_init__(self) -> None:
        if min(self.size) <= 0 or not 0 < self.unmatched <= self.matched <= 1:
            raise ConfigError(
                f"anchors of {self.name}: sizes must be positive, 0 < unmatched <= matched <= 1, got {self}"
            )


KITTI_ANCHORS = (
    AnchorConfig("Car", (3.9, 1.6, 1.56), -1.78, 0.6, 0.45),
    AnchorConfig("Pedestrian", (0.8, 0.6, 1.73), -0.6, 0.5, 0.35),
    AnchorConfig("Cyclist", (1.76, 0.6, 1.73), -0.6, 0.5, 0.35),
)


def check_classes(anchors: Sequence[AnchorConfig], classes: Sequence[str]) -> None:
    """ConfigError unless there is one entry of anchors a class, in the same order: labels count in both."""
    names = [anchor.name for anchor in anchors]
    if names != list(classes):
        raise ConfigError(f"head.anchors are of {names}, expected one entry for each of {list(classes)}")


class Anchors(NamedTuple):
    """All anchors of a map, in the order (x, y, class, rotation), and the label of each one's class."""

    boxes: Float[Tensor, "N 7"]
    labels: Int[Tensor, "N"]


def make_anchors(
    grid: BevGrid,
    configs: Sequence[AnchorConfig],
    rotations: Sequence[float],
    places: Literal["cells", "corners"] = "cells",
) -> Anchors:
    """Every class in every rotation (radians) at every cell; label k is that of `configs[k]`.

    `places`: "cells" puts an anchor at the centre of its cell. "corners" stretches them over the map, so that
    the first stands on its lower bound and the last on its upper: OpenPCDet's weights are trained so.
    """
    low_x, low_y, _, high_x, high_y, _ = grid.bounds

    def along(count: int, low: float, high: float, cell: float) -> Tensor:
        if places == "corners":
            return torch.linspace(low, high, count)
        return low + (torch.arange(count) + 0.5) * cell

    x = along(grid.shape[0], low_x, high_x, grid.cell[0])
    y = along(grid.shape[1], low_y, high_y, grid.cell[1])
    kinds = torch.tensor(
        [(c.bottom + c.size[2] / 2, *c.size, yaw) for c in configs for yaw in rotations], dtype=torch.float32
    ).reshape(-1, 5)
    boxes = torch.empty(len(x), len(y), len(kinds), 7)
    boxes[..., 0], boxes[..., 1], boxes[..., 2:] = x[:, None, None], y[:, None], kinds
    labels = torch.arange(len(configs)).repeat_interleave(len(rotations)).repeat(len(x) * len(y))
    return Anchors(boxes.reshape(-1, 7), labels)


# ---- the code of a box -------------------------------------------------------------------------------------


def encode(boxes: Float[Tensor, "M 7"], anchors: Float[Tensor, "M 7"]) -> Float[Tensor, "M 7"]:
    """The code of each box relative to its anchor. Sizes must be positive; not checked."""
    diagonal = anchors[:, 3:5].norm(dim=1, keepdim=True)
    place = (boxes[:, :3] - anchors[:, :3]) / torch.cat([diagonal, diagonal, anchors[:, 5:6]], dim=1)
    return torch.cat([place, (boxes[:, 3:6] / anchors[:, 3:6]).log(), boxes[:, 6:] - anchors[:, 6:]], dim=1)


def decode(code: Float[Tensor, "M 7"], anchors: Float[Tensor, "M 7"]) -> Float[Tensor, "M 7"]:
    """The box of each code; its yaw is not wrapped."""
    diagonal = anchors[:, 3:5].norm(dim=1, keepdim=True)
    place = code[:, :3] * torch.cat([diagonal, diagonal, anchors[:, 5:6]], dim=1) + anchors[:, :3]
    size = code[:, 3:6].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp() * anchors[:, 3:6]
    return torch.cat([place, size, code[:, 6:] + anchors[:, 6:]], dim=1)


def direction_bin(yaw: Tensor, offset: float, bins: int) -> Tensor:
    """Which of `bins` equal sectors of the circle, the first from `offset` radians on, holds each yaw."""
    turn = torch.remainder(yaw - offset, 2 * math.pi)
    return (turn / (2 * math.pi / bins)).floor().long().clamp(max=bins - 1)


def turn_into_bin(yaw: Tensor, bin: Tensor, offset: float, bins: int) -> Tensor:
    """The yaw in sector `bin` that equals `yaw` up to whole sectors, in [-pi, pi)."""
    sector = 2 * math.pi / bins
    turned = torch.remainder(yaw - offset, sector) + offset + sector * bin
    return torch.remainder(turned + math.pi, 2 * math.pi) - math.pi


# ---- which anchor answers for which box --------------------------------------------------------------------


class Assignment(NamedTuple):
    """For each anchor: "positive", "background" or (neither) ignored, and the row of the box it is nearest to
    (0 where it is near none)."""

    positive: Tensor
    background: Tensor
    box: Int[Tensor, "N"]


def footprints(boxes: Float[Tensor, "N 7"]) -> Float[Tensor, "N 4"]:
    """(x_min, y_min, x_max, y_max) of boxes turned to the nearest axis."""
    along_x = (torch.remainder(boxes[:, 6] + math.pi / 2, math.pi) - math.pi / 2).abs() < math.pi / 4
    size = torch.where(along_x[:, None], boxes[:, 3:5], boxes[:, [4, 3]])
    return torch.cat([boxes[:, :2] - size / 2, boxes[:, :2] + size / 2], dim=1)


def footprint_iou(a: Float[Tensor, "N 4"], b: Float[Tensor, "M 4"]) -> Float[Tensor, "N M"]:
    """Intersection over union of all pairs of upright rectangles."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area_a, area_b = ((r[:, 2:] - r[:, :2]).prod(dim=1) for r in (a, b))
    return shared / (area_a[:, None] + area_b[None, :] - shared).clamp(min=1e-6)


@torch.no_grad()
def assign(
    anchors: Anchors, boxes: Float[Tensor, "M 7"], labels: Int[Tensor, "M"], configs: Sequence[AnchorConfig]
) -> Assignment:
    """Match anchors with the boxes of one frame, class by class, by the IoU of their `footprints`.

    Positive: an IoU of at least `matched` with a box of the class, or the best IoU that any anchor has with
    some box (several where they are equal). Background: less than `unmatched` with all, and not positive.
    """
    prints, truth = footprints(anchors.boxes), footprints(boxes)
    positive = torch.zeros_like(anchors.labels, dtype=torch.bool)
    background, nearest = ~positive, torch.zeros_like(anchors.labels)
    for label, config in enumerate(configs):
        rows = (anchors.labels == label).nonzero()[:, 0]
        mine = (labels == label).nonzero()[:, 0]
        if not len(rows) or not len(mine):
            continue
        iou = footprint_iou(prints[rows], truth[mine])
        best, box = iou.max(dim=1)
        best_of_box = iou.amax(dim=0)
        forced = ((iou == best_of_box) & (best_of_box > 0)).any(dim=1)
        found = forced | (best >= config.matched)
        positive[rows] = found
        background[rows] = (best < config.unmatched) & ~found
        nearest[rows] = torch.where(best > 0, mine[box], 0)
    return Assignment(positive, background, nearest)
