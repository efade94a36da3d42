"""Whole photos as pinhole cameras see them, one after the other: what Gaussians are trained on.

A Gaussian's image is a Gaussian only behind a pinhole, so photos of other lenses are resampled to one. Photos
stay on disk; the last ones used are kept in memory up to a limit.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.data.permutation import shuffled
from sparse3d.data.photos import Photo, PosedPhotos
from sparse3d.geometry.cameras import Camera, Lens
from sparse3d.geometry.rays import pixel_centres


def undistorted(photo: Photo, camera: Camera) -> tuple[Photo, Camera]:
    """A photo as the pinhole with the same focal lengths and centre sees it. Pixels that the lens does not
    reach are masked out; those in between are mixed of their four neighbours, depths taken of the nearest."""
    if camera.lens == Lens():
        return photo, camera
    pinhole = replace(camera, lens=Lens())
    directions = pinhole.unproject(pixel_centres(camera.width, camera.height))
    in_world = directions @ camera.camera_to_world[:3, :3].T + camera.camera_to_world[:3, 3]
    places, _ = camera.project(in_world)
    size = np.array([camera.width, camera.height])
    shape = (camera.height, camera.width)
    with np.errstate(invalid="ignore"):
        inside: np.ndarray = np.logical_and.reduce((places >= 0) & (places <= size), axis=1)
    places = np.where(inside[:, None], places, 0.5)
    inside = inside.reshape(shape)
    nearest = np.clip(np.floor(places).astype(np.int64), 0, size - 1)

    def of_nearest(image: np.ndarray) -> np.ndarray:
        return image[nearest[:, 1], nearest[:, 0]].reshape(shape)

    mask = inside if photo.mask is None else inside & of_nearest(photo.mask)
    alpha = None if photo.alpha is None else _mixed(photo.alpha[..., None], places)[:, 0].reshape(shape)
    depth = None if photo.depth is None else np.where(inside, of_nearest(photo.depth), np.nan)
    rgb = _mixed(photo.rgb, places).reshape(*shape, 3)
    return Photo(rgb, alpha, mask, depth), pinhole


def _mixed(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(H, W, C) at places (P, 2) x and y in pixels -> (P, C), bilinear between pixel centres."""
    height, width = image.shape[:2]
    x, y = np.clip(places[:, 0] - 0.5, 0, width - 1), np.clip(places[:, 1] - 0.5, 0, height - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left)[:, None].astype(np.float32), (y - top)[:, None].astype(np.float32)
    upper = image[top, left] * (1 - u) + image[top, right] * u
    lower = image[below, left] * (1 - u) + image[below, right] * u
    return upper * (1 - v) + lower * v


class WholePhoto(NamedTuple):
    """`row` of the photos, its pinhole `camera`, `rgb` (H, W, 3) float32 in [0, 1] in front of a background;
    `alpha` (H, W), `mask` (H, W) bool, true on what counts, and `depth` (H, W) metres along the optical axis,
    NaN where unknown; None what the photo does not have."""

    row: int
    camera: Camera
    rgb: Tensor
    alpha: Tensor | None
    mask: Tensor | None
    depth: Tensor | None

    @property
    def batch_size(self) -> int:
        return 1

    def to(self, device: torch.device | str) -> "WholePhoto":
        moved = (None if part is None else part.to(device) for part in self[2:])
        return WholePhoto(self.row, self.camera, *moved)  # type: ignore[arg-type]


class WholePhotoLoader:
    """A photo a batch, each once a pass, in an order that follows from (seed, pass) alone. An epoch is so
    many passes that it has at least `least` batches. At most `megabytes` of photos stay in memory, as
    bytes."""

    def __init__(
        self,
        photos: PosedPhotos,
        background: tuple[float, float, float],
        seed: int = 0,
        megabytes: float = 512.0,
        least: int = 1,
    ):
        self.photos, self.background, self.seed = photos, background, seed
        self.position = 0  # photos handed out
        self._passes = max(1, -(-least // len(photos)))
        self._room = int(megabytes * 1e6)
        self._kept: OrderedDict[int, tuple[Photo, Camera]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return self._passes * len(self.photos)

    def __iter__(self) -> Iterator[WholePhoto]:
        order, known = np.empty(0, np.int64), -1
        for _ in range(self.position % len(self), len(self)):
            number, place = divmod(self.position, len(self.photos))
            if number != known:
                order = shuffled(np.arange(len(self.photos)), len(self.photos), self.seed, number)
                known = number
            self.position += 1
            yield self.whole(int(order[place]))

    def whole(self, row: int) -> WholePhoto:
        """One photo. DataError where a file is broken or does not fit."""
        if row in self._kept:
            self._kept.move_to_end(row)
            photo, camera = self._kept[row]
        else:
            photo, camera = undistorted(self.photos.photo(row), self.photos.cameras[row])
            photo = photo._replace(
                rgb=_bytes(photo.rgb), alpha=None if photo.alpha is None else _bytes(photo.alpha)
            )
            self._keep(row, photo, camera)
        rgb = torch.from_numpy(photo.rgb).float() / 255
        alpha = None if photo.alpha is None else torch.from_numpy(photo.alpha).float() / 255
        if alpha is not None:
            rgb = rgb * alpha[..., None] + torch.tensor(self.background) * (1 - alpha[..., None])
        mask = None if photo.mask is None else torch.from_numpy(photo.mask)
        depth = None if photo.depth is None else torch.from_numpy(photo.depth.astype(np.float32))
        return WholePhoto(row, camera, rgb, alpha, mask, depth)

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "position": self.position, "photos": len(self.photos)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; ValueError where the photos are not as many."""
        if int(state["photos"]) != len(self.photos):
            raise ValueError(f"the state is of {state['photos']} photos, these are {len(self.photos)}")
        self.seed, self.position = int(state["seed"]), int(state["position"])

    def _keep(self, row: int, photo: Photo, camera: Camera) -> None:
        self._kept[row] = photo, camera
        self._bytes += _size(photo)
        while self._bytes > self._room and self._kept:
            _, (old, _) = self._kept.popitem(last=False)
            self._bytes -= _size(old)


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _size(photo: Photo) -> int:
    return sum(part.nbytes for part in photo if part is not None)
