"""The frames that we read from a nuScenes release are those that its development kit gives."""

import numpy as np

from sparse3d.data.nuscenes import NuscenesConfig, NuscenesDataset
from tests.data.nuscenes_folder import write_nuscenes


def test_points_of_ten_sweeps_boxes_and_velocities_are_those_of_the_devkit(run_devkit, tmp_path):
    root = write_nuscenes(tmp_path / "nuscenes")
    categories = ("vehicle.car", "human.pedestrian.child", "static_object.bicycle_rack", "vehicle.bicycle")
    config = NuscenesConfig(root=str(root), version="v1.0-mini", convention="released", classes=categories)
    data = NuscenesDataset(config, "trainval")
    assert run_devkit("nuscenes_frames", root) == {"frames": len(data)} == {"frames": 6}
    with np.load(root / "frames.npz") as found:
        for index, token in enumerate(data.frame_ids):
            frame = data[index]
            points = found[f"points {token}"]  # x, y, z, intensity, lag, the newest scan first, as ours
            assert frame.points.shape == points.shape and len(np.unique(frame.points[:, 4])) == (
                1 if token.endswith("s0") else 10
            )
            np.testing.assert_allclose(frame.points, points, atol=2e-5)
            boxes = found[f"boxes {token}"]  # centre, width, length, height, forward (3), velocity (3)
            np.testing.assert_array_equal([categories[i] for i in frame.labels], found[f"names {token}"])
            np.testing.assert_allclose(frame.boxes[:, :3], boxes[:, :3], atol=1e-5)
            np.testing.assert_allclose(frame.boxes[:, 3:6], boxes[:, [4, 3, 5]], rtol=1e-6)
            yaw = np.arctan2(boxes[:, 7], boxes[:, 6])
            np.testing.assert_allclose(frame.boxes[:, 6], yaw, atol=1e-6)
            # The kit's velocities are of the world.
            turn = frame.extra["world_from_lidar"][:3, :3]
            np.testing.assert_allclose(frame.velocities, (boxes[:, 9:] @ turn)[:, :2], atol=1e-5)
