"""Losses of semantic segmentation: weighted cross entropy, focal loss and the Lovász-softmax.

`logits` are (P, C), `labels` (P,) int64 with IGNORE for points that do not count. Each loss is a scalar, zero
(with a zero gradient) where no point counts. Means are over the points of all ranks: the mean of the ranks'
losses is the loss of the whole batch, but for Lovász's, which is the mean of what the ranks with points have.
Sources: focal loss arXiv 1708.02002, Eq. 4; Lovász-softmax
arXiv 1705.08790, Eq. 8, 9 and Algorithm 1, over all points of a batch together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse3d.frames import IGNORE
from sparse3d.nn.collectives import mean_over_ranks


@dataclass(frozen=True)
class SegmentationLossConfig:
    """Weights of the losses; one with weight 0 is not computed."""

    cross_entropy: float = 1.0
    lovasz: float = 1.0
    focal: float = 0.0
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0  # of the cross entropy
    class_weights: tuple[float, ...] = ()  # one a class, for cross entropy and focal loss; empty: all 1

    def __post_init__(self):
        weights = (self.cross_entropy, self.lovasz, self.focal)
        if min(weights) < 0 or max(weights) == 0 or self.focal_gamma < 0:
            raise ValueError(
                f"loss weights must be at least 0 and one above it, focal_gamma >= 0; got {self}"
            )
        if self.class_weights and min(self.class_weights) < 0:
            raise ValueError(f"class_weights must be at least 0, got {self.class_weights}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")


def segmentation_losses(logits: Tensor, labels: Tensor, config: SegmentationLossConfig) -> dict[str, Tensor]:
    """The configured losses by name, times their weights."""
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    counted = labels != IGNORE
    wide, labels = wide[counted], labels[counted]
    weights = wide.new_tensor(config.class_weights) if config.class_weights else None
    losses = {}
    if config.cross_entropy:
        losses["cross_entropy"] = config.cross_entropy * cross_entropy(
            wide, labels, weights, config.label_smoothing
        )
    if config.focal:
        losses["focal"] = config.focal * focal_loss(wide, labels, config.focal_gamma, weights)
    if config.lovasz:
        losses["lovasz"] = config.lovasz * lovasz_softmax(wide, labels)
    return losses


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean of -log p of the label, weighted by the label's class; the weights of the points sum to one."""
    counted = labels != IGNORE
    logits, labels = logits[counted], labels[counted]
    total = F.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=label_smoothing)
    return mean_over_ranks(total, len(labels) if weights is None else weights[labels].sum())


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0, weights: Tensor | None = None) -> Tensor:
    """Mean over the points of -w (1 - p)^gamma log p, p the label's probability."""
    counted = labels != IGNORE
    logits, labels = logits[counted], labels[counted]
    log_p = F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
    # 1 - p through expm1: exact near p = 1, where (1 - p)^gamma for gamma < 1 has a steep slope.
    loss = -((-torch.expm1(log_p)) ** gamma) * log_p
    return mean_over_ranks((loss if weights is None else loss * weights[labels]).sum(), len(labels))


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the classes that occur of the Lovász extension of their Jaccard loss 1 - IoU.

    For each class the errors |y - p| are sorted downwards; the k-th counts with what the Jaccard loss grows
    by when the k-th point becomes wrong too.
    """
    counted = labels != IGNORE
    logits, labels = logits[counted], labels[counted]
    present = torch.unique(labels)
    if not len(present):
        return mean_over_ranks(logits.sum() * 0.0, 0)
    probability = logits.softmax(dim=1)[:, present].T  # (K, P): sorting along rows is faster
    truth = labels == present[:, None]
    error, order = (truth.to(probability.dtype) - probability).abs().sort(dim=1, descending=True)
    steps = _jaccard_steps(truth.gather(1, order)).to(error.dtype)
    return mean_over_ranks((error * steps).sum(dim=1).mean(), 1)


def _jaccard_steps(truth: Tensor) -> Tensor:
    """(K, P) bool in the order of falling errors -> the step of the Jaccard loss at each place."""
    wrong = truth.cumsum(dim=1)  # of whole numbers: exact, and repeatable on a GPU too
    left = wrong[:, -1:] - wrong  # of the class, not yet wrong
    union = wrong[:, -1:] + torch.arange(1, truth.shape[1] + 1, device=truth.device) - wrong
    jaccard = 1 - left.double() / union
    return torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], dim=1)
