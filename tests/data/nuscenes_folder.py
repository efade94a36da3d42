"""A made-up nuScenes release: two short scenes of a vehicle on a bend, its sensor turned and tilted, with
objects whose motion is known; every scan has points on the objects and on landmarks that stand still."""

import json
from pathlib import Path

import numpy as np

from sparse3d.geometry.rigid import inverse, rigid, rotation_from_euler, transform_points

LIDAR = rigid(rotation_from_euler(0.01, -0.02, -np.pi / 2), np.array([0.94, 0.0, 1.84]))
LANDMARKS = np.array([[30.0, 12, 1], [18, -9, 3], [-8, 20, 2], [45, 2, 0.5]])
CAR, WALKER, RACK, BIKE = 0, 1, 2, 3
NAMES = ("vehicle.car", "human.pedestrian.child", "static_object.bicycle_rack", "vehicle.bicycle")
SIZES = np.array([[4.6, 1.9, 1.7], [0.7, 0.6, 1.3], [6.0, 2.0, 1.5], [1.8, 0.6, 1.4]])  # l, w, h
START = np.array([[20.0, 5, 0.9], [15, -4, 0.7], [25, -12, 0.8], [25.5, -12, 0.7]])
SPEED = np.array([[5.0, 1, 0], [0, 1.2, 0], [0, 0, 0], [0, 0, 0]])
YAW = np.array([np.arctan2(1, 5), np.pi / 2, 0.4, 0.4])
SWEEP = 50_000  # microseconds between scans
SCANS_A_FRAME = 10
START_TIME = 1_532_402_927_000_000


def ego_pose(seconds: float) -> np.ndarray:
    """Six metres a second on a bend, in a map whose origin is far away."""
    yaw = 0.3 + 0.05 * seconds
    place = np.array([600 + 6 * seconds * np.cos(0.3), 1600 + 6 * seconds * np.sin(0.3), 0])
    return rigid(rotation_from_euler(0, 0, yaw), place)


WORLD_FROM_START = ego_pose(0.0)


def objects_at(seconds: float) -> np.ndarray:
    """(4, 3) centres in the world."""
    return transform_points(START + SPEED * seconds, WORLD_FROM_START)


