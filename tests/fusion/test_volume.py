"""What is fused of exact depth is the surface: meshes, ray casts, colours, weights, order, bad input."""

import numpy as np
import pytest
import torch

from sparse3d.fusion.volume import TSDFVolume
from tests.fusion.exact import INTRINSICS, RADIUS, SIZE, around, ball_in_room, colors_at, surface_distance

VOXEL = 0.04


@pytest.fixture(scope="module")
def fused():
    volume = TSDFVolume(VOXEL)
    for pose in around(8):
        depth, color = ball_in_room(pose)
        volume.integrate(depth, INTRINSICS, pose, color)
    return volume


@pytest.fixture(scope="module")
def mesh(fused):
    return fused.mesh()


def test_the_mesh_of_exact_depth_lies_within_a_quarter_voxel_on_average(mesh):
    distance = surface_distance(mesh.vertices.astype(float))
    assert len(mesh.faces) > 2000 and distance.mean() < 0.25 * VOXEL
    # The far ends: silhouettes, where a point's pixel sees past the ball.
    assert np.quantile(distance, 0.95) < VOXEL


def test_faces_look_at_the_camera(mesh):
    middle = mesh.vertices[mesh.faces].mean(1)
    near = np.linalg.norm(middle, axis=1) < 2 * RADIUS
    outwards = (mesh.face_normals[near] * middle[near]).sum(1) > 0
    assert near.sum() > 500 and outwards.mean() > 0.99


def test_colors_are_those_of_the_place(mesh):
    near = surface_distance(mesh.vertices.astype(float)) < 0.25 * VOXEL
    error = np.abs(colors_at(mesh.vertices[near]).astype(int) - mesh.colors[near])
    assert error.mean() < 80 * VOXEL  # of a step of one voxel


def test_ray_casts_see_the_exact_depth_within_half_a_voxel(fused):
    for pose in around(3, distance=1.0, height=0.1):
        exact, color = ball_in_room(pose)
        seen = fused.ray_cast(INTRINSICS, pose, SIZE)
        there = np.isfinite(seen.depth)
        # Silhouettes see the ball or what is behind it.
        smooth = there & (np.abs(seen.depth - exact) < 5 * VOXEL)
        assert there.mean() > 0.8 and smooth.sum() > 0.97 * there.sum()
        error = np.abs(seen.depth - exact)[smooth]
        assert np.median(error) < 0.2 * VOXEL and np.quantile(error, 0.9) < 0.5 * VOXEL
        assert seen.color is not None
        # A step of one voxel; silhouettes mix what is before and behind.
        assert np.median(np.abs(seen.color.astype(int) - color)[smooth]) < 80 * VOXEL


def test_normals_of_ray_casts_are_those_of_the_ball(fused):
    pose = around(1)[0]
    seen = fused.ray_cast(INTRINSICS, pose, SIZE)
    row, column = SIZE[1] // 2, SIZE[0] // 2
    patch = (slice(row - 8, row + 8), slice(column - 8, column + 8))
    z = seen.depth[patch]
    u, v = np.meshgrid(np.arange(column - 8, column + 8) + 0.5, np.arange(row - 8, row + 8) + 0.5)
    camera = np.stack(
        [(u - INTRINSICS[2]) / INTRINSICS[0] * z, (v - INTRINSICS[3]) / INTRINSICS[1] * z, z], -1
    )
    places = camera @ pose[:3, :3].T + pose[:3, 3]
    exact = places / np.linalg.norm(places, axis=-1, keepdims=True)
    assert (exact * seen.normals[patch]).sum(-1).mean() > 0.98  # 11 degrees


def test_frames_in_another_order_give_the_same_surface_up_to_rounding():
    frames = [(pose, *ball_in_room(pose)) for pose in around(3)]
    volumes = [TSDFVolume(VOXEL), TSDFVolume(VOXEL)]
    for volume, order in zip(volumes, (frames, frames[::-1]), strict=True):
        for pose, depth, color in order:
            volume.integrate(depth, INTRINSICS, pose, color)
    there, back = (volume.mesh() for volume in volumes)
    np.testing.assert_array_equal(there.faces, back.faces)
    # A difference of rounding moves a vertex by its part of a voxel, times the slope of the values.
    np.testing.assert_allclose(there.vertices, back.vertices, atol=1e-3 * VOXEL)


def test_a_weight_counts_as_that_many_frames():
    pose = around(1)[0]
    near, _ = ball_in_room(pose)
    volumes = []
    for shares, repeats in ((3.0, 1), (1.0, 3)):
        volume = TSDFVolume(VOXEL, colors=False)
        for _ in range(repeats):
            volume.integrate(near, INTRINSICS, pose, weights=np.full_like(near, shares))
        volume.integrate(near + 0.03, INTRINSICS, pose)
        volumes.append(volume.mesh())
    np.testing.assert_allclose(volumes[0].vertices, volumes[1].vertices, atol=1e-5)


