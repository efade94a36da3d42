"""From the maps of the centre head to detections.

Per group: the best (class, cell) pairs by heatmap score, their boxes, scores corrected by the predicted IoU,
then rotated non-maximum suppression class by class. Ties: the lowest (class, x, y) wins. Sources: CenterPoint
(arXiv 2006.11275), section 4; score correction s^(1-a) * iou^a as in CIA-SSD (arXiv 2012.03015), section 3.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse3d.errors import ConfigError
from sparse3d.frames import Detections
from sparse3d.models.center_code import BevGrid, decode
from sparse3d.models.center_head import CenterHeadOutput, CenterMaps
from sparse3d_ops.boxes import nms

Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class CenterDecodeConfig:
    """Tuples hold one value for all classes or one a class, in the order of the model's class names."""

    score_threshold: float = 0.1  # of the heatmap, before the correction by IoU
    top_k: int = 500  # (class, cell) pairs a group and frame
    iou_alphas: tuple[float, ...] = (0.68, 0.71, 0.65)  # 0: heatmap score alone, 1: predicted IoU alone
    nms_thresholds: tuple[float, ...] = (0.7, 0.6, 0.55)  # rotated BEV IoU
    # Metres: a box goes when a better one of its class is nearer than this along both x and y. Boxes that
    # agree on a centre but not on a heading overlap too little for the IoU to tell. 0: off.
    min_distances: tuple[float, ...] = (0.0,)
    nms_pre: int = 4096  # best boxes of a class that enter the suppression
    nms_post: int = 500  # boxes of a class that leave it
    center_bounds: Bounds | None = None  # centres outside are dropped, metres; None: the model's bounds

    def check_classes(self, classes: int, iou: bool = True) -> None:
        """Raise a ConfigError when a tuple holds neither one value nor one for each class. Without an IoU
        branch its exponents are not looked at."""
        for name in ("iou_alphas", "nms_thresholds", "min_distances")[0 if iou else 1 :]:
            values = getattr(self, name)
            if len(values) not in (1, classes):
                raise ConfigError(
                    f"decode.{name} has {len(values)} values, expected 1 or {classes} (one a class)"
                )


def per_class(values: Sequence[float], label: int) -> float:
    """The value for a label out of a tuple with one entry for all classes or one a class."""
    return values[0] if len(values) == 1 else values[label]


def rectify(scores: Tensor, iou: Tensor, alpha: Tensor) -> Tensor:
    """s^(1-a) * ((iou + 1) / 2 clamped to [0, 1])^a for the IoU branch's output in [-1, 1]; all (N,)."""
    return scores.pow(1 - alpha) * ((iou + 1) / 2).clamp(0, 1).pow(alpha)


@torch.no_grad()
def decode_detections(
    output: CenterHeadOutput, group_labels: Sequence[Sequence[int]], grid: BevGrid, config: CenterDecodeConfig
) -> list[Detections]:
    """Detections of each frame, best first. Channel k of group g stands for label `group_labels[g][k]`."""
    frames = output.groups[0].heatmap.shape[0]
    with torch.autocast(output.groups[0].heatmap.device.type, enabled=False):
        found = [
            [_decode_group(maps, labels, frame, grid, config) for frame in range(frames)]
            for maps, labels in zip(output.groups, group_labels, strict=True)
        ]
    return [Detections.concatenate([group[frame] for group in found]) for frame in range(frames)]


def _decode_group(
    maps: CenterMaps, labels: Sequence[int], frame: int, grid: BevGrid, config: CenterDecodeConfig
) -> Detections:
    """One group in one frame."""
    heatmap = maps.heatmap[frame].float().sigmoid()
    scores, channel, index = best_candidates(heatmap.flatten(1), config)
    x, y = index // heatmap.shape[2], index % heatmap.shape[2]

    def at(values: Tensor) -> Tensor:
        return values[frame, :, x, y].T.float()

    predicted = Predicted(
        cell=torch.stack([x, y], dim=1),
        code=torch.cat([at(values) for values in (maps.center, maps.z, maps.dim, maps.rot)], dim=1),
        iou=None if maps.iou is None else at(maps.iou)[:, 0],
        velocity=None if maps.velocity is None else at(maps.velocity),
    )
    return finish(scores, channel, predicted, labels, grid, config)


def best_candidates(
    heatmap: Float[Tensor, "K N"], config: CenterDecodeConfig
) -> tuple[Float[Tensor, "M"], Int[Tensor, "M"], Int[Tensor, "M"]]:
    """Scores, channels and cells of the best (channel, cell) pairs above the threshold, best first."""
    candidates = (heatmap.flatten() > config.score_threshold).nonzero()[:, 0]
    scores = heatmap.flatten()[candidates]
    order = scores.argsort(descending=True, stable=True)[: config.top_k]
    cells = max(1, heatmap.shape[1])
    return scores[order], candidates[order] // cells, candidates[order] % cells


class Predicted(NamedTuple):
    """What a head says at M candidates, float32; `iou` is 2 * IoU - 1, `query` where the candidate itself
    lies along x and y, metres."""

    cell: Int[Tensor, "M 2"]
    code: Float[Tensor, "M 8"]
    iou: Float[Tensor, "M"] | None
    velocity: Float[Tensor, "M 2"] | None
    query: Float[Tensor, "M 2"] | None = None


def finish(
    scores: Float[Tensor, "M"],
    channel: Int[Tensor, "M"],
    predicted: Predicted,
    labels: Sequence[int],
    grid: BevGrid,
    config: CenterDecodeConfig,
) -> Detections:
    """From the candidates of one group and frame to detections: boxes, corrected scores, suppression."""
    boxes = decode(predicted.code, predicted.cell, grid)
    label = torch.tensor(list(labels), device=boxes.device)[channel]
    if predicted.iou is not None:
        alphas = boxes.new_tensor([per_class(config.iou_alphas, k) for k in labels])
        scores = rectify(scores, predicted.iou, alphas[channel])
    found = Detections(boxes, scores, label, predicted.velocity, predicted.query)

    low, high = boxes.new_tensor(config.center_bounds or grid.bounds).view(2, 3)
    inside = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(dim=1)
    inside &= boxes.isfinite().all(dim=1) & scores.isfinite()
    if found.velocities is not None:
        inside &= found.velocities.isfinite().all(dim=1)
    found = found.select(inside)
    kept = [_suppress(found.boxes, found.scores, found.labels, k, config) for k in labels]
    return found.select(torch.cat(kept))


def _suppress(boxes: Tensor, scores: Tensor, label: Tensor, k: int, config: CenterDecodeConfig) -> Tensor:
    """Rows of class k that survive."""
    rows = (label == k).nonzero()[:, 0]
    rows = rows[scores[rows].argsort(descending=True, stable=True)[: config.nms_pre]]
    rows = rows[nms(boxes[rows], scores[rows], per_class(config.nms_thresholds, k))]
    distance = per_class(config.min_distances, k)
    if distance > 0:
        # Upright squares of this side around two centres overlap exactly when the centres are too near.
        squares = boxes[rows].clone()
        squares[:, 3:6], squares[:, 6] = distance, 0.0
        rows = rows[nms(squares, scores[rows], 0.0)]
    return rows[: config.nms_post]
