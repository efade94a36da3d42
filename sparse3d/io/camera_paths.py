"""Camera paths from files: nerfstudio's `camera_path`, and the frames of a transforms.json without photos."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.cameras import OPENGL_TO_OPENCV, Camera
from sparse3d.io.reading import read_text

MOST = 100_000  # cameras of a path


def read_camera_path(path: str | Path) -> list[Camera]:
    """The pinholes of a path, in order.

    Either `camera_path`, a list with `camera_to_world` (16 numbers, row after row) and `fov` (degrees, from
    top to bottom), with `render_width` and `render_height` (nerfstudio's viewers write it); or `frames` with
    `transform_matrix`, and intrinsics `fl_x`, `fl_y`, `cx`, `cy` or `camera_angle_x` with `w` and `h`, in the
    file or in each frame. Matrices have OpenGL's axes. DataError for anything else.
    """
    path = Path(path)
    try:
        table = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(path, f"no JSON: {error}") from error
    rows = next((table[key] for key in ("camera_path", "frames") if key in table), None) if table else None
    if not isinstance(table, dict) or not isinstance(rows, list) or not 0 < len(rows) <= MOST:
        raise DataError(path, "no list 'camera_path' or 'frames' with cameras")
    make = _of_viewer if "camera_path" in table else _of_frame
    cameras = []
    for number, row in enumerate(rows):
        try:
            cameras.append(make(table, row))
        except (KeyError, TypeError, ValueError) as error:
            missing = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(path, f"camera {number}: {missing}") from error
    return cameras


def _of_viewer(table: dict[str, Any], row: dict[str, Any]) -> Camera:
    width, height = int(table["render_width"]), int(table["render_height"])
    pose = np.array(row["camera_to_world"], dtype=float).reshape(4, 4)
    focal = height / 2 / math.tan(math.radians(float(row["fov"])) / 2)
    return Camera(focal, focal, width / 2, height / 2, width, height, pose @ OPENGL_TO_OPENCV)


def _of_frame(table: dict[str, Any], row: dict[str, Any]) -> Camera:
    own = table | row
    width, height = int(own["w"]), int(own["h"])
    if "fl_x" in own:
        fx = float(own["fl_x"])
    else:
        fx = width / 2 / math.tan(float(own["camera_angle_x"]) / 2)
    fy, cx, cy = float(own.get("fl_y", fx)), float(own.get("cx", width / 2)), float(own.get("cy", height / 2))
    pose = np.array(row["transform_matrix"], dtype=float).reshape(-1, 4)
    return Camera(fx, fy, cx, cy, width, height, pose @ OPENGL_TO_OPENCV)
