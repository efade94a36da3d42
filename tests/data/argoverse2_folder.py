"""A made-up log of Argoverse 2 in the released files: a vehicle on a straight road that climbs a little, one
car that overtakes, one pedestrian at rest, landmarks."""

from pathlib import Path

import numpy as np

from sparse3d.geometry.rigid import inverse, rigid, rotation_from_euler, transform_points
from tests.data.nuscenes_folder import quaternion

TIMES = 315966253660357000 + np.array([0, 99_800_000, 200_100_000, 300_000_000])
LANDMARKS = np.array([[30.0, 12, 1], [18, -9, 3], [-8, 20, 2], [45, 2, 0.5]])
SIZES = np.array([[4.5, 1.9, 1.6], [0.6, 0.7, 1.7], [1.0, 0.4, 0.8]])
START = np.array([[20.0, 3, 0.8], [12, -6, 0.85], [9, 7, 0.4]])
SPEED = np.array([[12.0, 0, 0], [0, 0, 0], [1, 1, 0]])
CATEGORIES = ("REGULAR_VEHICLE", "PEDESTRIAN", "ANIMAL")
WORLD = rigid(rotation_from_euler(0.0, 0.0, 2.2), np.array([5172.0, 2419, 66.0]))


def pose_at(seconds: float) -> np.ndarray:
    return WORLD @ rigid(rotation_from_euler(0.01, -0.02, 0), np.array([8 * seconds, 0, 0.2 * seconds]))


def centres_at(seconds: float) -> np.ndarray:
    """In the city."""
    return transform_points(START + SPEED * seconds, WORLD)


def write_feather(path: Path, columns: dict) -> None:
    import pyarrow
    import pyarrow.feather

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.feather.write_feather(pyarrow.table(columns), path)


def pose_columns(poses: list[np.ndarray]) -> dict:
    rows = np.array([[*quaternion(pose[:3, :3]), *pose[:3, 3]] for pose in poses]).reshape(-1, 7)
    return dict(zip(("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m"), rows.T, strict=True))


def write_argoverse2(root: Path, logs: tuple[str, ...] = ("log-a", "log-b"), split: str = "val") -> Path:
    """Each box holds 25 points a scan; half floats, as released."""
    rng = np.random.default_rng(0)
    for log in logs:
        folder, rows = root / split / log, []
        for time in TIMES:
            seconds = float(time - TIMES[0]) * 1e-9
            pose = pose_at(seconds)
            points = [transform_points(transform_points(LANDMARKS, WORLD), inverse(pose))]
            for k, centre in enumerate(transform_points(centres_at(seconds), inverse(pose))):
                points.append(rng.uniform(-0.35, 0.35, (25, 3)) * SIZES[k] + centre)
                box = rigid(np.eye(3), centre)
                rows.append(
                    {"timestamp_ns": time, "track_uuid": f"{log}-{k}", "category": CATEGORIES[k]}
                    | {name: column[0] for name, column in pose_columns([box]).items()}
                    | dict(zip(("length_m", "width_m", "height_m"), SIZES[k], strict=True))
                    | {"num_interior_pts": 25}
                )
            xyz = np.concatenate(points).astype(np.float16)
            count = len(xyz)
            write_feather(
                folder / "sensors/lidar" / f"{time}.feather",
                {
                    "x": xyz[:, 0],
                    "y": xyz[:, 1],
                    "z": xyz[:, 2],
                    "intensity": np.full(count, 51, np.uint8),
                    "laser_number": np.zeros(count, np.uint8),
                    "offset_ns": np.zeros(count, np.int32),
                },
            )
        order = rng.permutation(len(rows))
        write_feather(
            folder / "annotations.feather", {name: [rows[i][name] for i in order] for name in rows[0]}
        )
        between = np.sort(np.concatenate([TIMES, TIMES - 31_000_000]))
        poses = [pose_at(float(time - TIMES[0]) * 1e-9) for time in between]
        write_feather(folder / "city_SE3_egovehicle.feather", {"timestamp_ns": between} | pose_columns(poses))
    return root
