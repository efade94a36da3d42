"""Cameras and what they see of a ball in a room, exactly."""

import numpy as np

from sparse3d.geometry.orbits import looking

RADIUS, ROOM = 0.5, np.array([1.5, 1.5, 1.2])  # of the ball around the origin; half the sides of the room
SIZE = (160, 120)
INTRINSICS = np.array([133.0, 133.0, 80.0, 60.0])


def around(count, distance=1.1, height=0.3):
    """Poses on a circle, looking at the origin."""
    angles = np.arange(count) / count * 2 * np.pi
    eyes = np.stack([distance * np.cos(angles), distance * np.sin(angles), np.full(count, height)], 1)
    return [looking(eye, np.zeros(3), np.array([0.0, 0.0, 1.0])) for eye in eyes]


def ball_in_room(pose, size=SIZE, intrinsics=INTRINSICS, ball=True):
    """Depth (H, W) float32 along the optical axis, and a picture: the place that a pixel sees as a colour."""
    fx, fy, cx, cy = intrinsics
    column, row = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    ways = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones_like(row)], -1) @ pose[:3, :3].T
    eye = pose[:3, 3]
    with np.errstate(divide="ignore"):
        depth = np.max([(-ROOM - eye) / ways, (ROOM - eye) / ways], 0).min(-1)
    if ball:
        b, c = (ways @ eye), eye @ eye - RADIUS**2
        a = (ways * ways).sum(-1)
        inside = b * b - a * c
        hit = inside > 0
        depth[hit] = (-b[hit] - np.sqrt(inside[hit])) / a[hit]
    return depth.astype(np.float32), colors_at(eye + depth[..., None] * ways)


def colors_at(places):
    return np.clip(128 + 80 * places, 0, 255).round().astype(np.uint8)


def surface_distance(points):
    """Metres to the ball or the room, whichever is nearer."""
    return np.minimum(np.abs(np.linalg.norm(points, axis=-1) - RADIUS), np.abs(ROOM - np.abs(points)).min(-1))
