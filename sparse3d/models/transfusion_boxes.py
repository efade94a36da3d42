"""What TransFusion's queries say, what they should say, and the boxes made of it.

The code of a query's box is that of `center_code` with x and y counted in cells from the map's corner. Each
labelled box is asked of the one query matched with it; the others should say that there is nothing.

Source: TransFusion (arXiv 2203.11496), sections 3.4 and 3.5; the IoU branch as in CIA-SSD (arXiv 2012.03015).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models import anchor_head, center_losses
from sparse3d.models.anchor_head import suppress, usable_rows
from sparse3d.models.center_code import CODE_SIZE, BevGrid, decode, encode
from sparse3d.models.center_decode import rectify
from sparse3d.models.center_targets import center_targets
from sparse3d.models.query_matching import MatchingConfig, match_queries
from sparse3d.nn.collectives import all_reduce_mean, world_size
from sparse3d_ops.boxes import box_iou_3d_aligned

Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class TransFusionLossConfig:
    """Weights of the losses."""

    heatmap: float = 1.0
    score: float = 1.0
    box: float = 0.25
    code: tuple[float, ...] = (1.0,) * CODE_SIZE  # weights of x, y, z, log l, log w, log h, cos, sin
    velocity: float = 0.05  # of the velocity branch, where there is one: 0.2 of the weight of the box
    iou: float = 0.5  # of the IoU branch, where there is one
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0

    def __post_init__(self) -> None:
        if len(self.code) != CODE_SIZE:
            raise ConfigError(f"loss: `code` needs {CODE_SIZE} weights, got {len(self.code)}")


@dataclass(frozen=True)
class TransFusionDecodeConfig:
    score_threshold: float = 0.0
    iou_alpha: float = 0.5  # 0: score alone, 1: predicted IoU alone
    nms_threshold: float = 1.0  # rotated BEV IoU; 1: one query an object is enough, nothing is suppressed
    nms_over: Literal["all", "class"] = "class"  # suppress across the classes, or class by class
    center_bounds: Bounds | None = None  # centres outside are dropped, metres; None: the model's bounds


class QueryOutput(NamedTuple):
    """The heatmap (logits); of each query its class and the heatmap's score there, without a gradient; the
    logits of all classes, the code of its box, and from the optional branches velocity and 2 * IoU - 1."""

    heatmap: Float[Tensor, "B K X Y"]
    labels: Int[Tensor, "B P"]
    peak_scores: Float[Tensor, "B P"]
    scores: Float[Tensor, "B P K"]
    code: Float[Tensor, "B P 8"]
    velocity: Float[Tensor, "B P 2"] | None
    iou: Float[Tensor, "B P"] | None


def boxes_of(code: Float[Tensor, "N 8"], grid: BevGrid) -> Float[Tensor, "N 7"]:
    """Differentiable; yaw in [-pi, pi)."""
    return decode(code, torch.zeros_like(code[:, :2]), grid)


# ---- losses ------------------------------------------------------------------------------------------------


class Matches(NamedTuple):
    """N pairs of all frames: the query (row of the B * P), the labelled box, its label and velocity."""

    query: Int[Tensor, "N"]
    boxes: Float[Tensor, "N 7"]
    labels: Int[Tensor, "N"]
    velocity: Float[Tensor, "N 2"]


@torch.no_grad()
def match(output: QueryOutput, batch: DetectionBatch, grid: BevGrid, config: MatchingConfig) -> Matches:
    """Match the queries of each frame with its boxes."""
    nothing = batch.boxes[:0].float()
    parts = [(batch.labels[:0], nothing, batch.labels[:0], batch.velocities[:0].float())]
    for frame in range(batch.batch_size):
        keep = usable_rows(batch, frame, grid)
        boxes, labels = batch.boxes[keep].float(), batch.labels[keep]
        code, scores = output.code[frame], output.scores[frame]
        query, box = match_queries(scores, boxes_of(code, grid), boxes, labels, grid, config)
        parts.append(
            (query + frame * len(code), boxes[box], labels[box], batch.velocities[keep][box].float())
        )
    return Matches(*(torch.cat(column) for column in zip(*parts, strict=True)))


def query_losses(
    output: QueryOutput,
    batch: DetectionBatch,
    grid: BevGrid,
    matching: MatchingConfig,
    config: TransFusionLossConfig,
    *,
    overlap: float,
    min_radius: int,
) -> dict[str, Tensor]:
    """Weighted scalar losses `heatmap`, `score`, `box`, and where there are branches `velocity` and `iou`, in
    float32. Sums are divided by the number of matched queries, that of the heatmap by its peaks; of several
    ranks as in `center_losses`. Unknown velocities cost nothing."""
    with torch.autocast(output.heatmap.device.type, enabled=False):
        classes = range(output.heatmap.shape[1])
        targets = center_targets(
            batch.boxes,
            batch.labels,
            batch.box_frame,
            batch.batch_size,
            classes,
            grid,
            velocities=batch.velocities,
            overlap=overlap,
            min_radius=min_radius,
        )
        heatmap_sum, peaks = center_losses.focal_loss(output.heatmap, targets.heatmap)
        found = match(output, batch, grid, matching)
        known = found.velocity.isfinite().all(dim=1)
        counts = torch.stack([peaks, peaks.new_tensor(len(found.query)), known.sum().to(peaks)])
        peaks, matched, moving = all_reduce_mean(counts).clamp(min=1 / world_size()).unbind()

        logits = output.scores.flatten(0, 1)
        wanted = torch.zeros_like(logits)
        wanted[found.query, found.labels] = 1
        score = anchor_head.focal_loss(logits, wanted, config.focal_alpha, config.focal_gamma).sum()

        code = output.code.flatten(0, 1)[found.query]
        target = encode(found.boxes, torch.zeros_like(found.query)[:, None].expand(-1, 2), grid)
        error = (code - target).abs() * code.new_tensor(config.code)
        losses = {
            "heatmap": config.heatmap * heatmap_sum / peaks,
            "score": config.score * score / matched,
            "box": config.box * error.sum() / matched,
        }
        if output.velocity is not None:
            says = output.velocity.flatten(0, 1)[found.query][known]
            losses["velocity"] = config.velocity * (says - found.velocity[known]).abs().sum() / moving
        if output.iou is not None:
            # A network that diverged ends in a loss of NaN (from `box`), not in an error about boxes here.
            boxes = boxes_of(code.detach(), grid).nan_to_num(0.0, 0.0, 0.0)
            fit = 2 * box_iou_3d_aligned(boxes, found.boxes) - 1
            says = output.iou.flatten(0, 1)[found.query]
            losses["iou"] = config.iou * (says - fit).abs().sum() / matched
    return losses


# ---- boxes -------------------------------------------------------------------------------------------------


@torch.no_grad()
def decode_queries(output: QueryOutput, grid: BevGrid, config: TransFusionDecodeConfig) -> list[Detections]:
    """Detections of each frame, highest score first; of equal ones the better peak comes first."""
    return [_decode_frame(output, frame, grid, config) for frame in range(len(output.labels))]


def _decode_frame(
    output: QueryOutput, frame: int, grid: BevGrid, config: TransFusionDecodeConfig
) -> Detections:
    labels = output.labels[frame]
    scores = output.scores[frame].sigmoid().gather(1, labels[:, None])[:, 0] * output.peak_scores[frame]
    if output.iou is not None:
        alpha = torch.full_like(scores, config.iou_alpha)
        scores = rectify(scores, output.iou[frame], alpha)
    boxes = boxes_of(output.code[frame], grid)
    velocity = None if output.velocity is None else output.velocity[frame]
    low, high = boxes.new_tensor(config.center_bounds or grid.bounds).view(2, 3)
    keep = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(dim=1)
    keep &= boxes.isfinite().all(dim=1) & scores.isfinite() & (scores > config.score_threshold)
    if velocity is not None:
        keep &= velocity.isfinite().all(dim=1)
    order = keep.nonzero()[:, 0]
    order = order[scores[order].argsort(descending=True, stable=True)]
    found = Detections(boxes, scores, labels, velocity).select(order)
    if config.nms_threshold < 1:
        found = suppress(found, config.nms_threshold, config.nms_over, len(found.scores))
    return found
