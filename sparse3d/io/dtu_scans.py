"""What DTU's surfaces are judged by: the scanner's points, observability masks and planes, as its archives
SampleSet and Points have them.

    ObsMask/ObsMask<scan>_10.mat    ObsMask (X, Y, Z), BB (2, 3) corners of its box in mm, Res mm a cube
    ObsMask/Plane<scan>.mat         P (4,): above the table where x P0 + y P1 + z P2 + P3 > 0
    Points/stl/stl<scan>_total.ply  points in mm; the scan's number has three digits here
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io

from sparse3d.errors import DataError
from sparse3d.io.points import drop_invalid, read_points
from sparse3d.io.reading import read_bytes


class DtuScan(NamedTuple):
    """Millimetres: `points` (M, 3) float64, `observed` (X, Y, Z) bool, `box` (2, 3), `cube`, `plane` (4,)."""

    points: np.ndarray
    observed: np.ndarray
    box: np.ndarray
    cube: float
    plane: np.ndarray


def read_dtu_scan(root: str | Path, scan: int) -> DtuScan:
    """Of a folder that holds ObsMask/ and Points/, itself or in a folder `MVS Data` or `MVS_Data`. Raises
    DataError."""
    root = Path(root)
    folders = [root, *(root / name for name in ("MVS Data", "MVS_Data", "SampleSet/MVS Data"))]
    mask = _found(folders, f"ObsMask/ObsMask{scan}_10.mat", root)
    plane_path = _found(folders, f"ObsMask/Plane{scan}.mat", root)
    cloud = _found(folders, f"Points/stl/stl{scan:03d}_total.ply", root)
    values = _matrices(mask, ("ObsMask", "BB", "Res"))
    observed, box, cube = values["ObsMask"], values["BB"], values["Res"].ravel()
    if observed.ndim != 3 or box.shape != (2, 3) or cube.shape != (1,) or not cube[0] > 0:
        raise DataError(
            mask, f"ObsMask {observed.shape}, BB {box.shape} and Res {cube}; expected (X, Y, Z), (2, 3), one"
        )
    plane = _matrices(plane_path, ("P",))["P"].ravel()
    if plane.shape != (4,):
        raise DataError(plane_path, f"P has {plane.size} numbers, expected 4")
    points = drop_invalid(read_points(cloud))[0][:, :3].astype(np.float64)
    if not len(points):
        raise DataError(cloud, "holds no points")
    return DtuScan(points, observed > 0, box.astype(np.float64), float(cube[0]), plane.astype(np.float64))


def _found(folders: list[Path], name: str, root: Path) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise DataError(root, f"has no {name}; it is in DTU's archives SampleSet and Points")


def _matrices(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of a file of Matlab's, up to its version 7.2."""
    read_bytes(path)  # says what is wrong with the path
    try:
        loaded: dict[str, Any] = scipy.io.loadmat(path, variable_names=names)
    except NotImplementedError as error:
        raise DataError(path, f"is of Matlab 7.3: save it as version 7 ({error})") from error
    except Exception as error:
        # What a damaged file raises is nowhere said: TypeError, zlib.error, MatReadError and more were seen.
        raise DataError(path, f"not a file of Matlab's, or a damaged one: {error}") from error
    missing = [name for name in names if name not in loaded]
    if missing:
        raise DataError(path, f"has no {missing[0]}; it has {[n for n in loaded if n[0] != '_']}")
    for name in names:
        if not np.issubdtype(loaded[name].dtype, np.number) and loaded[name].dtype != bool:
            raise DataError(path, f"{name} is of {loaded[name].dtype}, expected numbers")
        if not np.isfinite(loaded[name]).all():
            raise DataError(path, f"{name} is not finite")
    return {name: loaded[name] for name in names}
