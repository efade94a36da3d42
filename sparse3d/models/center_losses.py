"""The losses of the centre head, all in float32 whatever the autocast state.

`g` is the target heatmap, `p` the predicted one. Sums over objects are divided by max(1, number of objects);
of several ranks by max(1, number on all of them) / ranks, so that the mean of the ranks' losses is the loss
of all their frames in one batch. Sources: CornerNet (arXiv 1808.01244) Eq. 1; Distance-IoU (arXiv 1911.08287)
Eq. 7; IoU head as in CIA-SSD (arXiv 2012.03015).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch
from sparse3d.models.center_code import CODE_SIZE, BevGrid, decode
from sparse3d.models.center_head import CenterHeadOutput, CenterMaps
from sparse3d.models.center_targets import CenterTargets, center_targets
from sparse3d.models.class_groups import sum_losses
from sparse3d.nn.collectives import all_reduce_mean, world_size
from sparse3d_ops.boxes import box_iou_3d_aligned

# The heatmap is kept this far from 0 and 1: its logarithm stays finite and a cell that sure gets no gradient.
CLAMP = 1e-4


@dataclass(frozen=True)
class CenterLossConfig:
    """Weights of the losses."""

    heatmap: float = 1.0
    box: float = 2.0
    code: tuple[float, ...] = (1.0,) * CODE_SIZE  # weights of dx, dy, z, log l, log w, log h, cos, sin
    velocity: float = 0.4  # of the velocity branch, where there is one: 0.2 of the weight of the box
    iou: float = 1.0  # of the IoU branch, where there is one
    iou_regression: float = 2.0  # of 1 - DIoU; 0 leaves it out

    def __post_init__(self) -> None:
        if len(self.code) != CODE_SIZE:
            raise ConfigError(f"loss: `code` needs {CODE_SIZE} weights, got {len(self.code)}")


def focal_loss(
    logits: Float[Tensor, "..."], heatmap: Float[Tensor, "..."]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum over cells, and the number of cells with g = 1.

    A cell costs -(1 - p)^2 log p where g = 1 and -(1 - g)^4 p^2 log(1 - p) elsewhere.
    """
    p = logits.float().sigmoid().clamp(CLAMP, 1 - CLAMP)
    peak = heatmap == 1
    at_peaks = (1 - p).square() * p.log()
    elsewhere = (1 - heatmap).pow(4) * p.square() * (1 - p).log()
    return -torch.where(peak, at_peaks, elsewhere).sum(), peak.sum().float()


def diou_loss(boxes: Float[Tensor, "M 7"], target: Float[Tensor, "M 7"]) -> Float[Tensor, "M"]:
    """1 - DIoU in [0, 2], the boxes taken as axis-aligned (yaw has its own term); 0 for identical boxes.

    DIoU = IoU - d^2 / c^2: d between the centres, c the diagonal of the smallest box around both.
    """
    low, high = boxes[:, :3] - boxes[:, 3:6] / 2, boxes[:, :3] + boxes[:, 3:6] / 2
    target_low, target_high = target[:, :3] - target[:, 3:6] / 2, target[:, :3] + target[:, 3:6] / 2
    shared = (torch.minimum(high, target_high) - torch.maximum(low, target_low)).clamp(min=0).prod(dim=1)
    union = boxes[:, 3:6].prod(dim=1) + target[:, 3:6].prod(dim=1) - shared
    diagonal = (torch.maximum(high, target_high) - torch.minimum(low, target_low)).square().sum(dim=1)
    distance = (boxes[:, :3] - target[:, :3]).square().sum(dim=1)
    return 1 - (shared / union.clamp(min=1e-6) - distance / diagonal.clamp(min=1e-6)).clamp(-1, 1)


def at_cells(
    values: Float[Tensor, "B C X Y"], frame: Int[Tensor, "M"], cell: Int[Tensor, "M 2"]
) -> Float[Tensor, "M C"]:
    """The column of a map at the cell of each object, in float32."""
    return values[frame, :, cell[:, 0], cell[:, 1]].float()


