"""The second stage's head: from the features of each RoI to how well it fits an object, and a better box.

    features -> shared layers -+-> layers -> score (one for all classes)
                               +-> layers -> code of the box relative to the RoI

The score is trained towards the IoU of the RoI. Sources: Voxel R-CNN (arXiv 2012.15712), section 3.4;
CenterPoint (arXiv 2006.11275), section 4.3; the corner loss of Frustum PointNets (arXiv 1711.08488), Eq. 2.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.models.roi_sampling import RoiSamplingConfig, RoiTargets, wanted_score
from sparse3d.models.rois import corners, decode, encode
from sparse3d.nn.collectives import all_reduce_mean, world_size
from sparse3d.nn.norm import BatchNorm


@dataclass(frozen=True)
class RoiHeadConfig:
    """Widths of the layers, and the losses."""

    shared: tuple[int, ...] = (256, 256)
    score: tuple[int, ...] = (256, 256)
    box: tuple[int, ...] = (256, 256)
    dropout: float = 0.3  # between the layers of each group
    score_weight: float = 1.0
    box_weight: float = 1.0
    box_beta: float = 1 / 9  # error from which on the loss of a code is linear; 0: it always is
    corner_weight: float = 1.0  # of the distances of corners, metres; 0 leaves them out


class RowNorm(BatchNorm):
    """Batch norm over the rows of a plain tensor (N, C); none or one of them is legal."""

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.normalize(x)


class RoiOutput(NamedTuple):
    """Of each RoI: the logit of its score, and the code of its box."""

    scores: Float[Tensor, "R"]
    codes: Float[Tensor, "R 7"]


def _layers(channels: int, widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, width in enumerate(widths):
        if i:
            layers.append(nn.Dropout(dropout))
        linear = nn.Linear(channels, width, bias=False)
        nn.init.xavier_normal_(linear.weight)
        layers += [linear, RowNorm(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)


class RoiHead(nn.Module):
    """(R, in_channels) -> RoiOutput."""

    def __init__(self, in_channels: int, config: RoiHeadConfig):
        super().__init__()
        self.config = config
        shared = (in_channels, *config.shared)[-1]
        self.shared = _layers(in_channels, config.shared, config.dropout)
        self.score = _layers(shared, config.score, config.dropout)
        self.score_out = nn.Linear((shared, *config.score)[-1], 1)
        self.box = _layers(shared, config.box, config.dropout)
        self.box_out = nn.Linear((shared, *config.box)[-1], 7)
        nn.init.normal_(self.score_out.weight, std=0.01)
        nn.init.zeros_(self.score_out.bias)
        nn.init.normal_(self.box_out.weight, std=0.001)  # an untrained head leaves the RoIs as they are
        nn.init.zeros_(self.box_out.bias)

    def forward(self, features: Float[Tensor, "R C"]) -> RoiOutput:
        shared = self.shared(features)
        return RoiOutput(self.score_out(self.score(shared))[:, 0], self.box_out(self.box(shared)))


def roi_losses(
    output: RoiOutput, targets: RoiTargets, sampling: RoiSamplingConfig, config: RoiHeadConfig
) -> dict[str, Tensor]:
    """Weighted scalar losses `roi_score`, `roi_box` and, where asked for, `roi_corner`, in float32.

    The mean over RoIs of the cross entropy; the means over foreground RoIs of the sum of the code's errors
    and of the mean distance of corners. Of several ranks: over the RoIs of all of them.
    """
    with torch.autocast(output.scores.device.type, enabled=False):
        scores, codes = output.scores.float(), output.codes.float()[targets.foreground]
        rois = targets.rois.boxes[targets.foreground]
        counts = scores.new_tensor([len(scores), len(codes)])
        all_rois, refined = all_reduce_mean(counts).clamp(min=1 / world_size()).unbind()

        wanted = wanted_score(targets.iou, sampling)
        score = F.binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / all_rois
        code = encode(targets.boxes, rois)
        box = F.smooth_l1_loss(codes, code, reduction="sum", beta=config.box_beta) / refined
        losses = {"roi_score": config.score_weight * score, "roi_box": config.box_weight * box}
        if config.corner_weight:
            corner = corner_loss(decode(codes, rois), targets.boxes).sum() / refined
            losses["roi_corner"] = config.corner_weight * corner
    return losses


def corner_loss(boxes: Float[Tensor, "R 7"], truth: Float[Tensor, "R 7"]) -> Float[Tensor, "R"]:
    """Mean over the corners of smooth L1 (linear from 1 m on) of their distances to those of the truth, or of
    the truth facing back where that is nearer."""
    back = torch.cat([truth[:, :6], truth[:, 6:] + math.pi], dim=1)

    def cost(other: Tensor) -> Tensor:
        # The gradient of a norm at zero is not defined; a micrometre is.
        distance = ((corners(boxes) - corners(other)).square().sum(dim=2) + 1e-12).sqrt()
        return F.smooth_l1_loss(distance, torch.zeros_like(distance), reduction="none").mean(dim=1)

    return torch.minimum(cost(truth), cost(back))
