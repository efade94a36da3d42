"""Camera paths around a scene, fitted to the cameras that took its photos."""

import math

import numpy as np

from sparse3d.geometry.cameras import Camera, Cameras

# Cameras that leave a larger part of the circle free do not stand around the scene.
_WIDEST_GAP = math.radians(150)
_PART_OF_SWING = 0.8  # of the way to the outermost cameras


def orbit(cameras: Cameras, target: np.ndarray, frames: int, longer_side: int | None = None) -> list[Camera]:
    """`frames` pinholes that look at `target` (3,), world, evenly along a closed path.

    The path keeps the cameras' mean distance, mean height over the target and upright direction, and the
    pictures their median field of view and aspect, `longer_side` pixels wide or high (the photos' own size
    where None). Where cameras stand all around, it is a full circle; where they do not, it swings to and fro
    between the outermost of them, since nothing is known of the far side. ValueError for fewer than one frame
    and for a target that cameras stand on.
    """
    if frames < 1 or (longer_side is not None and longer_side < 1):
        raise ValueError(f"a path needs at least one frame and pixel, got {frames} and {longer_side}")
    away = cameras.origins - target
    distance = np.linalg.norm(away, axis=1)
    if not len(cameras) or distance.mean() < 1e-9:
        raise ValueError("a path needs cameras that stand off what they look at")
    up = upright(cameras)
    height = math.asin(np.clip((away @ up / np.maximum(distance, 1e-9)).mean(), -1, 1))
    height = np.clip(height, -1.4, 1.4)  # straight above there is no upright
    east, north = _ground(up)
    turns = np.arange(frames) / frames * 2 * math.pi
    begin, arc = _arc(np.arctan2(away @ north, away @ east))
    if arc is None:
        angles, heights = begin + turns, np.full(frames, height)
    else:
        angles = begin + arc / 2 + _PART_OF_SWING * arc / 2 * np.sin(turns)
        spread = (away @ up / np.maximum(distance, 1e-9)).std()
        heights = height + spread / 2 * np.cos(turns)
    shape = _pictures(cameras, longer_side)
    around = np.cos(angles)[:, None] * east + np.sin(angles)[:, None] * north
    offsets = np.cos(heights)[:, None] * around + np.sin(heights)[:, None] * up
    return [Camera(*shape, looking(target + distance.mean() * off, target, up)) for off in offsets]


def spiral(
    cameras: Cameras,
    target: np.ndarray,
    frames: int,
    longer_side: int | None = None,
    turns: float = 2.0,
) -> list[Camera]:
    """`frames` pinholes that swing `turns` times through the middle of cameras which look the same way, as
    those of forward-facing scenes do, on a closed path; they look at `target` (3,), world. The path is as
    wide as most of the cameras stand apart (90 % of them along each axis), and pictures are as in `orbit`.
    Mildenhall et al., "Local Light Field Fusion", 2019, has such paths. ValueError as there.
    """
    if frames < 1 or (longer_side is not None and longer_side < 1):
        raise ValueError(f"a path needs at least one frame and pixel, got {frames} and {longer_side}")
    if not len(cameras):
        raise ValueError("a path needs cameras")
    middle, up = cameras.origins.mean(0), upright(cameras)
    forward = target - middle
    if np.linalg.norm(forward) < 1e-9:
        raise ValueError("a path needs cameras that stand off what they look at")
    axes = looking(middle, target, up)[:3, :3]
    reach = np.quantile(np.abs((cameras.origins - middle) @ axes), 0.9, axis=0)
    angles = np.arange(frames) / frames * 2 * math.pi
    swing = np.stack([np.cos(turns * angles), np.sin(turns * angles), np.sin(angles)], 1) * reach
    shape = _pictures(cameras, longer_side)
    return [Camera(*shape, looking(eye, target, up)) for eye in middle + swing @ axes.T]


def even_directions(count: int) -> np.ndarray:
    """(count, 3) unit: spread evenly over a sphere, along Fibonacci's spiral from +z to -z."""
    number = np.arange(count)
    height, turn = 1 - (2 * number + 1) / count, number * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), height], 1)


def upright(cameras: Cameras) -> np.ndarray:
    """(3,) unit: what is up for most of the photos, the mean of the cameras' own up directions; where they
    cancel out, across the plane in which most of the cameras stand."""
    own = -cameras.camera_to_world[:, :3, 1]
    mean = own.mean(0)
    if np.linalg.norm(mean) < 0.1:
        spread = cameras.origins - cameras.origins.mean(0)
        mean = np.linalg.svd(spread)[2][2] * (1 if mean @ np.linalg.svd(spread)[2][2] >= 0 else -1)
    return mean / np.linalg.norm(mean)


def looking(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """camera_to_world (4, 4) of a camera at `eye` that looks at `target`, upright. ValueError where it would
    look along `up`."""
    forward = target - eye
    forward = forward / max(np.linalg.norm(forward), 1e-12)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6:
        raise ValueError("a camera that looks straight up or down has no upright picture")
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, eye], 1)
    return pose


def _ground(up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across `up` and each other, right-handed with it."""
    east = np.cross(np.eye(3)[np.abs(up).argmin()], up)
    east /= np.linalg.norm(east)
    return east, np.cross(up, east)


def _arc(angles: np.ndarray) -> tuple[float, float | None]:
    """The angle at which the arc with the cameras begins, and how long it is: None for all around."""
    order = np.sort(angles)
    gaps = np.diff(np.append(order, order[0] + 2 * math.pi))
    widest = gaps.argmax()
    begin = float(order[(widest + 1) % len(order)])
    return begin, None if gaps[widest] < _WIDEST_GAP else 2 * math.pi - float(gaps[widest])


def _pictures(cameras: Cameras, longer_side: int | None) -> tuple[float, float, float, float, int, int]:
    """fx, fy, cx, cy, width, height."""
    width, height = np.median(cameras.size, axis=0)
    scale = 1.0 if longer_side is None else longer_side / max(width, height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    # The field of view is that of the pinhole part: focal lengths in widths and heights.
    fx, fy = np.median(cameras.focal / cameras.size, axis=0) * (width, height)
    return float(fx), float(fy), width / 2, height / 2, width, height
