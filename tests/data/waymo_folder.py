"""A made-up segment in the parquet files of Waymo's second release. The vehicle drives straight on at 10 m/s
while its top laser turns; that one sees flat ground and a round wall, the front one a pole."""

from pathlib import Path

import numpy as np

from sparse3d.geometry.rigid import inverse, rigid, rotation_from_euler, transform_points

NAME = "1000_20_000_40_000"
TIMES = 1552440195362591 + 100_000 * np.arange(3)
SPEED = 10.0
WORLD = rigid(rotation_from_euler(0, 0, 0.7), np.array([860.0, 15568, -65]))
TOP_HEIGHT, TOP_YAW, ROWS, COLUMNS, WALL = 2.1, 2.6, 16, 72, 30.0
INCLINATIONS = np.array([-0.3, -0.25, -0.2, -0.17, -0.14, -0.12, -0.1, -0.09, *np.linspace(-0.06, 0.04, 8)])
FRONT = rigid(rotation_from_euler(0, 0, 0.1), np.array([4.0, 0, 0.6]))
FRONT_ENDS = (-0.4, 0.4)
BOX = np.array([12.0, 4, 0.8, 4.6, 2.0, 1.6, 0.3])  # a vehicle in the frame of the first time
BOX_SPEED = np.array([3.0, 1.0])  # along the axes of the world


def pose_at(seconds: float) -> np.ndarray:
    return WORLD @ rigid(np.eye(3), np.array([SPEED * seconds, 0, 0]))


def top_image() -> np.ndarray:
    """(16, 72, 4): where a beam points down, ground at z = 0 of the vehicle; else the wall 30 m around."""
    image = np.zeros((ROWS, COLUMNS, 4), dtype=np.float32)
    for row, inclination in enumerate(INCLINATIONS[::-1]):
        ground = TOP_HEIGHT / np.sin(-inclination) if inclination < 0 else np.inf
        image[row, :, 0] = min(ground, WALL / np.cos(inclination))
    image[..., 1], image[..., 2], image[..., 3] = 0.5, 0.25, -1
    image[3, 10, 0] = -1  # no return
    return image


def top_poses(seconds: float) -> np.ndarray:
    """(16, 72, 6): columns are taken one after the other; a turn lasts 0.1 s, its middle is the frame."""
    poses = np.zeros((ROWS, COLUMNS, 6), dtype=np.float64)
    for column in range(COLUMNS):
        place = pose_at(seconds + delay(column))[:3, 3]
        poses[:, column] = [0, 0, 0.7, *place]
    return poses


def delay(column: int) -> float:
    return 0.1 * ((column + 0.5) / COLUMNS - 0.5)


def front_image() -> np.ndarray:
    """(8, 20, 4): a single return in row 2, column 5 at 9 m."""
    image = np.zeros((8, 20, 4), dtype=np.float32)
    image[2, 5] = [9, 2, 0, -1]
    return image


