"""A made-up drive of KITTI's raw recordings: northwards at 10 m/s, later turned, with two tracklets."""

from pathlib import Path

import numpy as np

from sparse3d.geometry.rigid import inverse, rigid, rotation_from_euler, transform_points

VELO_FROM_IMU = rigid(rotation_from_euler(0.01, -0.005, 0.02), np.array([-0.81, 0.32, -0.8]))
LATITUDE, LONGITUDE = 49.0, 8.4
DEGREE = 6378137.0 * np.pi / 180  # metres on the equator
LANDMARKS = np.array([[30.0, 12, 1], [18, -9, 3], [-8, 20, 2]])
CAR_SIZE, CAR_START, CAR_SPEED = np.array([4.0, 1.7, 1.5]), np.array([20.0, 3, -0.5]), np.array([6.0, 0, 0])


def imu_pose(frame: int) -> np.ndarray:
    """In the frame of the first IMU: forward and a little uphill, turning left."""
    return rigid(rotation_from_euler(0, 0, 0.02 * frame), np.array([1.0 * frame, 0, 0.05 * frame]))


def velo_pose(frame: int) -> np.ndarray:
    return imu_pose(frame) @ inverse(VELO_FROM_IMU)


def car_at(frame: int) -> np.ndarray:
    """Its centre and yaw in the LiDAR frame: (4,)."""
    pose = inverse(velo_pose(frame))
    centre = transform_points((CAR_START + CAR_SPEED * 0.1 * frame)[None], pose)[0]
    return np.append(centre, np.arctan2(pose[1, 0], pose[0, 0]))


def write_kitti_raw(root: Path, frames: int = 4, labelled: bool = True) -> Path:
    day = root / "2011_09_26"
    drive = day / "2011_09_26_drive_0001_sync"
    (drive / "velodyne_points/data").mkdir(parents=True)
    (drive / "oxts/data").mkdir(parents=True)
    rotation = " ".join(f"{x:.12e}" for x in VELO_FROM_IMU[:3, :3].ravel())
    translation = " ".join(f"{x:.12e}" for x in VELO_FROM_IMU[:3, 3])
    (day / "calib_imu_to_velo.txt").write_text(
        f"calib_time: 25-May-2012 16:47:16\nR: {rotation}\nT: {translation}\n"
    )
    rng = np.random.default_rng(0)
    times, poses = [], []
    for frame in range(frames):
        x, _, z = imu_pose(frame)[:3, 3]
        # The IMU's x points north: yaw of 90 degrees from east.
        north = LATITUDE + x / DEGREE
        numbers = [north, LONGITUDE, 110 + z, 0, 0, np.pi / 2 + 0.02 * frame, *np.zeros(24)]
        (drive / f"oxts/data/{frame:010d}.txt").write_text(" ".join(f"{n:.13f}" for n in numbers))
        nanoseconds = 951_199_337 + frame * 10**8
        times.append(f"2011-09-26 13:02:{25 + nanoseconds // 10**9}.{nanoseconds % 10**9:09d}")
        centre, yaw = car_at(frame)[:3], car_at(frame)[3]
        car = (rng.uniform(-0.45, 0.45, (30, 3)) * CAR_SIZE) @ rotation_from_euler(0, 0, yaw).T + centre
        points = np.concatenate([transform_points(LANDMARKS, inverse(velo_pose(frame))), car])
        cloud = np.column_stack([points, np.full(len(points), 0.3)]).astype("<f4")
        (drive / f"velodyne_points/data/{frame:010d}.bin").write_bytes(cloud.tobytes())
        place = {
            "tx": centre[0],
            "ty": centre[1],
            "tz": centre[2] - CAR_SIZE[2] / 2,
            "rx": 0,
            "ry": 0,
            "rz": yaw,
        }
        poses.append(
            "<item>" + "".join(f"<{k}>{v:.9f}</{k}>" for k, v in place.items()) + "<state>2</state></item>"
        )
    (drive / "velodyne_points/timestamps.txt").write_text("\n".join(times) + "\n")
    if labelled:
        (drive / "tracklet_labels.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8" standalone="yes" ?>\n<boost_serialization version="9">'
            f'<tracklets class_id="0"><count>2</count>{item("Car", CAR_SIZE, 0, poses)}'
            f"{item('Van', CAR_SIZE, 2, poses[2:3])}</tracklets></boost_serialization>\n"
        )
    return root


def item(name: str, size: np.ndarray, first: int, poses: list[str]) -> str:
    length, width, height = size
    return (
        f"<item><objectType>{name}</objectType><h>{height}</h><w>{width}</w><l>{length}</l>"
        f"<first_frame>{first}</first_frame><poses><count>{len(poses)}</count>{''.join(poses)}</poses></item>"
    )
