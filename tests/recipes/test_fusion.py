"""`sparse3d fuse`: folders of depth frames and of sweeps, good and bad, become a mesh or a clear word."""

import numpy as np
import pytest
from PIL import Image

from sparse3d import cli
from sparse3d.io.meshes import read_mesh
from sparse3d.io.pictures import write_depth
from sparse3d.io.points import write_points
from sparse3d.recipes.fusion import FusionConfig, fuse, pose_jumps
from tests.fusion.exact import INTRINSICS, RADIUS, SIZE, around, ball_in_room, surface_distance

VOXEL = 0.04


def _write(folder, poses, told=None):
    """A recording in the style of 7-Scenes; `told` are the poses in the files."""
    folder.mkdir(exist_ok=True)
    fx, fy, cx, cy = INTRINSICS
    np.savetxt(folder / "camera-intrinsics.txt", [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    for number, pose in enumerate(poses):
        depth, color = ball_in_room(pose)
        write_depth(folder / f"frame-{number:06d}.depth.png", depth)
        Image.fromarray(color).save(folder / f"frame-{number:06d}.color.png")
        if told is not None:
            np.savetxt(folder / f"frame-{number:06d}.pose.txt", told[number])
    return folder


@pytest.fixture
def recording(tmp_path):
    poses = around(8)
    return _write(tmp_path / "scene", poses, poses)


def test_depth_frames_become_a_mesh_of_the_scene(recording, tmp_path, capsys):
    out = tmp_path / "mesh.glb"
    assert cli.main(["fuse", str(recording), "--voxel-size", str(VOXEL), "--out", str(out)]) == 0
    mesh = read_mesh(out)
    assert mesh.colors is not None and len(mesh.faces) > 2000
    assert surface_distance(mesh.vertices.astype(float)).mean() < 0.25 * VOXEL
    assert "8 frames" in capsys.readouterr().err


def test_a_folder_for_blocks_changes_nothing(recording, tmp_path):
    command = ["fuse", str(recording), "--voxel-size", str(VOXEL)]
    assert cli.main([*command, "--out", str(tmp_path / "a.ply")]) == 0
    kept = ["--max-blocks", "600", "--blocks-folder", str(tmp_path / "blocks")]
    assert cli.main([*command, "--out", str(tmp_path / "b.ply"), *kept]) == 0
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert not list((tmp_path / "blocks").iterdir())


def test_sweeps_become_a_mesh_of_the_street(tmp_path):
    """A LiDAR that drives along a street of two walls, in SemanticKITTI's layout: camera poses and Tr."""
    root = tmp_path / "sequences" / "00"
    (root / "velodyne").mkdir(parents=True)
    camera_from_lidar = np.array([[0.0, -1, 0, 0.1], [0, 0, -1, 0], [1, 0, 0, -0.2], [0, 0, 0, 1]])
    poses = []
    for number in range(4):
        world_from_lidar = np.eye(4)
        world_from_lidar[:3, 3] = 2.0 * number, 0, 0
        turns, rises = np.meshgrid(np.linspace(-np.pi, np.pi, 900), np.linspace(-0.4, 0.2, 48))
        ways = np.stack([np.cos(turns) * np.cos(rises), np.sin(turns) * np.cos(rises), np.sin(rises)], -1)
        ways = ways.reshape(-1, 3)
        with np.errstate(divide="ignore"):
            to_wall, to_ground = 5 / np.abs(ways[:, 1]), np.where(ways[:, 2] < 0, -1.7 / ways[:, 2], np.inf)
        reach = np.minimum(to_wall, to_ground)
        points = (ways * reach[:, None])[reach < 20]
        points[5] = np.nan
        write_points(root / "velodyne" / f"{number:06d}.bin", np.hstack([points, np.zeros((len(points), 1))]))
        poses.append(camera_from_lidar @ world_from_lidar @ np.linalg.inv(camera_from_lidar))
    np.savetxt(root / "poses.txt", [pose[:3].ravel() for pose in poses])
    (root / "calib.txt").write_text("Tr: " + " ".join(map(str, camera_from_lidar[:3].ravel())))
    assert cli.main(["fuse", str(root), "--voxel-size", "0.2", "--out", str(tmp_path / "street.ply")]) == 0
    v = read_mesh(tmp_path / "street.ply").vertices.astype(float)
    near = v[(np.abs(v[:, 0] - 3) < 6)]
    distance = np.minimum(np.abs(np.abs(near[:, 1]) - 5), np.abs(near[:, 2] + 1.7))
    assert len(near) > 1000 and np.median(distance) < 0.25 * 0.2


def test_poses_that_jump_away_are_left_out_and_told(tmp_path, caplog):
    poses = around(24)
    told = [pose.copy() for pose in poses]
    told[5][:3, 3] += 7
    told[9][0, 0] = np.nan
    folder = _write(tmp_path / "scene", poses, told)
    fused = fuse(folder, FusionConfig(voxel_size=VOXEL))
    assert fused.frames == 22
    assert {skipped.name for skipped in fused.skipped} == {"frame-000005", "frame-000009"}
    assert "frame-000005" in caplog.text and "jumps" in caplog.text and "frame-000009" in caplog.text
    assert surface_distance(fused.mesh.vertices.astype(float)).mean() < 0.25 * VOXEL


def test_jumps_are_told_from_steps():
    poses = [np.eye(4) for _ in range(12)]
    for k, pose in enumerate(poses):
        pose[0, 3] = 0.1 * k
    assert pose_jumps(poses, 0.5) == ([], [])
    poses[4][1, 3] = 3.0
    assert pose_jumps(poses, 0.5) == ([4], [])
    for pose in poses[8:]:
        pose[1, 3] = 9.0  # the way goes on elsewhere: a cut
    assert pose_jumps(poses, 0.5) == ([4], [8])
    poses[2][:3, :3] = np.diag([-1.0, -1.0, 1.0])
    assert pose_jumps(poses, 0.5)[0] == [2, 4]


def test_a_truncated_picture_leaves_its_frame_out(recording):
    path = recording / "frame-000003.depth.png"
    path.write_bytes(path.read_bytes()[:200])
    fused = fuse(recording, FusionConfig(voxel_size=VOXEL))
    assert fused.frames == 7 and fused.skipped[0].name == "frame-000003"


def test_values_that_are_no_depth_are_none(recording, tmp_path):
    holes = np.zeros(SIZE[::-1], dtype=bool)
    holes[10:30, 20:50] = True
    meshes = []
    for value in (0, 65535):
        for path in recording.glob("*.depth.png"):
            with Image.open(path) as image:
                steps = np.array(image)
            steps[holes] = value
            Image.fromarray(steps.astype(np.uint16)).save(path)
        meshes.append(fuse(recording, FusionConfig(voxel_size=VOXEL)).mesh)
    np.testing.assert_array_equal(meshes[0].vertices, meshes[1].vertices)


def test_voxels_that_need_more_memory_than_there_is_are_refused_with_a_size_that_fits(
    recording, capsys, monkeypatch
):
    monkeypatch.setattr("sparse3d.recipes.fusion.free_memory", lambda device: 50_000_000)
    command = ["fuse", str(recording), "--out", str(recording / "m.ply"), "--voxel-size"]
    assert cli.main([*command, "0.002"]) == 2
    said = capsys.readouterr().err
    assert "would need about" in said and "GB" in said and "--max-blocks" in said
    fits = said.split("--voxel-size ")[1].split()[0]
    assert float(fits) > 0.002 and not (recording / "m.ply").exists()
    assert cli.main([*command, fits]) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "no recording: expected depth frames as 7-Scenes"),
        (lambda folder: _write(folder, around(2)), "--track finds them"),
    ],
)
def test_folders_without_frames_or_poses_are_told(tmp_path, capsys, make, message):
    make(tmp_path / "scene")
    assert cli.main(["fuse", str(tmp_path / "scene"), "--out", str(tmp_path / "m.ply")]) == 2
    assert message in capsys.readouterr().err


