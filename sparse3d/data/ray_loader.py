"""Random rays of posed photos, batch after batch: repeatable from a seed, resumable, and streamed from disk.

Every pixel comes once an epoch, in an order that follows from (seed, epoch) alone and takes no memory
(`permutation`); batches run on over the end of an epoch. Which rays a batch has depends on its number only.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.data.permutation import shuffled
from sparse3d.data.photos import PosedPhotos
from sparse3d.data.pixel_cache import open_pixels
from sparse3d.geometry.rays import Rays


class RayBatch(NamedTuple):
    """R rays with what the photos show there.

    `rgb` (R, 3) float32 in [0, 1], not multiplied by the opacity `alpha` (R,); `mask` (R,) bool; `distance`
    (R,) float32 metres along the ray, NaN where unknown; these three are None where the photos have none.
    `photo` (R,) int64 rows of the photos, `pixel` (R, 2) int64 x and y.
    """

    rays: Rays
    rgb: Tensor
    alpha: Tensor | None
    mask: Tensor | None
    distance: Tensor | None
    photo: Tensor
    pixel: Tensor

    @property
    def batch_size(self) -> int:
        """R."""
        return len(self.rgb)

    def over(self, background: Tensor) -> Tensor:
        """(R, 3): the colours in front of a background, (3,) or (R, 3)."""
        if self.alpha is None:
            return self.rgb
        opacity = self.alpha[:, None]
        return self.rgb * opacity + background.to(self.rgb) * (1 - opacity)

    def to(self, device: torch.device | str) -> "RayBatch":
        """The batch on another device."""
        rest = (None if x is None else x.to(device) for x in self[1:])
        return RayBatch(self.rays.to(device), *rest)  # type: ignore[arg-type]


class Places(NamedTuple):
    """`photo` (R,) int64 rows of the photos, `pixel` (R, 2) int64 x and y."""

    photo: np.ndarray
    pixel: np.ndarray


class RayLoader:
    """Batches of `batch_size` rays for ever; with `world_size` processes, each gets a part of its own and all
    together those of a single one with `world_size` times the size.

    `masked_only` gives only rays inside the photos' masks. `cache_dir` and errors: `pixel_cache.open_pixels`.
    """

    def __init__(
        self,
        photos: PosedPhotos,
        batch_size: int,
        *,
        seed: int = 0,
        masked_only: bool = False,
        cache_dir: str | Path = "",
        rank: int = 0,
        world_size: int = 1,
    ):
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size must be at least 1 and rank in [0, world_size), "
                f"got {batch_size}, {rank} and {world_size}"
            )
        self.photos = photos
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.position = 0  # rays handed out, over all ranks
        self._pixels = open_pixels(photos, cache_dir, masked_only)

    def __iter__(self) -> Iterator[RayBatch]:
        while True:
            yield next(self)

    def __next__(self) -> RayBatch:
        start = self.position + self.rank * self.batch_size
        batch = self.rows(self._rows(np.arange(start, start + self.batch_size)))
        self.position += self.batch_size * self.world_size
        return batch

    @property
    def rays_per_epoch(self) -> int:
        """How many pixels there are."""
        return len(self._pixels.records)

    def rows(self, rows: np.ndarray) -> RayBatch:
        """The rays with these numbers (R,), in [0, rays_per_epoch)."""
        records = self._pixels.records[rows]
        photo, pixel = self.places(rows)
        cameras = self.photos.cameras
        local = cameras.unproject(pixel + 0.5, photo)
        pose = cameras.camera_to_world[photo]
        turned = np.einsum("rij,rj->ri", pose[:, :3, :3], local)
        names = records.dtype.names or ()
        distance = (
            torch.from_numpy((records["depth"] / local[:, 2]).astype(np.float32))
            if "depth" in names
            else None
        )
        return RayBatch(
            Rays(
                torch.from_numpy(pose[:, :3, 3].astype(np.float32)),
                torch.from_numpy(turned.astype(np.float32)),
            ),
            torch.from_numpy(records["rgb"].astype(np.float32) / 255),
            torch.from_numpy(records["alpha"].astype(np.float32) / 255) if "alpha" in names else None,
            torch.from_numpy(records["mask"] > 0) if "mask" in names else None,
            distance,
            torch.from_numpy(photo),
            torch.from_numpy(pixel),
        )

    def places(self, rows: np.ndarray) -> "Places":
        """Where the rays with these numbers (R,) are in the photos."""
        photo = self._pixels.photo_of(rows)
        pixel = self._pixels.pixel_of(rows, photo)
        width = self.photos.cameras.size[photo, 0]
        return Places(photo.astype(np.int64), np.stack([pixel % width, pixel // width], -1))

    def depth_at(self, photo: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        """(R,) what the depth maps of photos (R,) hold at pixels (R, 2) int64, metres along the optical axis;
        NaN where that is not known, outside of the photo, and for pixels that are left out."""
        out = np.full(len(photo), np.nan, dtype=np.float32)
        if "depth" not in (self._pixels.records.dtype.names or ()):
            return out
        size = self.photos.cameras.size[photo]
        inside = np.flatnonzero(((pixel >= 0) & (pixel < size)).all(1))
        place = pixel[inside, 1] * size[inside, 0] + pixel[inside, 0]
        rows = self._pixels.rows_of(photo[inside], place)
        out[inside[rows >= 0]] = self._pixels.records["depth"][rows[rows >= 0]]
        return out

    def state_dict(self) -> dict[str, int]:
        """What resuming needs; batch size and world size may change."""
        return {"seed": self.seed, "position": self.position, "rays_per_epoch": self.rays_per_epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken; ValueError where the photos are not the same."""
        if int(state["rays_per_epoch"]) != self.rays_per_epoch or int(state["position"]) < 0:
            raise ValueError(
                f"the state is of {state['rays_per_epoch']} rays at {state['position']}, these photos have "
                f"{self.rays_per_epoch}: other photos, scale or masks than before?"
            )
        self.seed, self.position = int(state["seed"]), int(state["position"])

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        """Positions in the endless stream -> numbers of rays."""
        length = self.rays_per_epoch
        epochs, inside = np.divmod(positions, length)
        out = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = shuffled(inside[here], length, self.seed, int(epoch))
        return out