def test_what_too_few_frames_saw_is_left_out(fused):
    assert len(fused.mesh(min_weight=3.0).faces) < 0.95 * len(fused.mesh().faces)
    assert len(fused.mesh(min_weight=9.0).faces) == 0


def test_values_that_are_no_depth_change_nothing():
    pose = around(1)[0]
    depth, color = ball_in_room(pose)
    holes = np.zeros(depth.shape, dtype=bool)
    holes[::3, 1::2] = True
    meshes = []
    for bad in (0.0, np.nan, -1.0, np.inf, 65.535):
        volume = TSDFVolume(VOXEL, max_depth=20.0)
        volume.integrate(np.where(holes, np.float32(bad), depth), INTRINSICS, pose, color)
        meshes.append(volume.mesh())
    for other in meshes[1:]:
        np.testing.assert_array_equal(other.vertices, meshes[0].vertices)
    assert len(meshes[0].faces) > 0


def test_a_frame_without_any_depth_is_nothing():
    volume = TSDFVolume(VOXEL)
    volume.integrate(np.zeros((4, 5), np.float32), INTRINSICS, np.eye(4))
    assert len(volume.mesh().faces) == 0
    assert not np.isfinite(volume.ray_cast(INTRINSICS, np.eye(4), (5, 4)).depth).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera_to_world": np.full((4, 4), np.nan)}, "camera_to_world is not finite"),
        ({"camera_to_world": 2 * np.eye(4)}, "no rotation"),
        ({"intrinsics": [0.0, 1.0, 2.0, 2.0]}, "intrinsics are"),
        ({"color": np.zeros((9, 9, 3), np.uint8)}, "picture has shape"),
        ({"color": np.zeros((4, 5, 3))}, "colours are uint8"),
        ({"depth": np.ones((4, 5, 1), np.float32)}, "depth has shape"),
        ({"weights": np.ones((2, 2), np.float32)}, "pixel_weights has shape"),
    ],
)
def test_bad_frames_are_refused_by_name(change, message):
    frame = {"depth": np.ones((4, 5), np.float32), "intrinsics": INTRINSICS, "camera_to_world": np.eye(4)}
    with pytest.raises(ValueError, match=message):
        TSDFVolume(VOXEL).integrate(**{**frame, **change})


def test_sizes_that_make_no_sense_are_refused():
    for wrong in (
        {"voxel_size": 0.0},
        {"voxel_size": 0.1, "truncation": -1.0},
        {"voxel_size": 0.1, "max_blocks": 9},
    ):
        with pytest.raises(ValueError):
            TSDFVolume(**wrong)
    with pytest.raises(ValueError, match="further away than blocks have keys"):
        TSDFVolume(1e-7).integrate(np.ones((1, 1), np.float32), INTRINSICS, np.eye(4))


def test_blocks_that_do_not_fit_into_memory_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("sparse3d.fusion.blocks.free_memory", lambda device: 10_000_000)
    with pytest.raises(ValueError, match="use larger voxels"):
        TSDFVolume(VOXEL / 4).integrate(ball_in_room(around(1)[0])[0], INTRINSICS, around(1)[0])


def test_a_mesh_that_follows_changes_is_the_mesh():
    volume = TSDFVolume(VOXEL)
    for pose in around(4):
        volume.integrate(ball_in_room(pose)[0], INTRINSICS, pose, ball_in_room(pose)[1])
        changed, whole = volume.changed_mesh(), volume.mesh()
        np.testing.assert_array_equal(changed.vertices, whole.vertices)
        np.testing.assert_array_equal(changed.colors, whole.colors)
        np.testing.assert_array_equal(np.unique(changed.faces, axis=0), np.unique(whole.faces, axis=0))
        assert len(changed.faces) == len(whole.faces)
    again = volume.changed_mesh()
    np.testing.assert_array_equal(again.vertices, changed.vertices)


def test_only_what_changed_is_looked_at_again(monkeypatch):
    from sparse3d.fusion import extraction

    volume, looked = TSDFVolume(VOXEL, colors=False), []
    plain = extraction.extract_blocks
    monkeypatch.setattr(
        extraction, "extract_blocks", lambda values, *rest: looked.append(len(values)) or plain(values, *rest)
    )
    for pose in around(2):
        volume.integrate(ball_in_room(pose)[0], INTRINSICS, pose)
    volume.changed_mesh()
    small = np.zeros(SIZE[::-1], np.float32)
    small[30:34, 40:44] = 0.6
    volume.integrate(small, INTRINSICS, around(2)[0])
    volume.changed_mesh()
    assert looked[1] < 0.2 * looked[0]


