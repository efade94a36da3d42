"""What KITTI's label and calibration files hold; `sparse3d.io.kitti` reads and writes them."""

from dataclasses import dataclass
from functools import cached_property

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

    def select(self, rows: np.ndarray) -> "KittiObjects":
        """The objects of a boolean mask (M,) or of row indices."""
        return KittiObjects(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class KittiCalibration:
    """`projection_2` (3, 4) P2, `rectification` (4, 4) R0_rect, `camera_from_lidar` (4, 4) Tr_velo_to_cam."""

    projection_2: np.ndarray
    rectification: np.ndarray
    camera_from_lidar: np.ndarray

    @cached_property
    def rectified_from_lidar(self) -> np.ndarray:
        """(4, 4): LiDAR points to the rectified camera frame, R0_rect Tr_velo_to_cam."""
        return self.rectification @ self.camera_from_lidar

    @cached_property
    def lidar_from_rectified(self) -> np.ndarray:
        """(4, 4): the inverse of `rectified_from_lidar`."""
        return np.linalg.inv(self.rectified_from_lidar)
