"""A small model with what resuming can get wrong (dropout, batch norm), and a shuffled loader for it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sparse3d.engine.loop import TrainConfig, Trainer
from sparse3d.engine.optim import AdamWConfig
from sparse3d.engine.schedule import OneCycleConfig


@dataclass(frozen=True)
class Batch:
    x: Tensor
    y: Tensor
    frame_ids: tuple[str, ...] = ()

    @property
    def batch_size(self) -> int:
        return len(self.x)

    def to(self, device):
        return replace(self, x=self.x.to(device), y=self.y.to(device))


class SmallNet(nn.Module):
    """Two losses on two outputs."""

    def __init__(self, dropout: float = 0.25, norm: bool = True):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(8, 2)

    def forward(self, batch):
        return self.head(self.body(batch.x))

    def loss(self, batch) -> dict[str, Tensor]:
        out = self(batch)
        return {"first": (out[:, 0] - batch.y).square().mean(), "second": 0.5 * out[:, 1].abs().mean()}


class SmallLoader:
    """Batches in an order that follows from the epoch; the state counts what was handed out."""

    def __init__(self, rows: int = 20, batch_size: int = 2, rank: int = 0, world_size: int = 1):
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(rows, 4, generator=generator)
        self.y = self.x.sum(1) + 0.1 * torch.randn(rows, generator=generator)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.epoch = self.position = 0
        self.handed_out: list[tuple[str, ...]] = []

    def __len__(self):
        return len(self.x) // (self.batch_size * self.world_size)

    def __iter__(self):
        torch.rand(1)  # as torch's DataLoader does to seed its workers: must not matter
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(self.epoch))
        order = order.reshape(len(self), self.world_size, self.batch_size)[:, self.rank]
        while self.position < len(self):
            rows = order[self.position]
            self.position += 1
            batch = Batch(self.x[rows], self.y[rows], tuple(str(int(row)) for row in rows))
            self.handed_out.append(batch.frame_ids)
            yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self):
        over = self.position == len(self)
        return {"epoch": self.epoch + over, "position": 0 if over else self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


def small_trainer(config: TrainConfig | None = None, *, hooks=(), model=None, loader=None, seed=0, **other):
    """A trainer over SmallNet; every call builds new objects from the seed."""
    torch.manual_seed(seed)
    return Trainer(
        model if model is not None else SmallNet(),
        loader if loader is not None else SmallLoader(),
        config or TrainConfig(steps=10, clip_grad_norm=1.0, ema_decay=0.9),
        other.get("optimizer", AdamWConfig(lr=0.02)),
        other.get("schedule", OneCycleConfig()),
        hooks=hooks,
        device=other.get("device", "cpu"),
    )