def test_sweeps_of_a_ball_give_the_ball():
    rng = np.random.default_rng(0)
    volume = TSDFVolume(0.05, colors=True)
    for origin in ([2.0, 0.1, 0.3], [-1.0, 1.8, 0.2], [-1.0, -1.8, -0.2], [0.1, 0.0, 2.2], [0.0, 0.1, -2.1]):
        points = rng.normal(size=(6000, 3))
        points *= RADIUS / np.linalg.norm(points, axis=1, keepdims=True)
        seen = ((np.array(origin) - points) * points).sum(1) > 0.05
        points[7] = np.nan
        volume.integrate_rays(points[seen], np.array(origin), colors_at(np.nan_to_num(points[seen])))
    mesh = volume.mesh()
    off = np.abs(np.linalg.norm(mesh.vertices, axis=1) - RADIUS)
    # Rays that graze tell of a surface across them where there is none: hence not a tenth.
    assert len(mesh.faces) > 1000 and np.median(off) < 0.4 * 0.05
    assert np.abs(colors_at(mesh.vertices).astype(int) - mesh.colors).mean() < 6


def _wall(x, half, count):
    """Points of a square across the x axis."""
    places = np.linspace(-half, half, count)
    y, z = np.meshgrid(places, places)
    return np.stack([np.full(y.size, x), y.ravel(), z.ravel()], 1)


def test_carving_removes_a_wall_that_is_looked_through_and_nothing_else():
    origin, near, far = [0.02, 0.013, -0.017], _wall(1.5, 0.5, 50), _wall(2.5, 1.2, 110)
    for carving in (0.0, 1.0):
        volume = TSDFVolume(0.1, colors=False)
        volume.integrate_rays(near, origin)
        count = volume.blocks.count
        volume.integrate_rays(far, origin, carving=carving)
        x = volume.mesh().vertices[:, 0]
        left, behind = (np.abs(x - 1.5) < 0.5).sum(), np.abs(x - 2.5)[x > 2.0]
        assert len(behind) > 100 and behind.max() < 0.1
        assert left == 0 if carving else left > 50
    fresh = TSDFVolume(0.1, colors=False)
    fresh.integrate_rays(far, origin)
    assert volume.blocks.count <= count + fresh.blocks.count  # rays make no blocks on their free way


def test_carving_leaves_what_stays():
    rng = np.random.default_rng(0)
    off = []
    for carving in (0.0, 1.0):
        volume = TSDFVolume(0.1, colors=False)
        for place in range(4):  # a sensor that drives on, 1.7 m above a plane that its rays graze
            way = np.stack([np.ones(3000), *rng.uniform([-0.4, -0.3], [0.4, -0.12], (3000, 2)).T], 1)
            origin = np.array([0.5 * place, 0.03, 1.7])
            volume.integrate_rays(origin - 1.7 * way / way[:, 2:], origin, carving=carving)
        z = volume.mesh().vertices[:, 2]
        off.append((len(z), z.mean(), np.quantile(np.abs(z), 0.9)))
    (_, mean, most), (count, carved_mean, carved_most) = off
    # Points under the plane but within a voxel of a ray: a fifth of a voxel.
    assert count > 500 and abs(carved_mean - mean) < 0.02 and carved_most < most + 0.02


def test_carving_with_a_folder_keeps_to_its_budget(tmp_path):
    origin, walls = [0.02, 0.013, -0.017], [_wall(1.5, 0.5, 40), _wall(2.5, 0.6, 40)]
    volume = TSDFVolume(0.1, colors=False, max_blocks=40, folder=tmp_path / "blocks")
    for wall in walls * 2:
        volume.integrate_rays(wall, origin, carving=1.0)
        assert volume.blocks.count <= 40
    volume.close()


@pytest.mark.numba_bodies
def test_any_number_of_threads_gives_the_same_bits():
    import numba

    found = []
    available = numba.get_num_threads()
    try:
        for threads in {1, available}:
            numba.set_num_threads(threads)
            volume = TSDFVolume(VOXEL)
            for pose in around(2):
                volume.integrate(*ball_in_room(pose)[:1], INTRINSICS, pose, ball_in_room(pose)[1])
            seen = volume.ray_cast(INTRINSICS, around(1)[0], SIZE)
            found.append((volume.mesh().vertices, seen.depth, seen.normals))
    finally:
        numba.set_num_threads(available)
    for one, other in zip(found[0], found[-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_tensors_are_taken_as_arrays_are(fused):
    pose = around(8)[0]
    depth, color = ball_in_room(pose)
    volumes = [TSDFVolume(VOXEL), TSDFVolume(VOXEL)]
    volumes[0].integrate(depth, INTRINSICS, pose, color)
    volumes[1].integrate(*(torch.from_numpy(x) for x in (depth, INTRINSICS, pose, color)))
    np.testing.assert_array_equal(volumes[0].mesh().vertices, volumes[1].mesh().vertices)
