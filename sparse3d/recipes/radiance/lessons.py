"""What a teacher shows a student in a step: points in space, and rays from cameras that need no photos.

What a batch holds follows from the seed and its number alone, so that a resumed run goes on with the same
bits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.fields.build import Field
from sparse3d.fields.distillation import DistillationConfig, TaughtPoints, ask, point_losses, step_opacity
from sparse3d.geometry.cameras import Cameras
from sparse3d.geometry.rays import Rays, rays_through
from sparse3d.recipes.radiance.batches import PixelBatch
from sparse3d.recipes.radiance.config import PriorsConfig, RadianceConfig
from sparse3d.recipes.radiance.model import FieldModel

_KEY = 3  # of the random stream; those of photos and guides are 1 and 2
_EPOCH = 256  # batches, after which a checkpoint is written
_NEAR, _FAR = 1.0, 2.0  # sides of the cube from its middle, between which random cameras stand
_AIMED = 0.75  # of the random rays go to what is dense
_SOLID = 0.5  # opacity from which on a ray has a depth
_AT_ONCE = 1 << 18


class Lesson(NamedTuple):
    """A batch; None for what it does not have."""

    points: TaughtPoints | None
    pixels: PixelBatch | None

    @property
    def batch_size(self) -> int:
        if self.pixels is not None:
            return self.pixels.batch_size
        return 0 if self.points is None else len(self.points.places)

    def to(self, device: torch.device | str) -> "Lesson":
        points, pixels = self
        return Lesson(points and points.to(device), pixels and pixels.to(device))


class TaughtModel(FieldModel):
    """A student."""

    def __init__(self, config: RadianceConfig, distillation: DistillationConfig, priors: PriorsConfig):
        super().__init__(config.model, config.loss, priors)
        self.distillation = distillation

    def loss(self, batch: Lesson) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`point_losses`, and those of `FieldModel` for rays."""
        losses = {} if batch.pixels is None else super().loss(batch.pixels)
        if batch.points is not None:
            losses |= point_losses(self.field, batch.points, self.distillation)
        return losses


