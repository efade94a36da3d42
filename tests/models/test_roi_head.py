"""Sampling of RoIs and the losses of the RoI head, worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch
from sparse3d.models.center_code import BevGrid
from sparse3d.models.roi_head import RoiHead, RoiHeadConfig, RoiOutput, corner_loss, roi_losses
from sparse3d.models.roi_sampling import (
    RoiSamplingConfig,
    RoiTargets,
    best_overlap,
    draw,
    sample_rois,
    wanted_score,
)
from sparse3d.models.rois import Rois, encode
from tests.models.two_objects import frame_of

GRID = BevGrid((0.0, -8.0, -2.0, 16.0, 8.0, 2.0), (1.0, 1.0), (16, 16))
SAMPLING = RoiSamplingConfig(count=8)
CAR = [4.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.0]


def shifted(*ways: float) -> torch.Tensor:
    """The car moved along its length: of 4 m, w metres leave an IoU of (4 - w) / (4 + w)."""
    return torch.tensor([[CAR[0] + way, *CAR[1:]] for way in ways])


def test_overlaps_by_hand():
    rois = torch.cat([shifted(0, 1, 2, 5), shifted(0)])
    labels = torch.tensor([0, 0, 0, 0, 1])  # the last RoI says another class
    truth = torch.cat([shifted(10.0), shifted(0.0)])
    iou, box = best_overlap(rois, labels, truth, torch.tensor([0, 0]))
    assert iou.tolist() == pytest.approx([1, 3 / 5, 2 / 6, 0, 0], abs=1e-6)
    assert box[:3].tolist() == [1, 1, 1]
    nothing, _ = best_overlap(rois, labels, truth[:0], labels[:0])
    assert nothing.tolist() == [0] * 5


def test_drawing_by_hand():
    # 3 foreground, 20 hard, 20 easy: at most 4 of 8 are foreground, four fifths of the other 5 are hard.
    iou = torch.cat([torch.full((3,), 0.7), torch.full((20,), 0.3), torch.full((20,), 0.05)])
    drawn = iou[draw(iou, SAMPLING)]
    assert drawn.tolist() == pytest.approx([0.7] * 3 + [0.3] * 4 + [0.05])
    # Many foreground: half of all.
    many = torch.cat([torch.full((9,), 0.55), torch.full((20,), 0.54999)])
    assert (many[draw(many, SAMPLING)] >= 0.55).sum() == 4
    # Where a kind has too few, the others fill up, and nothing stands twice.
    few = torch.tensor([0.9] * 6 + [0.2])
    rows = draw(few, SAMPLING)
    assert sorted(rows.tolist()) == list(range(7))
    assert len(draw(torch.zeros(0), SAMPLING)) == 0
    easy = draw(torch.zeros(20), SAMPLING)
    assert len(easy) == len(set(easy.tolist())) == 8


def test_every_roi_is_drawn_as_often_as_others_of_its_kind():
    torch.manual_seed(0)
    iou = torch.tensor([0.3] * 10)
    counts = torch.zeros(10)
    for _ in range(500):
        counts[draw(iou, replace(SAMPLING, count=2))] += 1
    # 100 each on average, with a deviation of 9.
    assert counts.sum() == 1000 and counts.min() > 60 and counts.max() < 140


def test_wanted_scores_by_hand():
    iou = torch.tensor([0.0, 0.25, 0.5, 0.6, 0.75, 1.0])
    assert wanted_score(iou, SAMPLING).tolist() == pytest.approx([0, 0, 0.5, 0.7, 1, 1])


def rois_of(boxes: torch.Tensor, frame: list[int]) -> Rois:
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    return Rois(boxes, torch.ones(len(boxes)), labels, torch.tensor(frame))


def test_targets_stay_in_their_frame():
    car, other = np.float32([CAR]), np.float32([[9.0, 3.0, 0.0, 4.0, 2.0, 1.5, 0.3]])
    batch = DetectionBatch.collate([frame_of(car, np.array([0])), frame_of(other, np.array([0]))])
    rois = rois_of(torch.cat([shifted(0.5, 3.0), shifted(0.5), torch.from_numpy(other)]), [0, 0, 1, 1])
    targets = sample_rois(rois, batch, GRID, SAMPLING)
    assert targets.rois.frame.tolist() == [0, 0, 1, 1]
    assert targets.rois.frame[targets.foreground].tolist() == [0, 1]
    torch.testing.assert_close(targets.boxes, torch.from_numpy(np.concatenate([car, other])))
    empty = sample_rois(rois.select(torch.zeros(4, dtype=torch.bool)), batch, GRID, SAMPLING)
    assert len(empty.iou) == len(empty.boxes) == 0


def targets_of(rois: torch.Tensor, truth: torch.Tensor, iou: list[float]) -> RoiTargets:
    overlap = torch.tensor(iou)
    return RoiTargets(rois_of(rois, [0] * len(rois)), overlap, (overlap >= 0.55).nonzero()[:, 0], truth)


def test_losses_by_hand():
    """Two RoIs, one of them foreground with an IoU of 0.6 and half a metre behind its box."""
    rois, truth = torch.cat([shifted(0.5), shifted(9.0)]), shifted(0.0)
    targets = targets_of(rois, truth, [0.6, 0.1])
    output = RoiOutput(torch.tensor([1.0, -2.0]), torch.zeros(2, 7))
    losses = roi_losses(output, targets, SAMPLING, RoiHeadConfig())

    def entropy(logit, wanted):
        p = 1 / (1 + math.exp(-logit))
        return -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)

    assert losses["roi_score"].item() == pytest.approx((entropy(1, 0.7) + entropy(-2, 0)) / 2)
    # The code is off by 0.5 m / sqrt(4^2 + 2^2) in its first entry, just above beta = 1 / 9.
    assert losses["roi_box"].item() == pytest.approx(0.5 / 20**0.5 - 1 / 18, rel=1e-5)
    assert losses["roi_corner"].item() == pytest.approx(0.5**2 / 2, rel=1e-5)

    linear = roi_losses(output, targets, SAMPLING, RoiHeadConfig(box_beta=0.0, corner_weight=0.0))
    assert linear["roi_box"].item() == pytest.approx(0.5 / 20**0.5, rel=1e-5)
    assert "roi_corner" not in linear


def test_the_true_code_costs_nothing_even_where_front_and_back_are_exchanged():
    rois, truth = shifted(0.3, -0.2), torch.tensor([CAR, [*CAR[:6], math.pi - 0.1]])
    targets = targets_of(rois, truth, [0.8, 0.8])
    losses = roi_losses(
        RoiOutput(torch.full((2,), 30.0), encode(truth, rois)), targets, SAMPLING, RoiHeadConfig()
    )
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in losses.values())


def test_corner_loss_by_hand():
    truth = torch.tensor([CAR, CAR, CAR])
    up = truth + torch.tensor([[0, 0, 3.0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0, 0], [0, 0, 0, 0, 0, 0, math.pi]])
    # 3 m up: linear, 2.5. One metre higher: every corner is half a metre off. Facing back: nothing.
    assert corner_loss(up, truth).tolist() == pytest.approx([2.5, 0.125, 0.0], abs=1e-5)


def test_losses_and_gradients_stay_finite_without_rois():
    head = RoiHead(12, RoiHeadConfig(shared=(8,), score=(8,), box=(8,)))
    for count in (0, 1):
        features = torch.randn(count, 12)
        rois = shifted(*[0.0] * count).reshape(-1, 7)
        targets = targets_of(rois, rois[:0], [0.1] * count)
        losses = roi_losses(head(features), targets, SAMPLING, head.config)
        torch.stack(list(losses.values())).sum().backward()
        assert all(value.isfinite() for value in losses.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_an_untrained_head_leaves_rois_nearly_as_they_are():
    torch.manual_seed(0)
    output = RoiHead(50, RoiHeadConfig()).eval()(torch.randn(30, 50))
    assert output.scores.sigmoid().sub(0.5).abs().max() < 0.3
    assert output.codes.abs().max() < 0.05


def test_thresholds_in_disorder_are_refused():
    with pytest.raises(ConfigError, match="score_low < score_high"):
        RoiSamplingConfig(score_low=0.8)
