"""The KITTI object benchmark's files: velodyne scans, calibration, labels.

Camera frame: x right, y down, z forward; a box stands on its `location` (bottom centre) and `rotation_y` turns about
the camera's +y. LiDAR frame: x forward, y left, z up. Format: Geiger et al., "Are we ready for autonomous driving?"
(CVPR 2012), development kit readme.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class KittiObjects:
    """The rows of one label (or result) file, one array a column; DontCare rows stay in.

    `names` (M,) str, `truncated` (M,) float in [0, 1], `occluded` (M,) int 0..3, `alpha` (M,) rad,
    `boxes_image` (M, 4) left, top, right, bottom in pixels, `dimensions` (M, 3) h, w, l in metres,
    `locations` (M, 3) bottom centre in the rectified camera frame, `rotation_y` (M,) rad,
    `scores` (M,): 1 for ground truth.
    """

    names: np.ndarray
    truncated: np.ndarray
    occluded: np.ndarray
    alpha: np.ndarray
    boxes_image: np.ndarray
    dimensions: np.ndarray
    locations: np.ndarray
    rotation_y: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class KittiCalibration:
    """`projection_2` (3, 4) P2, `rectification` (4, 4) R0_rect, `camera_from_lidar` (4, 4) Tr_velo_to_cam."""

    projection_2: np.ndarray
    rectification: np.ndarray
    camera_from_lidar: np.ndarray