class LessonLoader:
    """Lessons of a teacher for a student of `config`. ValueError where the teacher is dense nowhere in its
    cube. `level` may be changed between batches; it has the rays of as many pixels. Rays have a background of
    their own each: so their colours teach how opaque they are."""

    def __init__(self, teacher: Field, config: RadianceConfig, cameras: Cameras | None):
        assert config.distillation is not None and config.train.steps is not None
        self.teacher, self.config, self.cameras = teacher, config.distillation, cameras
        self.level, self.seed = config.refine.levels[0], config.train.seed
        self.accumulate = config.train.accumulate
        self.rays_from = round(self.config.rays_from * config.train.steps)
        self.dense, self.around = dense_cells(teacher, self.config)
        self._given = 0  # batches, of all epochs

    def __len__(self) -> int:
        return _EPOCH

    def __iter__(self) -> Iterator[Lesson]:
        for number in range(self._given, self._given - self._given % _EPOCH + _EPOCH):
            self._given = number + 1
            yield self.lesson(number)

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed, self._given = int(state["seed"]), int(state["given"])

    def lesson(self, number: int) -> Lesson:
        """The batch of this number."""
        random = np.random.default_rng([self.seed, number, _KEY])
        since = number // self.accumulate - self.rays_from
        share = self.config.decay ** max(0, since)
        points = self._points(random, share) if since < 0 or share >= self.config.least else None
        return Lesson(points, None if since < 0 else self._pixels(random))

    def _points(self, random: np.random.Generator, share: float) -> TaughtPoints:
        space, count = self.teacher.config.space, self.config.points
        places = self._in_cells(random, self.around, count)
        anywhere = random.random((count, 1)) < self.config.anywhere
        places = np.where(anywhere, np.array(space.low) + space.side * random.random((count, 3)), places)
        away = self._eyes(random, count)
        if self.cameras is not None and self.config.own:
            own = random.random((count, 1)) < self.config.own
            away = np.where(own, self.cameras.origins[random.integers(len(self.cameras), size=count)], away)
        directions = _unit(places - away)
        return ask(self.teacher, self._tensor(places), self._tensor(directions), share)

    @torch.no_grad()
    def _pixels(self, random: np.random.Generator) -> PixelBatch:
        count = self.level.pixels * self.level.rays_per_side**2
        rays = self._rays(random, count)
        background = self._tensor(random.random((count, 3)))
        seen = self.teacher.render(*rays, background)
        depth = seen.depth.where(seen.opacity > _SOLID, torch.nan)
        none = torch.zeros(count, dtype=torch.long, device=background.device)
        return PixelBatch(rays, seen.color, background, none, seen.opacity, depth)

    def _rays(self, random: np.random.Generator, count: int) -> Rays:
        """From random places around the cube, and those of the run's own cameras."""
        space = self.teacher.config.space
        eyes = self._eyes(random, count)
        aims = np.array(space.low) + space.side * random.random((count, 3))
        aimed = random.random((count, 1)) < _AIMED
        aims = np.where(aimed, self._in_cells(random, self.dense, count), aims)
        rays = Rays(self._tensor(eyes), self._tensor(_unit(aims - eyes)))
        if self.cameras is None or not self.config.own:
            return rays
        rows = random.integers(len(self.cameras), size=count)
        own = rays_through(self.cameras, rows, random.random((count, 2)) * self.cameras.size[rows])
        own = own.to(rays.origins.device)
        chosen = torch.from_numpy(random.random(count) < self.config.own).to(rays.origins.device)
        chosen = (chosen & torch.isfinite(own.directions).all(1))[:, None]
        return Rays(*(ours.where(chosen, others) for ours, others in zip(own, rays, strict=True)))

    def _eyes(self, random: np.random.Generator, count: int) -> np.ndarray:
        """(N, 3): random places around the cube."""
        space = self.teacher.config.space
        away = _unit(random.normal(size=(count, 3))) * (_NEAR + (_FAR - _NEAR) * random.random((count, 1)))
        return np.array(space.low) + space.side / 2 + space.side * away

    def _in_cells(self, random: np.random.Generator, cells: np.ndarray, count: int) -> np.ndarray:
        """(N, 3): random places in cells (M, 3)."""
        space = self.teacher.config.space
        chosen = cells[random.integers(len(cells), size=count)]
        return np.array(space.low) + (chosen + random.random((count, 3))) * (space.side / self.config.cells)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(next(self.teacher.parameters()).device)


@torch.no_grad()
def dense_cells(field: Field, config: DistillationConfig) -> tuple[np.ndarray, np.ndarray]:
    """Cells (M, 3) of the cube in whose middle or corners a field is dense, and these with those around
    them. ValueError where there are none."""
    space, cells = field.config.space, config.cells
    device = next(field.parameters()).device
    axis = torch.arange(cells + 1, device=device)
    corners = torch.cartesian_prod(axis, axis, axis).float()
    middles = torch.cartesian_prod(axis[:-1], axis[:-1], axis[:-1]) + 0.5

    def dense(positions: Tensor) -> Tensor:
        low = torch.tensor(space.low, device=device)
        parts = [field.density(low + part * (space.side / cells)) for part in positions.split(_AT_ONCE)]
        return (step_opacity(torch.cat(parts), space.side, config) >= config.threshold).float()

    around = dense(corners).view(1, 1, *[cells + 1] * 3)
    found = torch.nn.functional.max_pool3d(around, 2, 1)
    found = found.maximum(dense(middles).view_as(found))
    wider = torch.nn.functional.max_pool3d(found, 3, 1, 1)
    chosen, beside = ((x[0, 0] > 0).nonzero().cpu().numpy() for x in (found, wider))
    if not len(chosen):
        raise ValueError("the teacher is dense nowhere in its cube: there is nothing to learn from it")
    return chosen, beside


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
