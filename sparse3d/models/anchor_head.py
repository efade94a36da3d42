"""The anchor head: at every anchor the scores of all classes, a box code and which way the box faces.

    BEV map -> 1x1 convolutions -> scores, codes, directions -> boxes -> rotated NMS

Source: SECOND (Yan et al., Sensors 2018), sections 3.1.4 and 3.2. A code tells yaw only up to half a turn,
since its loss is that of sin(yaw_g - yaw_p); the direction bins tell the half.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.anchors import (
    KITTI_ANCHORS,
    AnchorConfig,
    Anchors,
    assign,
    decode,
    direction_bin,
    encode,
    make_anchors,
    turn_into_bin,
)
from sparse3d.models.center_code import BevGrid
from sparse3d.nn.collectives import mean_over_ranks
from sparse3d_ops.boxes import nms


@dataclass(frozen=True)
class AnchorHeadConfig:
    """Anchors, losses and decoding; the defaults are KITTI's."""

    anchors: tuple[AnchorConfig, ...] = KITTI_ANCHORS  # one a class, in the order of the model's classes
    rotations: tuple[float, ...] = (0.0, math.pi / 2)  # yaws of the anchors of each class, rad
    places: Literal["cells", "corners"] = "cells"  # corners: as OpenPCDet's weights have it
    direction_bins: int = 2
    direction_offset: float = math.pi / 4  # where the first bin begins, rad; off the axes that cars keep to
    class_weight: float = 1.0
    box_weight: float = 2.0
    direction_weight: float = 0.2
    focal_alpha: float = 0.25  # weight of positives; 1 - alpha that of background
    focal_gamma: float = 2.0
    box_beta: float = 1 / 9  # error from which on smooth L1 is linear
    score_threshold: float = 0.1
    nms_threshold: float = 0.01  # rotated BEV IoU
    nms_over: Literal["all", "class"] = "all"  # suppress across the classes, or class by class
    nms_pre: int = 4096
    nms_post: int = 500


class AnchorMaps(NamedTuple):
    """Outputs for all N anchors of each frame; scores and directions are logits."""

    scores: Float[Tensor, "B N K"]
    codes: Float[Tensor, "B N 7"]
    directions: Float[Tensor, "B N D"]


