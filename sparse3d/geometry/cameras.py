"""Cameras: where they stand, what they see, and the exact way between pixels and directions.

Axes are OpenCV's (x right, y down, z forward); `camera_to_world` maps the camera's frame to the world's.
A pixel's centre is at +0.5: the image covers [0, width] x [0, height]. Pixels, intrinsics and poses are
float64. Lens models: `sparse3d.geometry.lenses`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import overload

import numpy as np

from sparse3d.geometry import lenses, rigid

# What makes an image of another camera convention ours: OpenGL and Blender look along -z with y up.
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])

# A rotation whose rows are off by more than this is no rotation; below it the nearest one is taken.
ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Lens:
    """A lens model with its coefficients in OpenCV's order (`sparse3d.geometry.lenses`), at most 8 (4 for a
    fisheye); no coefficients and not fisheye: a pinhole."""

    coefficients: tuple[float, ...] = ()
    fisheye: bool = False

    def __post_init__(self):
        most = 4 if self.fisheye else lenses.COEFFICIENTS
        if len(self.coefficients) > most or not np.isfinite(self.coefficients).all():
            raise ValueError(
                f"lens coefficients are {self.coefficients}, expected at most {most} finite ones"
            )


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera: focal lengths and principal point in pixels, image size, lens, pose (4, 4) or (3, 4).

    ValueError for sizes or focal lengths that are not positive and finite, and for a pose that is no rigid
    motion (`checked_pose`).
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    camera_to_world: np.ndarray = field(default_factory=lambda: np.eye(4))
    lens: Lens = field(default_factory=Lens)

    def __post_init__(self):
        if not (np.isfinite([self.fx, self.fy, self.cx, self.cy]).all() and min(self.fx, self.fy) > 0):
            raise ValueError(
                f"fx, fy, cx, cy are {self.fx:g}, {self.fy:g}, {self.cx:g}, {self.cy:g}; "
                "expected finite numbers and focal lengths above 0"
            )
        if self.width < 1 or self.height < 1:
            raise ValueError(f"an image of {self.width} x {self.height} pixels")
        object.__setattr__(self, "camera_to_world", checked_pose(self.camera_to_world))

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3): the matrix K of the pinhole part."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])

    def resized(self, width: int, height: int) -> "Camera":
        """The camera of the same picture resampled to another size, the same field of view."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
            width=width,
            height=height,
        )

    def project(self, points_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`Cameras.project` of this camera alone."""
        return Cameras.stack([self]).project(points_world, np.zeros(len(points_world), dtype=np.int64))

    def unproject(self, pixels: np.ndarray) -> np.ndarray:
        """`Cameras.unproject` of this camera alone."""
        return Cameras.stack([self]).unproject(pixels, np.zeros(len(pixels), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Cameras:
    """N cameras as arrays: `camera_to_world` (N, 4, 4), `focal` (N, 2), `centre` (N, 2), `size` (N, 2) int64
    as width, height, lens `kind` (N,) and `distortion` (N, 8)."""

    camera_to_world: np.ndarray
    focal: np.ndarray
    centre: np.ndarray
    size: np.ndarray
    kind: np.ndarray
    distortion: np.ndarray

    @staticmethod
    def stack(cameras: Sequence[Camera]) -> "Cameras":
        """Cameras side by side; none is legal."""
        pad = [
            c.lens.coefficients + (0.0,) * (lenses.COEFFICIENTS - len(c.lens.coefficients)) for c in cameras
        ]
        return Cameras(
            np.array([c.camera_to_world for c in cameras], dtype=np.float64).reshape(-1, 4, 4),
            np.array([(c.fx, c.fy) for c in cameras], dtype=np.float64).reshape(-1, 2),
            np.array([(c.cx, c.cy) for c in cameras], dtype=np.float64).reshape(-1, 2),
            np.array([(c.width, c.height) for c in cameras], dtype=np.int64).reshape(-1, 2),
            np.array(
                [lenses.FISHEYE if c.lens.fisheye else lenses.PERSPECTIVE for c in cameras], dtype=np.int8
            ),
            np.array(pad, dtype=np.float64).reshape(-1, lenses.COEFFICIENTS),
        )

    def __len__(self) -> int:
        return len(self.camera_to_world)

    @overload
    def __getitem__(self, rows: int) -> Camera: ...
    @overload
    def __getitem__(self, rows: slice | np.ndarray | list[int]) -> "Cameras": ...
    def __getitem__(self, rows):
        """One camera by its number, or some of them."""
        if not isinstance(rows, int | np.integer):
            columns = (self.camera_to_world, self.focal, self.centre, self.size, self.kind, self.distortion)
            return Cameras(*(column[rows] for column in columns))
        fisheye = bool(self.kind[rows] == lenses.FISHEYE)
        coefficients = self.distortion[rows, : 4 if fisheye else lenses.COEFFICIENTS]
        fx, fy, cx, cy = (float(v) for v in (*self.focal[rows], *self.centre[rows]))
        width, height = (int(v) for v in self.size[rows])
        return Camera(
            *(fx, fy, cx, cy, width, height),
            self.camera_to_world[rows],
            Lens(tuple(float(v) for v in coefficients) if coefficients.any() else (), fisheye),
        )

    @property
    def origins(self) -> np.ndarray:
        """(N, 3): where the cameras stand."""
        return self.camera_to_world[:, :3, 3]

    @cached_property
    def limit(self) -> np.ndarray:
        """(N,): up to where each lens is one-to-one (`lenses.one_to_one_limit`)."""
        known: dict[bytes, float] = {}
        limits = []
        for kind, k in zip(self.kind, self.distortion, strict=True):
            key = bytes([kind]) + k.tobytes()
            if key not in known:
                known[key] = lenses.one_to_one_limit(int(kind), k)
            limits.append(known[key])
        return np.array(limits, dtype=np.float64)

    def project(self, points_world: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (M, 3), each seen by the camera of its row (M,) -> pixels (M, 2) and depth (M,), the z in
        the camera's frame. Pixels are NaN for points that the lens does not see (behind a perspective camera,
        or beyond the lens's limit); they may lie outside of the image."""
        pose = self.camera_to_world[rows]
        local = np.asarray(points_world, dtype=np.float64) - pose[:, :3, 3]
        local = np.einsum("mji,mj->mi", pose[:, :3, :3], local)
        plane = lenses.to_plane(local, self.kind[rows], self.distortion[rows], self.limit[rows])
        return plane * self.focal[rows] + self.centre[rows], local[:, 2]

    def unproject(self, pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Pixels (M, 2), each of the camera of its row (M,) -> unit directions (M, 3) in the camera's frame,
        exact to double accuracy; NaN for a pixel that no direction reaches."""
        plane = (np.asarray(pixels, dtype=np.float64) - self.centre[rows]) / self.focal[rows]
        return lenses.to_direction(plane, self.kind[rows], self.distortion[rows], self.limit[rows])

    def resized(self, sizes: np.ndarray) -> "Cameras":
        """The cameras of the same pictures resampled to `sizes` (N, 2) as width, height."""
        ratio = sizes / self.size
        return replace(
            self, focal=self.focal * ratio, centre=self.centre * ratio, size=np.asarray(sizes, dtype=np.int64)
        )


def checked_pose(matrix: np.ndarray) -> np.ndarray:
    """(4, 4) or (3, 4) -> (4, 4) float64 with exactly a rotation: the nearest one to what came.

    ValueError for numbers that are not finite, a reflection, and a rotation block that is off by more than
    `ROTATION_TOLERANCE`.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0, 0, 0, 1]]])
    if matrix.shape != (4, 4):
        raise ValueError(f"the pose has the shape {matrix.shape}, expected (4, 4) or (3, 4)")
    if not np.isfinite(matrix).all():
        raise ValueError("the pose holds numbers that are not finite")
    if np.abs(matrix[3] - [0, 0, 0, 1]).max() > ROTATION_TOLERANCE:
        raise ValueError(f"the last row of the pose is {matrix[3].tolist()}, expected 0 0 0 1")
    rotation = matrix[:3, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if np.linalg.det(rotation) < 0 and error <= 0.1:
        raise ValueError("the pose is a reflection (determinant -1): one of its axes points the wrong way")
    if error > ROTATION_TOLERANCE:
        lengths = ", ".join(f"{length:.4g}" for length in np.linalg.norm(rotation, axis=0))
        raise ValueError(
            f"the rotation of the pose is not orthonormal: off by {error:.2g}, axes of lengths {lengths}"
        )
    u, _, vt = np.linalg.svd(rotation)
    return rigid.rigid(u @ vt, matrix[:3, 3])
