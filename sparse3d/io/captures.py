"""What readers of posed photos give: views on disk with their cameras, and what was left out and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.cameras import Camera
from sparse3d.io.images import image_size


class Skipped(NamedTuple):
    """A view that the files list and that was left out."""

    name: str
    reason: str


class Withheld(NamedTuple):
    """A camera that the files know and whose photo is not there: hidden test views, to be rendered."""

    name: str
    number: int
    camera: Camera


@dataclass(frozen=True, eq=False)
class View:
    """One posed photo on disk.

    `camera` is that of the full size, which the image may be stored smaller than. `number` is the data
    set's own count, which published splits refer to. `row` is the place in `image` where that is an array of
    many photos (.npz), else -1. Depth files hold `depth_unit` metres a step along the optical axis.
    `near_far` in metres, where the files say.
    """

    name: str
    image: Path
    camera: Camera
    number: int
    mask: Path | None = None
    depth: Path | None = None
    depth_unit: float = 1e-3
    near_far: tuple[float, float] | None = None
    row: int = -1


@dataclass(frozen=True, eq=False)
class ScenePoints:
    """Points that structure from motion found: `positions` (P, 3) metres in the world's frame, `colors`
    (P, 3) uint8, `error` (P,) the mean reprojection error in pixels (NaN where not given), and the tracks:
    observation `o` says that view `track_view[o]` (row of the capture's views) saw point `track_point[o]` at
    `track_pixel[o]` (O, 2), in pixels of the full size."""

    positions: np.ndarray
    colors: np.ndarray
    error: np.ndarray
    track_point: np.ndarray
    track_view: np.ndarray
    track_pixel: np.ndarray

    @staticmethod
    def without_tracks(positions: np.ndarray, colors: np.ndarray | None = None) -> "ScenePoints":
        """Points of which nothing else is known; grey where the colours are not."""
        count, none = len(positions), np.zeros(0, dtype=np.int64)
        grey = np.full((count, 3), 128, dtype=np.uint8)
        error = np.full(count, np.nan)
        return ScenePoints(positions, grey if colors is None else colors, error, none, none, np.zeros((0, 2)))


@dataclass(frozen=True, eq=False)
class Capture:
    """The views of a folder in the order of its files.

    `splits` name rows of `views` where the files do. `box` (2, 3) bounds the scene where that is known.
    `background` is the colour that the data set's evaluation puts behind transparent pixels.
    `original_from_world` (4, 4) leads from our frame back to that of the files, where the two differ; it may
    scale.
    """

    format: str
    views: tuple[View, ...]
    skipped: tuple[Skipped, ...] = ()
    splits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    points: ScenePoints | None = None
    box: np.ndarray | None = None
    background: tuple[float, float, float] | None = None
    original_from_world: np.ndarray = field(default_factory=lambda: np.eye(4))
    withheld: tuple[Withheld, ...] = ()


def checked_capture(path: Path, capture: Capture) -> Capture:
    """The capture, or a DataError where none of its views is left."""
    if not capture.views:
        first = f", first {capture.skipped[0].name}: {capture.skipped[0].reason}" if capture.skipped else ""
        raise DataError(path, f"no view can be read ({len(capture.skipped)} skipped{first})")
    return capture


def scaled_camera(view: View, scale: float) -> Camera:
    """The camera of a view at `scale` times its full size; at 1, at the size its image is stored at.

    DataError for an image that is not the camera's picture (another aspect), and for one that is stored
    smaller than asked for.
    """
    camera, (width, height) = view.camera, image_size(view.image)
    full = f"{camera.width} x {camera.height}"
    # A stored size is the full one times a common factor, each side rounded up or down.
    factors = [(width - 1) / camera.width, (width + 1) / camera.width]
    if not factors[0] * camera.height - 1 <= height <= factors[1] * camera.height + 1:
        raise DataError(
            view.image,
            f"is {width} x {height}, but its intrinsics are for {full}: cropped or turned since? "
            "Estimate its camera again, or resize it with its aspect kept",
        )
    if scale == 1:
        return camera.resized(width, height)
    wanted = max(1, round(camera.width * scale)), max(1, round(camera.height * scale))
    if wanted[0] > width or wanted[1] > height:
        raise DataError(
            view.image,
            f"is {width} x {height}, smaller than {scale:g} times {full}; "
            f"ask for scale={width / camera.width:.4g}",
        )
    return camera.resized(*wanted)
