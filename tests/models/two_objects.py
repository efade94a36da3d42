"""A frame with two objects, for tests of detectors, and how to learn it by heart."""

import math

import numpy as np
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
