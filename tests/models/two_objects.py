"""A frame with two objects, how to learn it by heart, and laws that hold for every detector."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from sparse3d.frames import DetectionBatch, Detections, LidarFrame

BOXES = np.array(
    [[4.3, 3.2, -0.6, 3.8, 1.7, 1.5, 0.4], [11.6, -3.4, -0.5, 0.8, 0.8, 1.7, -2.0]], dtype=np.float32
)
LABELS = np.array([0, 1])


def frame_of(boxes=BOXES, labels=LABELS, points=400, ground=600, seed=0) -> LidarFrame:
    """Points inside of each box over a flat ground."""
    rng = np.random.default_rng(seed)
    clouds = [
        np.stack([rng.uniform(0, 16, ground), rng.uniform(-8, 8, ground), np.full(ground, -1.4)], axis=1)
    ]
    for x, y, z, l, w, h, yaw in boxes:
        local = rng.uniform(-0.5, 0.5, (points, 3)) * (l, w, h)
        c, s = math.cos(yaw), math.sin(yaw)
        turned = np.stack(
            [c * local[:, 0] - s * local[:, 1], s * local[:, 0] + c * local[:, 1], local[:, 2]], 1
        )
        clouds.append(turned + (x, y, z))
    xyz = np.concatenate(clouds)
    cloud = np.concatenate([xyz, rng.uniform(0, 1, (len(xyz), 1))], axis=1).astype(np.float32)
    return LidarFrame(f"{seed:06d}", cloud, boxes, labels)


def no_points() -> LidarFrame:
    return LidarFrame(
        "empty", np.zeros((0, 4), np.float32), np.zeros((0, 7), np.float32), np.zeros(0, np.int64)
    )


def no_boxes() -> LidarFrame:
    return frame_of(np.zeros((0, 7), np.float32), np.zeros(0, np.int64))


def boxes_without_points() -> LidarFrame:
    return LidarFrame("boxes without points", np.zeros((0, 4), np.float32), BOXES, LABELS)


empty_frames = pytest.mark.parametrize(
    "frames",
    [
        [frame_of(), no_points()],
        [no_points()],
        [no_points(), no_points()],
        [no_boxes()],
        [boxes_without_points()],
    ],
    ids=["one_empty", "empty", "all_empty", "no_boxes", "no_points"],
)


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


def learn(model: nn.Module, batch: DetectionBatch, steps: int, lr: float) -> tuple[float, float]:
    """Train on one batch with a falling rate; the first loss and the last."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    values = []
    for _ in range(steps):
        loss = total(model.loss(batch))  # pyright: ignore
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        values.append(loss.item())
    return values[0], values[-1]


def assert_every_parameter_learns(model: nn.Module, losses: dict[str, torch.Tensor]) -> None:
    total(losses).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def assert_stays_finite(model: nn.Module, frames: Sequence[LidarFrame]) -> None:
    """Losses, gradients, buffers and detections, while it is trained and while it is not."""
    batch = DetectionBatch.collate(frames)
    losses = model.loss(batch)  # pyright: ignore
    total(losses).backward()
    assert all(value.isfinite() for value in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for name, buffer in model.named_buffers():
        assert buffer.isfinite().all(), name
    for mode in (True, False):
        found = model.train(mode).predict(batch)  # pyright: ignore
        assert len(found) == len(frames)
        assert all(d.boxes.isfinite().all() for d in found)


def assert_same_bits(build: Callable[[], nn.Module]) -> None:
    """Of the loss and of all gradients, whenever they are computed."""
    batch, results = DetectionBatch.collate([frame_of(), frame_of(seed=1)]), []
    for _ in range(2):
        model = build()
        loss = total(model.loss(batch))  # pyright: ignore
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def around_the_truth(spread: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Twenty boxes around each of `BOXES` and their labels, as a trained first stage would propose them."""
    boxes = torch.from_numpy(BOXES).repeat_interleave(20, dim=0)
    noise = torch.randn(boxes.shape, generator=generator) * spread
    boxes = boxes + noise * torch.tensor([1, 1, 1, 0.5, 0.5, 0.5, 0.5])
    return boxes, torch.from_numpy(LABELS).repeat_interleave(20)


def quick_statistics(model: nn.Module) -> None:
    """Batch norms whose running statistics are those of the last steps, after a short training too."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.2


def assert_finds_both(found: Detections) -> torch.Tensor:
    """The two best detections are the two objects: class, place, size, heading. Their rows, by label."""
    assert len(found.scores) >= 2 and found.scores[1] > 0.5
    order = found.labels[:2].argsort()
    assert found.labels[:2][order].tolist() == LABELS.tolist()
    error = (found.boxes[:2][order] - torch.from_numpy(BOXES)).abs()
    assert error[:, :6].max() < 0.3
    assert (torch.remainder(error[:, 6] + math.pi, 2 * math.pi) - math.pi).abs().max() < 0.3
    return order
