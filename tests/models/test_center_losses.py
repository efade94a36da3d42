"""The losses of the centre head against numbers worked out by hand."""

import math

import pytest
import torch

from sparse3d.errors import ConfigError
from sparse3d.models.center_code import BevGrid
from sparse3d.models.center_head import CenterMaps
from sparse3d.models.center_losses import CLAMP, CenterLossConfig, center_losses, diou_loss, focal_loss
from sparse3d.models.center_targets import center_targets

GRID = BevGrid((0.0, 0.0, -2.0, 8.0, 8.0, 2.0), (1.0, 1.0), (8, 8))
BOXES = torch.tensor([[2.25, 3.5, 0.0, 4.0, 2.0, 1.5, 0.3], [6.5, 6.0, -0.5, 1.0, 1.0, 2.0, -2.0]])


def targets(boxes=BOXES, batch_size=1):
    zeros = torch.zeros(len(boxes), dtype=torch.long)
    return center_targets(boxes, zeros, zeros, batch_size, (0,), GRID)


def perfect_maps(want, dtype=torch.float32) -> CenterMaps:
    code = torch.zeros(*want.heatmap[:, 0].shape, 8)
    code[want.frame, want.cell[:, 0], want.cell[:, 1]] = want.code
    code = code.permute(0, 3, 1, 2).to(dtype)
    heatmap = torch.logit(want.heatmap, 1e-6).to(dtype)
    iou = torch.ones_like(code[:, :1])
    return CenterMaps(heatmap, code[:, :2], code[:, 2:3], code[:, 3:6], code[:, 6:], iou)


def test_focal_loss_by_hand():
    # Three cells: a peak said 0.8, a cell beside it (g = 0.5) said 0.5, background said 0.1.
    logits = torch.logit(torch.tensor([0.8, 0.5, 0.1])).view(1, 1, 1, 3)
    heatmap = torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 1, 3)
    want = -(0.2**2 * math.log(0.8) + 0.5**4 * 0.5**2 * math.log(0.5) + 0.1**2 * math.log(0.9))
    loss, peaks = focal_loss(logits, heatmap)
    assert loss.item() == pytest.approx(want, rel=1e-5)
    assert peaks.item() == 1


def test_focal_loss_stays_finite_for_huge_logits():
    logits = torch.tensor([1e4, -1e4]).view(1, 1, 1, 2).requires_grad_()
    loss, _ = focal_loss(logits, torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
    loss.backward()
    # Both cells are as wrong as the clamp lets them be.
    assert loss.item() == pytest.approx(-2 * (1 - CLAMP) ** 2 * math.log(CLAMP), rel=1e-3)
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_diou_loss_by_hand():
    box = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0]])
    shifted = torch.tensor([[1.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0]])
    # Shared 1 x 2 x 2 = 4 of a union of 12; d^2 = 1; smallest box around both 3 x 2 x 2, c^2 = 17.
    assert diou_loss(box, shifted).item() == pytest.approx(1 - (4 / 12 - 1 / 17), rel=1e-6)


def test_diou_loss_is_zero_for_identical_boxes_and_above_one_for_far_ones():
    assert torch.equal(diou_loss(BOXES, BOXES), torch.zeros(2))
    far = BOXES + torch.tensor([100.0, 0, 0, 0, 0, 0, 0])
    assert (diou_loss(far, BOXES) > 1.8).all() and (diou_loss(far, BOXES) <= 2).all()


def test_losses_of_perfect_maps_vanish():
    want = targets()
    losses = center_losses(perfect_maps(want), want, GRID, CenterLossConfig())
    # The focal loss of perfect maps is that of the Gaussian's flanks; the others are zero up to rounding.
    assert set(losses) == {"heatmap", "box", "iou", "iou_regression"}
    assert losses["box"] < 1e-6 and losses["iou"] < 1e-4 and losses["iou_regression"] < 1e-5