class AtObjects(NamedTuple):
    """What a head says at each of M objects, float32; None for a branch that it does not have."""

    code: Float[Tensor, "M 8"]
    iou: Float[Tensor, "M 1"] | None
    velocity: Float[Tensor, "M 2"] | None


class ObjectTargets(Protocol):
    """What a head should say: a heatmap as its own, and for each of M objects what `AtObjects` asks for."""

    @property
    def heatmap(self) -> Tensor: ...
    @property
    def cell(self) -> Int[Tensor, "M 2"]: ...
    @property
    def code(self) -> Float[Tensor, "M 8"]: ...
    @property
    def boxes(self) -> Float[Tensor, "M 7"]: ...
    @property
    def velocity(self) -> Float[Tensor, "M 2"]: ...


def batch_losses(
    output: CenterHeadOutput,
    batch: DetectionBatch,
    groups: Sequence[Sequence[int]],
    grid: BevGrid,
    config: CenterLossConfig,
    *,
    overlap: float,
    min_radius: int,
) -> dict[str, Tensor]:
    """Losses of a dense head, summed over its groups of labels; `overlap` and `min_radius` size the
    heatmap's Gaussians. Boxes centred out of the grid's bounds are ignored."""
    return sum_losses(
        center_losses(
            maps,
            center_targets(
                batch.boxes,
                batch.labels,
                batch.box_frame,
                batch.batch_size,
                labels,
                grid,
                velocities=batch.velocities,
                overlap=overlap,
                min_radius=min_radius,
            ),
            grid,
            config,
        )
        for maps, labels in zip(output.groups, groups, strict=True)
    )


def center_losses(
    maps: CenterMaps, targets: CenterTargets, grid: BevGrid, config: CenterLossConfig
) -> dict[str, Tensor]:
    """Losses of one group of a dense head, see `head_losses`."""

    def at_objects(values: Tensor | None) -> Tensor | None:
        return None if values is None else at_cells(values, targets.frame, targets.cell)

    code = at_cells(maps.code(), targets.frame, targets.cell)
    predicted = AtObjects(code, at_objects(maps.iou), at_objects(maps.velocity))
    return head_losses(maps.heatmap, predicted, targets, grid, config)


def head_losses(
    logits: Float[Tensor, "..."],
    predicted: AtObjects,
    targets: ObjectTargets,
    grid: BevGrid,
    config: CenterLossConfig,
) -> dict[str, Tensor]:
    """Weighted scalar losses of one head group: `heatmap`, `box`, where asked for `velocity`, `iou`,
    `iou_regression`. Unknown velocities cost nothing."""
    with torch.autocast(logits.device.type, enabled=False):
        heatmap_sum, peaks = focal_loss(logits, targets.heatmap)
        objects = targets.code.new_tensor(float(len(targets.code)))
        one = 1 / world_size()  # the share of a single object
        peaks, objects = all_reduce_mean(torch.stack([peaks, objects])).clamp(min=one).unbind()

        # Written as a product with the weights: a weight of zero switches an entry off.
        code = predicted.code
        error = (code - targets.code).abs() * code.new_tensor(config.code)
        losses = {
            "heatmap": config.heatmap * heatmap_sum / peaks,
            "box": config.box * error.sum() / objects,
        }
        if predicted.velocity is not None:
            known = targets.velocity.isfinite().all(dim=1)
            moving = all_reduce_mean(known.sum().float()).clamp(min=one)
            wrong = (predicted.velocity[known] - targets.velocity[known]).abs().sum()
            losses["velocity"] = config.velocity * wrong / moving
        boxes = decode(code, targets.cell, grid)
        if predicted.iou is not None:
            # A network that diverged ends in a loss of NaN (from `box`), not in an error about boxes here.
            overlap = box_iou_3d_aligned(boxes.detach().nan_to_num(0.0, 0.0, 0.0), targets.boxes)
            losses["iou"] = config.iou * (predicted.iou[:, 0] - (2 * overlap - 1)).abs().sum() / objects
        if config.iou_regression:
            regression = diou_loss(boxes, targets.boxes).sum()
            losses["iou_regression"] = config.iou_regression * regression / objects
    return losses