def scan_at(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """(P, 5) in the sensor's frame: the landmarks, 20 points in each object, two on the vehicle."""
    turn = WORLD_FROM_START[:3, :3]
    world = [transform_points(LANDMARKS, WORLD_FROM_START)]
    for centre, size, yaw in zip(objects_at(seconds), SIZES, YAW, strict=True):
        local = rng.uniform(-0.4, 0.4, (20, 3)) * size
        world.append(local @ (turn @ rotation_from_euler(0, 0, yaw)).T + centre)
    points = transform_points(np.concatenate(world), inverse(ego_pose(seconds) @ LIDAR))
    points = np.concatenate([points, [[0.5, -0.5, -1], [-0.9, 0.2, 0]]])
    return np.column_stack([points, np.full(len(points), 51.0), np.arange(len(points)) % 32])


def quaternion(rotation: np.ndarray) -> list[float]:
    """w, x, y, z of a rotation whose trace is above -1."""
    w = np.sqrt(max(0, 1 + np.trace(rotation))) / 2
    vector = [
        rotation[2, 1] - rotation[1, 2],
        rotation[0, 2] - rotation[2, 0],
        rotation[1, 0] - rotation[0, 1],
    ]
    return [float(w), *(float(v / (4 * w)) for v in vector)]


def write_nuscenes(
    root: Path,
    version: str = "v1.0-mini",
    scenes: tuple[str, ...] = ("scene-0061", "scene-0103"),
    frames: int = 3,
) -> Path:
    """Each scene has `frames` key frames half a second apart and the sweeps since the first."""
    rng = np.random.default_rng(0)
    tables: dict[str, list[dict]] = {
        "sensor": [
            {"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"},
            {"token": "cam", "channel": "CAM_FRONT", "modality": "camera"},
        ],
        "calibrated_sensor": [
            {"token": "cs-lidar", "sensor_token": "lidar"} | pose_fields(LIDAR),
            {"token": "cs-cam", "sensor_token": "cam"} | pose_fields(np.eye(4)),
        ],
        "category": [{"token": f"cat{i}", "name": name} for i, name in enumerate(NAMES)],
        "attribute": [
            {"token": "at0", "name": "vehicle.moving"},
            {"token": "at1", "name": "pedestrian.standing"},
        ],
    }
    for name in ("instance", "scene", "sample", "sample_data", "ego_pose", "sample_annotation"):
        tables[name] = []
    for scene in scenes:
        tables["scene"].append({"token": f"t-{scene}", "name": scene})
        tables["instance"] += [
            {"token": f"{scene}-o{k}", "category_token": f"cat{k}"} for k in range(len(NAMES))
        ]
        for number in range((frames - 1) * SCANS_A_FRAME + 1):
            key, seconds = number % SCANS_A_FRAME == 0, number * SWEEP * 1e-6
            time = START_TIME + number * SWEEP
            sample = f"{scene}-s{-(-number // SCANS_A_FRAME)}"
            folder = "samples" if key else "sweeps"
            file = f"{folder}/LIDAR_TOP/{scene}__LIDAR_TOP__{time}.pcd.bin"
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(scan_at(seconds, rng).astype("<f4").tobytes())
            token = f"{scene}-e{number}"
            tables["ego_pose"].append({"token": token, "timestamp": time} | pose_fields(ego_pose(seconds)))
            row = {"sample_token": sample, "ego_pose_token": token, "timestamp": time, "is_key_frame": key}
            tables["sample_data"] += [
                row | {"token": f"{token}-l", "calibrated_sensor_token": "cs-lidar", "filename": file},
                row | {"token": f"{token}-c", "calibrated_sensor_token": "cs-cam", "filename": "none.jpg"},
            ]
            if key:
                tables["sample"].append({"token": sample, "timestamp": time, "scene_token": f"t-{scene}"})
                tables["sample_annotation"] += annotations(scene, sample, seconds)
    for name in ("sample", "sample_data", "sample_annotation"):
        link(tables[name])
    rng.shuffle(tables["sample_data"])
    # The development kit wants these too; we do not.
    some_map = {"token": "map", "log_tokens": [], "filename": f"{version}/map.json"}
    tables |= {"visibility": [{"token": "4", "level": "v80-100"}], "log": [], "map": [some_map]}
    for name, rows in tables.items():
        (root / version).mkdir(parents=True, exist_ok=True)
        (root / version / f"{name}.json").write_text(json.dumps(rows, indent=0))
    return root


def annotations(scene: str, sample: str, seconds: float) -> list[dict]:
    turn = WORLD_FROM_START[:3, :3]
    return [
        {
            "token": f"{sample}-a{k}",
            "sample_token": sample,
            "instance_token": f"{scene}-o{k}",
            "attribute_tokens": [["at0"], ["at1"], [], []][k],
            "translation": centre.tolist(),
            "size": size[[1, 0, 2]].tolist(),
            "rotation": quaternion(turn @ rotation_from_euler(0, 0, yaw)),
            "visibility_token": ["4", "2", "1", ""][k],
            "num_lidar_pts": 20,
            "num_radar_pts": k,
        }
        for k, (centre, size, yaw) in enumerate(zip(objects_at(seconds), SIZES, YAW, strict=True))
    ]


def link(rows: list[dict]) -> None:
    """Tokens of the record before and after: of the same scene, sensor and object."""
    last: dict[object, dict] = {}
    for row in rows:
        chain = [row.get(key) for key in ("scene_token", "calibrated_sensor_token", "instance_token")]
        scene = row["token"].split("-")[1]
        before = last.get((scene, *chain))
        row |= {"prev": before["token"] if before else "", "next": ""}
        if before:
            before["next"] = row["token"]
        last[(scene, *chain)] = row


def pose_fields(pose: np.ndarray) -> dict:
    return {"translation": pose[:3, 3].tolist(), "rotation": quaternion(pose[:3, :3])}