def test_box_loss_is_the_weighted_l1_error_per_object():
    want = targets()
    maps = perfect_maps(want)
    i, j = want.cell[0].tolist()
    maps.z[0, 0, i, j] += 0.5
    maps.rot[0, 1, i, j] -= 0.25
    config = CenterLossConfig(box=2.0, code=(1, 1, 3, 1, 1, 1, 1, 2), iou_regression=0.0)
    losses = center_losses(maps, want, GRID, config)
    assert losses["box"].item() == pytest.approx(2 * (3 * 0.5 + 2 * 0.25) / 2, rel=1e-5)
    assert "iou_regression" not in losses


def test_iou_branch_is_asked_for_the_iou_of_the_decoded_box():
    want = targets(BOXES[1:])
    maps = perfect_maps(want)
    i, j = want.cell[0].tolist()
    maps.z[0, 0, i, j] += 1.0  # half of the height of 2: IoU 1 / 3
    maps.iou[0, 0, i, j] = 0.1
    maps.center.requires_grad_()
    losses = center_losses(maps, want, GRID, CenterLossConfig())
    assert losses["iou"].item() == pytest.approx(abs(0.1 - (2 / 3 - 1)), rel=1e-4)
    assert not losses["iou"].requires_grad  # the decoded boxes are detached


def test_without_boxes_only_the_heatmap_counts():
    want = targets(torch.zeros(0, 7))
    maps = CenterMaps(*(torch.zeros(1, c, 8, 8, requires_grad=True) for c in (1, 2, 1, 3, 2, 1)))
    losses = center_losses(maps, want, GRID, CenterLossConfig())
    assert losses["heatmap"].item() == pytest.approx(64 * 0.25 * math.log(2), rel=1e-5)
    assert losses["box"] == 0 and losses["iou"] == 0 and losses["iou_regression"] == 0
    sum(losses.values()).backward()  # pyright: ignore
    asked = [m for m in maps if m is not None]
    assert len(asked) == 6 and all(m.grad is not None and m.grad.isfinite().all() for m in asked)


def test_losses_are_float32_for_bfloat16_maps_and_under_autocast():
    want = targets()
    with torch.autocast("cpu", torch.bfloat16):
        losses = center_losses(perfect_maps(want, torch.bfloat16), want, GRID, CenterLossConfig())
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())


def test_a_diverged_network_gives_nan_and_no_error():
    want = targets()
    maps = CenterMaps(*(torch.full((1, c, 8, 8), float("nan")) for c in (1, 2, 1, 3, 2, 1)))
    assert center_losses(maps, want, GRID, CenterLossConfig())["box"].isnan()


def test_huge_sizes_keep_losses_and_gradients_finite():
    want = targets()
    maps = CenterMaps(*(torch.full((1, c, 8, 8), 200.0, requires_grad=True) for c in (1, 2, 1, 3, 2, 1)))
    total = torch.stack(list(center_losses(maps, want, GRID, CenterLossConfig()).values())).sum()
    total.backward()
    assert total.isfinite()
    asked = [m for m in maps if m is not None]
    assert len(asked) == 6 and all(m.grad is not None and m.grad.isfinite().all() for m in asked)


def test_code_weights_of_the_wrong_number_are_refused():
    with pytest.raises(ConfigError, match="8 weights, got 2"):
        CenterLossConfig(code=(1.0, 1.0))


def test_velocity_loss_by_hand():
    """|1| + |-2| of the first object, times the weight, over one object: the second is not known."""
    known = torch.tensor([[3.0, 1.0], [float("nan"), 0.0]])
    zeros = torch.zeros(2, dtype=torch.long)
    want = center_targets(BOXES, zeros, zeros, 1, (0,), GRID, velocities=known)
    said = torch.zeros(1, 2, 8, 8)
    said[0, :, want.cell[0, 0], want.cell[0, 1]] = torch.tensor([4.0, -1.0])
    maps = perfect_maps(want)._replace(velocity=said)
    losses = center_losses(maps, want, GRID, CenterLossConfig(velocity=0.5))
    assert losses["velocity"].item() == pytest.approx(0.5 * 3)
    assert "velocity" not in center_losses(perfect_maps(want), want, GRID, CenterLossConfig())
