"""Rays through pixels: exact for every lens, made in float64, handed out in the dtype that is asked for."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.geometry.cameras import Camera, Cameras


class Rays(NamedTuple):
    """R rays: `origins` (R, 3) in metres and `directions` (R, 3) of unit length, in the world's frame."""

    origins: Tensor
    directions: Tensor

    def to(self, device: torch.device | str) -> "Rays":
        """The rays on another device."""
        return Rays(self.origins.to(device), self.directions.to(device))


def pixel_centres(width: int, height: int) -> np.ndarray:
    """(height * width, 2) float64: x, y of the pixels' centres, row after row."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x.ravel(), y.ravel()], -1)


def rays_through(
    cameras: Cameras, rows: np.ndarray, pixels: np.ndarray, dtype: torch.dtype = torch.float32
) -> Rays:
    """Rays of the cameras `rows` (R,) through `pixels` (R, 2). NaN directions for pixels that no direction
    reaches through their lens."""
    pose = cameras.camera_to_world[rows]
    turned = np.einsum("rij,rj->ri", pose[:, :3, :3], cameras.unproject(pixels, rows))
    return Rays(torch.from_numpy(pose[:, :3, 3].copy()).to(dtype), torch.from_numpy(turned).to(dtype))


def rays_of_image(camera: Camera, dtype: torch.dtype = torch.float32) -> Rays:
    """The rays of all pixels of a camera, row after row: (height * width)."""
    pixels = pixel_centres(camera.width, camera.height)
    return rays_through(Cameras.stack([camera]), np.zeros(len(pixels), dtype=np.int64), pixels, dtype)


def distance_from_depth(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Depth along the optical axis (height, width) -> distance along the ray of each pixel (height, width),
    which is what volume rendering integrates over."""
    directions = camera.unproject(pixel_centres(camera.width, camera.height))
    return np.asarray(depth, dtype=np.float64) / directions[:, 2].reshape(camera.height, camera.width)


def depth_from_distance(distance: np.ndarray, camera: Camera) -> np.ndarray:
    """The inverse of `distance_from_depth`."""
    directions = camera.unproject(pixel_centres(camera.width, camera.height))
    return np.asarray(distance, dtype=np.float64) * directions[:, 2].reshape(camera.height, camera.width)