def write_waymo(root: Path, split: str = "training", name: str = NAME, all_lasers: bool = False) -> Path:
    """The lasers TOP and FRONT; the other three, if asked for, are like FRONT."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def write(component: str, columns: dict, types: dict | None = None) -> None:
        path = root / split / component / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        types = types or {}
        arrays = {key: pa.array(values, type=types.get(key)) for key, values in columns.items()}
        parquet.write_table(pa.table(arrays), path, row_group_size=2)

    count = len(TIMES)
    seconds = (TIMES - TIMES[0]) * 1e-6
    key = {"key.segment_context_name": [name] * count, "key.frame_timestamp_micros": TIMES}
    matrix = pa.list_(pa.float64(), 16)
    poses = [pose_at(s).ravel().tolist() for s in seconds]
    transform = "[VehiclePoseComponent].world_from_vehicle.transform"
    write("vehicle_pose", key | {transform: poses}, {transform: matrix})

    top = rigid(rotation_from_euler(0, 0, TOP_YAW), np.array([1.43, 0, TOP_HEIGHT]))
    part = "[LiDARCalibrationComponent]."
    write(
        "lidar_calibration",
        {
            "key.segment_context_name": [name] * 5,
            "key.laser_name": [2, 1, 3, 4, 5],
            f"{part}extrinsic.transform": [(top if i == 1 else FRONT).ravel().tolist() for i in range(5)],
            f"{part}beam_inclination.min": [INCLINATIONS[0] if i == 1 else FRONT_ENDS[0] for i in range(5)],
            f"{part}beam_inclination.max": [INCLINATIONS[-1] if i == 1 else FRONT_ENDS[1] for i in range(5)],
            f"{part}beam_inclination.values": [INCLINATIONS.tolist() if i == 1 else None for i in range(5)],
        },
        {f"{part}extrinsic.transform": matrix},
    )
    lasers = [(int(t), laser) for t in TIMES for laser in ((1, 2, 3, 4, 5) if all_lasers else (1, 2))]
    images = {laser: top_image() if laser == 1 else front_image() for laser in range(1, 6)}
    rows = {
        "key.segment_context_name": [name] * len(lasers),
        "key.frame_timestamp_micros": [t for t, _ in lasers],
        "key.laser_name": [laser for _, laser in lasers],
    }
    part = "[LiDARComponent].range_image_return"
    for number in (1, 2):
        shown = [images[laser] if number == 1 or laser == 1 else None for _, laser in lasers]
        shown = [
            None if i is None else (i if number == 1 else np.where(i[..., :1] == 0, i, i * 0)) for i in shown
        ]
        rows[f"{part}{number}.values"] = [None if i is None else i.ravel().tolist() for i in shown]
        rows[f"{part}{number}.shape"] = [None if i is None else list(i.shape) for i in shown]
    write("lidar", rows, {f"{part}{n}.values": pa.list_(pa.float32()) for n in (1, 2)})
    part = "[LiDARPoseComponent].range_image_return1."
    write(
        "lidar_pose",
        key
        | {
            "key.laser_name": [1] * count,
            f"{part}values": [top_poses(s).ravel().tolist() for s in seconds],
            f"{part}shape": [[ROWS, COLUMNS, 6]] * count,
        },
    )
    write("lidar_box", box_columns(name, seconds))
    return root


def box_columns(name: str, seconds: np.ndarray) -> dict:
    """A moving vehicle, a sign without a speed, and a cyclist of level 2; frame by frame backwards."""
    rows = []
    for i in reversed(range(len(TIMES))):
        moved = BOX[:3] + WORLD[:3, :3].T @ [*(BOX_SPEED * seconds[i]), 0]
        centre = transform_points(transform_points(moved[None], WORLD), inverse(pose_at(seconds[i])))[0]
        rows += [
            (TIMES[i], "car", [*centre, *BOX[3:]], 1, 120, [*BOX_SPEED, 0.0], None),
            (TIMES[i], "sign", [5, 5, 2, 0.1, 0.5, 0.5, 0], 3, 2, [None] * 3, None),
            (TIMES[i], "bike", [8, -3, 1, 1.8, 0.6, 1.7, -2], 4, 3, [0.0, 0.0, None], 2),
        ]
    part = "[LiDARBoxComponent]."
    columns = {
        "key.segment_context_name": [name] * len(rows),
        "key.frame_timestamp_micros": [row[0] for row in rows],
        "key.laser_object_id": [row[1] for row in rows],
        f"{part}type": np.array([row[3] for row in rows], np.int8),
        f"{part}num_lidar_points_in_box": [row[4] for row in rows],
        f"{part}difficulty_level.detection": [row[6] for row in rows],
    }
    names = [f"box.{p}.{axis}" for p in ("center", "size") for axis in "xyz"] + ["box.heading"]
    for k, column in enumerate(names):
        columns[f"{part}{column}"] = [float(row[2][k]) for row in rows]
    for k, axis in enumerate("xyz"):
        columns[f"{part}speed.{axis}"] = [row[5][k] for row in rows]
    return columns
