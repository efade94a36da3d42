"""Losses of segmentation against plain definitions, gradients in double, and laws."""

import math

import pytest
import torch

from sparse3d.frames import IGNORE
from sparse3d.models.segmentation_losses import (
    SegmentationLossConfig,
    cross_entropy,
    focal_loss,
    lovasz_softmax,
    segmentation_losses,
)


def case(points: int = 60, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(points, classes, generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(-1, classes - 1, (points,), generator=generator)  # the last class never occurs
    return logits, labels


def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
    """1 - IoU of a class when the points `wrong` are mispredicted: misses and false alarms alike."""
    union = len(truth | wrong)
    return 1 - len(truth - wrong) / union if union else 0.0


def lovasz_by_definition(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The Lovász extension as a sum over level sets: errors e_1 >= e_2 >= ...,
    sum_k (e_k - e_{k+1}) * loss(first k points wrong)."""
    counted = [p for p in range(len(labels)) if labels[p] != IGNORE]
    total, classes = 0.0, sorted({int(labels[p]) for p in counted})
    for c in classes:
        truth = {p for p in counted if labels[p] == c}
        share = {p: math.exp(logits[p, c]) / sum(math.exp(v) for v in logits[p]) for p in counted}
        error = {p: 1 - share[p] if p in truth else share[p] for p in counted}
        order = sorted(counted, key=lambda p: -error[p])
        for k, p in enumerate(order):
            following = error[order[k + 1]] if k + 1 < len(order) else 0.0
            total += (error[p] - following) * jaccard_loss(set(order[: k + 1]), truth)
    return total / len(classes)


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_is_the_extension_of_the_jaccard_loss(seed):
    logits, labels = case(seed=seed)
    assert float(lovasz_softmax(logits, labels)) == pytest.approx(lovasz_by_definition(logits, labels))


def test_lovasz_of_hard_predictions_is_one_minus_the_mean_iou():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    hard = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1, 2, 2]), 3).double() * 1e3
    # IoU 2/3, 1/3, 1/2.
    assert float(lovasz_softmax(hard, labels)) == pytest.approx(1 - (2 / 3 + 1 / 3 + 1 / 2) / 3)


def test_cross_entropy_by_definition():
    logits, labels = case()
    weights = torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)
    total = weight = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label != IGNORE:
            p = math.exp(row[label]) / sum(math.exp(v) for v in row)
            total -= float(weights[label]) * math.log(p)
            weight += float(weights[label])
    assert float(cross_entropy(logits, labels, weights)) == pytest.approx(total / weight)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_by_definition(gamma):
    logits, labels = case()
    terms = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label != IGNORE:
            p = math.exp(row[label]) / sum(math.exp(v) for v in row)
            terms.append(-((1 - p) ** gamma) * math.log(p))
    assert float(focal_loss(logits, labels, gamma)) == pytest.approx(sum(terms) / len(terms))


def test_focal_loss_without_focus_is_cross_entropy():
    logits, labels = case()
    assert float(focal_loss(logits, labels, 0.0)) == pytest.approx(float(cross_entropy(logits, labels)))


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss, lovasz_softmax])
def test_gradients(loss):
    logits, labels = case(points=12)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss, lovasz_softmax])
def test_ignored_points_change_nothing(loss):
    logits, labels = case()
    counted = labels != IGNORE
    assert float(loss(logits, labels)) == pytest.approx(float(loss(logits[counted], labels[counted])))
    moved = torch.where(counted[:, None], logits, logits + 5).requires_grad_()
    loss(moved, labels).backward()
    assert moved.grad is not None and not moved.grad[~counted].any() and moved.grad[counted].any()


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss, lovasz_softmax])
@pytest.mark.parametrize("points", [0, 5])
def test_nothing_to_learn_from_is_zero_with_a_gradient(loss, points):
    logits = torch.randn(points, 3, requires_grad=True)
    value = loss(logits, torch.full((points,), IGNORE))
    value.backward()
    assert value.item() == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss, lovasz_softmax])
def test_perfect_predictions_cost_nothing_and_extreme_ones_are_finite(loss):
    labels = torch.arange(4)
    right = torch.eye(4) * 200
    assert float(loss(right, labels)) == pytest.approx(0, abs=1e-6)
    wrong = right.roll(1, dims=1).requires_grad_()
    value = loss(wrong, labels)
    value.backward()
    assert torch.isfinite(value) and wrong.grad is not None and torch.isfinite(wrong.grad).all()


def test_points_of_a_class_without_weight_cost_nothing():
    logits, labels = case()
    weights = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    assert float(cross_entropy(logits, labels, weights)) == 0.0


def test_weights_of_the_config():
    logits, labels = case()
    config = SegmentationLossConfig(cross_entropy=2.0, lovasz=0.5, focal=3.0, class_weights=(1, 1, 2, 1))
    losses = segmentation_losses(logits, labels, config)
    weights = torch.tensor([1, 1, 2, 1], dtype=torch.float64)
    assert float(losses["cross_entropy"]) == pytest.approx(2 * float(cross_entropy(logits, labels, weights)))
    assert float(losses["lovasz"]) == pytest.approx(0.5 * float(lovasz_softmax(logits, labels)))
    assert float(losses["focal"]) == pytest.approx(3 * float(focal_loss(logits, labels, 2.0, weights)))
    assert list(segmentation_losses(logits, labels, SegmentationLossConfig(lovasz=0.0))) == ["cross_entropy"]
    with pytest.raises(ValueError, match="one above it"):
        SegmentationLossConfig(cross_entropy=0, lovasz=0)