class AnchorHead(nn.Module):
    """(B, in_channels, X, Y) -> AnchorMaps; `grid` says where the cells lie."""

    def __init__(self, in_channels: int, grid: BevGrid, config: AnchorHeadConfig):
        super().__init__()
        self.config, self.grid = config, grid
        classes, per_cell = len(config.anchors), len(config.anchors) * len(config.rotations)
        self.scores = nn.Conv2d(in_channels, per_cell * classes, 1)
        self.codes = nn.Conv2d(in_channels, per_cell * 7, 1)
        self.directions = nn.Conv2d(in_channels, per_cell * config.direction_bins, 1)
        # An untrained head says 1 % for everything: the many background anchors then cost little.
        nn.init.constant_(self.scores.bias, -math.log((1 - 0.01) / 0.01))  # pyright: ignore[reportArgumentType]
        nn.init.normal_(self.codes.weight, std=0.001)
        anchors = make_anchors(grid, config.anchors, config.rotations, config.places)
        self.register_buffer("anchor_boxes", anchors.boxes, persistent=False)
        self.register_buffer("anchor_labels", anchors.labels, persistent=False)

    @property
    def anchors(self) -> Anchors:
        """On the device of the head."""
        return Anchors(self.anchor_boxes, self.anchor_labels)  # pyright: ignore[reportArgumentType]

    def forward(self, bev: Float[Tensor, "B C X Y"]) -> AnchorMaps:
        def by_anchor(values: Tensor, columns: int) -> Tensor:
            return values.permute(0, 2, 3, 1).reshape(len(bev), len(self.anchors.boxes), columns)

        return AnchorMaps(
            by_anchor(self.scores(bev), len(self.config.anchors)),
            by_anchor(self.codes(bev), 7),
            by_anchor(self.directions(bev), self.config.direction_bins),
        )

    def loss(self, maps: AnchorMaps, batch: DetectionBatch) -> dict[str, Tensor]:
        """Weighted scalar losses `score`, `box`, `direction`: each frame's sum over its anchors by its number
        of positives (at least 1), then the mean over frames, of all ranks. In float32 under autocast too."""
        with torch.autocast(maps.scores.device.type, enabled=False):
            # Of no frames (a rank without a share of the last step) the losses are zero, with a gradient.
            losses = torch.stack([values[:0].sum() for values in maps])
            for frame in range(batch.batch_size):
                losses = losses + self._frame_loss(maps, batch, frame)
            score, box, direction = mean_over_ranks(losses, batch.batch_size).unbind()
        config = self.config
        return {
            "score": config.class_weight * score,
            "box": config.box_weight * box,
            "direction": config.direction_weight * direction,
        }

    def _frame_loss(self, maps: AnchorMaps, batch: DetectionBatch, frame: int) -> Float[Tensor, "3"]:
        config, anchors = self.config, self.anchors
        boxes, labels = usable_boxes(batch, frame, self.grid)
        found = assign(anchors, boxes, labels, config.anchors)
        rows = found.positive.nonzero()[:, 0]
        each = 1 / max(len(rows), 1)

        logits = maps.scores[frame].float()
        target = torch.zeros_like(logits)
        target[rows, anchors.labels[rows]] = 1
        counted = (found.positive | found.background)[:, None]
        score = (focal_loss(logits, target, config.focal_alpha, config.focal_gamma) * counted).sum()

        truth, anchor = boxes[found.box[rows]], anchors.boxes[rows]
        wanted, code = encode(truth, anchor), maps.codes[frame, rows].float()
        # sin(a - b) = sin a cos b - cos a sin b: a difference of half a turn costs nothing here.
        error = torch.cat([code[:, :6] - wanted[:, :6], (code[:, 6:] - wanted[:, 6:]).sin()], dim=1)
        box = F.smooth_l1_loss(error, torch.zeros_like(error), reduction="sum", beta=config.box_beta)

        bins = direction_bin(truth[:, 6], config.direction_offset, config.direction_bins)
        direction = F.cross_entropy(maps.directions[frame, rows].float(), bins, reduction="sum")
        return torch.stack([score, box, direction]) * each

    @torch.no_grad()
    def decode(self, maps: AnchorMaps) -> list[Detections]:
        """Detections of each frame, highest score first; the lowest anchor wins ties."""
        with torch.autocast(maps.scores.device.type, enabled=False):
            return [self._decode_frame(maps, frame) for frame in range(len(maps.scores))]

    def _decode_frame(self, maps: AnchorMaps, frame: int) -> Detections:
        config = self.config
        found = self.candidates(maps, frame, config.nms_pre, config.score_threshold)
        return suppress(found, config.nms_threshold, config.nms_over, config.nms_post)

    def candidates(self, maps: AnchorMaps, frame: int, most: int, score_threshold: float = 0.0) -> Detections:
        """The boxes of the `most` best anchors of a frame that score above the threshold, before any
        suppression; highest score first, the lowest anchor wins ties."""
        config = self.config
        scores, labels = maps.scores[frame].float().sigmoid().max(dim=1)
        rows = (scores > score_threshold).nonzero()[:, 0]
        rows = rows[scores[rows].argsort(descending=True, stable=True)[:most]]
        boxes = decode(maps.codes[frame, rows].float(), self.anchors.boxes[rows])
        bins = maps.directions[frame, rows].argmax(dim=1)
        boxes[:, 6] = turn_into_bin(boxes[:, 6], bins, config.direction_offset, config.direction_bins)
        found = Detections(boxes, scores[rows], labels[rows])
        return found.select(boxes.isfinite().all(dim=1) & found.scores.isfinite())


def usable_boxes(batch: DetectionBatch, frame: int, grid: BevGrid) -> tuple[Tensor, Tensor]:
    """The boxes and labels of a frame that can be targets."""
    keep = usable_rows(batch, frame, grid)
    return batch.boxes[keep].float(), batch.labels[keep]


def usable_rows(batch: DetectionBatch, frame: int, grid: BevGrid) -> Tensor:
    """(M,) bool: the boxes of a frame that are finite, of positive size and centred in bounds."""
    boxes = batch.boxes.float()
    keep = (batch.box_frame == frame) & grid.contains(boxes)
    return keep & (boxes[:, 3:6] > 0).all(dim=1) & boxes.isfinite().all(dim=1)


def focal_loss(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t of each element, p_t the probability given to its target (0 or 1).

    Source: RetinaNet (arXiv 1708.02002), Eq. 5.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid()
    missed = target * (1 - p) + (1 - target) * p
    return (target * alpha + (1 - target) * (1 - alpha)) * missed.pow(gamma) * cross_entropy


def suppress(found: Detections, threshold: float, over: Literal["all", "class"], most: int) -> Detections:
    """The `most` best detections that no better one overlaps by a rotated BEV IoU above `threshold`."""
    if over == "all":
        return found.select(nms(found.boxes, found.scores, threshold)[:most])
    kept = []
    for label in found.labels.unique():
        rows = (found.labels == label).nonzero()[:, 0]
        kept.append(rows[nms(found.boxes[rows], found.scores[rows], threshold)])
    rows = torch.cat(kept) if kept else found.labels.new_zeros(0)
    best = found.scores[rows].argsort(descending=True, stable=True)[:most]
    return found.select(rows[best])
