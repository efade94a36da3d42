"""Where a depth camera stands, found from what was fused so far: frame-to-model tracking as in KinectFusion
(Newcombe et al., ISMAR 2011), with the ICP of Open3D's pipelines (extra `viz`).

The model as seen from where the camera was last gives points with normals; the frame's points are moved onto
their planes. What nothing in the frame tells (sliding along a bare wall) is not found.
"""

from typing import NamedTuple

import numpy as np

from sparse3d.errors import require_extra
from sparse3d.fusion.volume import TSDFVolume

STRIDE = 3  # every third pixel in each direction: ICP needs thousands of points, not all
LEAST_FITNESS = 0.5  # part of the frame's points that have a partner; below it tracking counts as lost
_REACHES = (1.0, 0.3)  # of `reach`: partners are looked for ever nearer


class Tracked(NamedTuple):
    """`camera_to_world` (4, 4); the part of the frame's points that found a partner, and how far these are
    from the model on average (metres, root of the mean square)."""

    camera_to_world: np.ndarray
    fitness: float
    error: float


def track(
    volume: TSDFVolume, depth: np.ndarray, intrinsics: np.ndarray, guess: np.ndarray, reach: float = 0.1
) -> Tracked | None:
    """The pose of a depth map (H, W), metres, from a guess (4, 4) that is off by less than about `reach`
    metres; None where tracking is lost. MissingExtraError without Open3D."""
    o3d = require_extra("open3d", "viz")
    height, width = depth.shape
    seen = volume.ray_cast(intrinsics, guess, (width, height))
    model = back_project(seen.depth, intrinsics, 1)
    known = np.isfinite(seen.depth) & (np.abs(seen.normals).sum(-1) > 0)
    normals = seen.normals[known]
    model = model[known[np.isfinite(seen.depth)]] @ guess[:3, :3].T + guess[:3, 3]
    points = back_project(np.where(depth > 0, depth, np.nan), intrinsics, STRIDE)
    if len(points) < 100 or len(model) < 100:
        return None
    target = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(model))
    target.normals = o3d.utility.Vector3dVector(normals.astype(np.float64))
    source = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    registration = o3d.pipelines.registration
    pose, result = np.asarray(guess, np.float64), None
    for part in _REACHES:
        result = registration.registration_icp(
            source, target, part * reach, pose, registration.TransformationEstimationPointToPlane()
        )
        pose = np.array(result.transformation)
    assert result is not None
    if result.fitness < LEAST_FITNESS:
        return None
    return Tracked(pose, float(result.fitness), float(result.inlier_rmse))


def back_project(depth: np.ndarray, intrinsics: np.ndarray, stride: int) -> np.ndarray:
    """(H, W) -> points (N, 3) float64 in the camera's frame: every `stride`-th pixel with a finite depth."""
    fx, fy, cx, cy = (float(value) for value in np.asarray(intrinsics).ravel())
    chosen = np.zeros(depth.shape, dtype=bool)
    chosen[::stride, ::stride] = True
    chosen &= np.isfinite(depth)
    row, column = np.nonzero(chosen)
    z = depth[chosen].astype(np.float64)
    return np.stack([(column + 0.5 - cx) / fx * z, (row + 0.5 - cy) / fy * z, z], 1)
