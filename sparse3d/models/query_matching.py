"""Which query answers for which labelled box: one for one, at the least total cost.

The cost of query q for box g is a weighted sum of

    class   what the focal loss would rise by if q had to say g's class: its loss as a positive minus that as
            background, both at the probability that q gives to the class
    place   |x_q - x_g| + |y_q - y_g|, each relative to the extent of the bounds
    IoU     minus the IoU of volumes

Sources: Carion et al., DETR (arXiv 2005.12872), section 3.1; TransFusion (arXiv 2203.11496), section 3.5.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparse3d.models.center_code import BevGrid
from sparse3d_ops.boxes import box_iou_3d


@dataclass(frozen=True)
class MatchingConfig:
    """Weights of the costs, and the shape of the focal loss in them."""

    label: float = 0.15
    place: float = 0.25
    iou: float = 0.25
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0


def label_cost(
    logits: Float[Tensor, "P K"], labels: Int[Tensor, "M"], alpha: float, gamma: float
) -> Float[Tensor, "P M"]:
    """-alpha (1 - p)^gamma log p + (1 - alpha) p^gamma log(1 - p), p the probability of each box's class."""
    p = logits.sigmoid()[:, labels]
    tiny = 1e-12  # keeps the logarithms finite
    positive = -alpha * (1 - p).pow(gamma) * (p + tiny).log()
    background = -(1 - alpha) * p.pow(gamma) * (1 - p + tiny).log()
    return positive - background


@torch.no_grad()
def match_queries(
    logits: Float[Tensor, "P K"],
    boxes: Float[Tensor, "P 7"],
    truth: Float[Tensor, "M 7"],
    labels: Int[Tensor, "M"],
    grid: BevGrid,
    config: MatchingConfig,
) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Queries and boxes of the N = min(P, M) pairs, by rising query. Solved on the CPU, in float64.

    What a network that diverged says costs most, and is no error here.
    """
    boxes = boxes.nan_to_num(0.0, 0.0, 0.0)
    low, high = boxes.new_tensor(grid.bounds).view(2, 3)[:, :2]
    place = ((boxes[:, None, :2] - truth[None, :, :2]) / (high - low)).abs().sum(dim=2)
    cost = config.label * label_cost(logits, labels, config.focal_alpha, config.focal_gamma)
    cost = cost + config.place * place - config.iou * box_iou_3d(boxes, truth)
    cost = cost.double().nan_to_num(1e6, 1e6, -1e6)
    query, box = (torch.from_numpy(side) for side in linear_sum_assignment(cost.cpu().numpy()))
    return query.to(boxes.device), box.to(boxes.device)
