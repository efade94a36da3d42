"""Which RoIs a second stage is trained with, and what it should say about them.

A RoI is held against the labelled boxes of its class alone, by the IoU of volumes. Of a frame at most `count`
are drawn: up to `foreground` of them from those that overlap enough to be refined, the rest from those that
do not, most of which should at least touch an object. Drawn without replacement, from torch's default
generator of the CPU: a frame with few RoIs gives few, and none stands twice.

Sources: PV-RCNN (arXiv 1912.13192), section 3.4; IoU-guided scores as in IoU-Net (arXiv 1807.11590).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch
from sparse3d.models.anchor_head import usable_boxes
from sparse3d.models.center_code import BevGrid
from sparse3d.models.rois import Rois
from sparse3d_ops.boxes import box_iou_3d


@dataclass(frozen=True)
class RoiSamplingConfig:
    count: int = 128  # RoIs a frame
    foreground: float = 0.5  # most of them that may be foreground
    refined: float = 0.55  # IoU from which on a RoI is foreground: its box is refined
    touching: float = 0.1  # IoU from which on background is hard
    hard: float = 0.8  # share of hard ones in the background
    score_low: float = 0.25  # IoU at which the wanted score is 0
    score_high: float = 0.75  # IoU at which it is 1; in between it rises linearly

    def __post_init__(self) -> None:
        if not 0 <= self.touching <= self.refined <= 1 or not 0 <= self.score_low < self.score_high <= 1:
            raise ConfigError(
                f"RoI sampling: 0 <= touching <= refined <= 1 and score_low < score_high, got {self}"
            )


class RoiTargets(NamedTuple):
    """The drawn RoIs; for each its best IoU, and for F foreground rows of them the labelled box."""

    rois: Rois
    iou: Float[Tensor, "R"]
    foreground: Int[Tensor, "F"]
    boxes: Float[Tensor, "F 7"]


@torch.no_grad()
def sample_rois(rois: Rois, batch: DetectionBatch, grid: BevGrid, config: RoiSamplingConfig) -> RoiTargets:
    """Draw RoIs of each frame. Labelled boxes that are centred out of the grid's bounds are no targets."""
    drawn, ious, truths = [rois.labels[:0]], [rois.scores[:0]], [rois.boxes[:0]]
    for frame in range(batch.batch_size):
        rows = (rois.frame == frame).nonzero()[:, 0]
        boxes, labels = usable_boxes(batch, frame, grid)
        iou, box = best_overlap(rois.boxes[rows], rois.labels[rows], boxes, labels)
        chosen = draw(iou, config)
        drawn.append(rows[chosen])
        ious.append(iou[chosen])
        truths.append(boxes[box[chosen]] if len(boxes) else boxes.new_zeros(len(chosen), 7))
    iou = torch.cat(ious)
    foreground = (iou >= config.refined).nonzero()[:, 0]
    return RoiTargets(rois.select(torch.cat(drawn)), iou, foreground, torch.cat(truths)[foreground])


def best_overlap(
    rois: Float[Tensor, "R 7"],
    roi_labels: Int[Tensor, "R"],
    boxes: Float[Tensor, "M 7"],
    labels: Int[Tensor, "M"],
) -> tuple[Float[Tensor, "R"], Int[Tensor, "R"]]:
    """The largest IoU of each RoI with a box of its class, 0 where there is none, and that box's row."""
    if not len(boxes):
        return rois.new_zeros(len(rois)), torch.zeros_like(roi_labels)
    iou = box_iou_3d(rois, boxes)
    return torch.where(roi_labels[:, None] == labels[None], iou, 0.0).max(dim=1)


def draw(iou: Float[Tensor, "R"], config: RoiSamplingConfig) -> Int[Tensor, "S"]:
    """Rows of at most `config.count` RoIs of one frame, foreground first."""

    def shuffled(which: Tensor) -> Tensor:
        rows = which.nonzero()[:, 0]
        return rows[torch.randperm(len(rows)).to(rows.device)]

    foreground = shuffled(iou >= config.refined)
    hard = shuffled((iou < config.refined) & (iou >= config.touching))
    easy = shuffled(iou < config.touching)
    most = min(round(config.count * config.foreground), len(foreground))
    quota = int((config.count - most) * config.hard)
    # What is left over where a kind has too few comes behind, and is cut off where it has enough.
    order = [foreground[:most], hard[:quota], easy, hard[quota:], foreground[most:]]
    return torch.cat(order)[: config.count]


def wanted_score(iou: Float[Tensor, "R"], config: RoiSamplingConfig) -> Float[Tensor, "R"]:
    """The score a RoI should get: how well it fits, in [0, 1]."""
    return ((iou - config.score_low) / (config.score_high - config.score_low)).clamp(0, 1)