def test_other_endings_are_refused_before_anything_is_read(tmp_path, capsys):
    assert cli.main(["fuse", str(tmp_path), "--out", str(tmp_path / "mesh.jpg")]) == 2
    assert "a mesh is written as" in capsys.readouterr().err


def test_tracking_finds_the_way_around_the_ball(tmp_path):
    pytest.importorskip("open3d")
    poses = around(60)[:12]
    folder = _write(tmp_path / "scene", poses)
    fused = fuse(folder, FusionConfig(voxel_size=VOXEL, track=True))
    assert fused.frames == 12
    first = np.linalg.inv(poses[0])
    for pose, found in zip(poses, fused.poses.values(), strict=True):
        exact = first @ pose
        # 12 steps of 11 cm: a drift of half a voxel.
        assert np.linalg.norm(found[:3, 3] - exact[:3, 3]) < 0.5 * VOXEL
    assert RADIUS > 0


def test_a_picture_of_another_size_is_brought_to_the_depth(tmp_path):
    """ScanNet's pictures are larger than its depth maps and have intrinsics of their own."""
    for pose_number, pose in enumerate(around(3)):
        for name in ("depth", "color", "pose", "intrinsic"):
            (tmp_path / name).mkdir(exist_ok=True)
        depth, _ = ball_in_room(pose)
        _, color = ball_in_room(pose, (2 * SIZE[0], 2 * SIZE[1]), 2 * INTRINSICS)
        write_depth(tmp_path / f"depth/{pose_number}.png", depth)
        Image.fromarray(color).save(tmp_path / f"color/{pose_number}.png")
        np.savetxt(tmp_path / f"pose/{pose_number}.txt", pose)
    for name, (fx, fy, cx, cy) in (("depth", INTRINSICS), ("color", 2 * INTRINSICS)):
        matrix = [[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        np.savetxt(tmp_path / f"intrinsic/intrinsic_{name}.txt", matrix)
    mesh = fuse(tmp_path, FusionConfig(voxel_size=VOXEL)).mesh
    near = surface_distance(mesh.vertices.astype(float)) < 0.25 * VOXEL
    exact = np.clip(128 + 80 * mesh.vertices[near], 0, 255)
    assert np.abs(exact - mesh.colors[near]).mean() < 80 * VOXEL
