"""Cameras and rays: project and unproject are each other's inverse, whatever the lens."""

import numpy as np
import pytest
import torch

from sparse3d.geometry import lenses
from sparse3d.geometry.cameras import OPENGL_TO_OPENCV, Camera, Cameras, Lens, checked_pose
from sparse3d.geometry.rays import (
    depth_from_distance,
    distance_from_depth,
    pixel_centres,
    rays_of_image,
    rays_through,
)
from sparse3d.geometry.rigid import rigid, rotation_from_euler

LENSES = {
    "pinhole": Lens(),
    "one radial": Lens((-0.21,)),
    "opencv": Lens((0.0578421, -0.0805099, -0.000980296, 0.00015575)),
    "strong barrel": Lens((-0.35, 0.12, 0.002, -0.003, -0.01)),
    "pincushion": Lens((0.3, 0.1)),
    "rational": Lens((0.9, 0.3, 1e-4, -2e-4, 0.02, 1.1, 0.5, 0.06)),
    "fisheye": Lens((-0.02, 0.01, -0.004, 0.0008), fisheye=True),
    "equidistant": Lens((), fisheye=True),
}
POSE = rigid(rotation_from_euler(np.array(0.3), np.array(-0.7), np.array(2.0)), np.array([1.0, -2.0, 0.5]))


def camera(lens, width=64, height=48):
    return Camera(70.0, 68.0, 31.0, 25.5, width, height, POSE, lens)


@pytest.mark.parametrize("name", LENSES)
def test_a_pixels_ray_goes_through_that_pixel(name):
    cam = camera(LENSES[name])
    pixels = pixel_centres(cam.width, cam.height)
    directions = cam.unproject(pixels)
    assert np.abs(np.linalg.norm(directions, axis=1) - 1).max() < 1e-15 * 4
    for distance in (1e-3, 1.0, 1e4):
        points = directions * distance @ POSE[:3, :3].T + POSE[:3, 3]
        again, depth = cam.project(points)
        # 1e-12 of a focal length of 70; points at a distance of 1e-3 have lost digits to the camera's place.
        assert np.abs(again - pixels).max() < (1e-9 if distance < 1 else 2e-11)
        np.testing.assert_allclose(depth, directions[:, 2] * distance, rtol=0, atol=1e-11 * max(distance, 1))


@pytest.mark.parametrize("name", LENSES)
def test_a_points_pixel_looks_at_that_point(name):
    cam = camera(LENSES[name])
    rng = np.random.default_rng(0)
    local = np.concatenate([rng.uniform(-0.4, 0.4, (500, 2)), np.ones((500, 1))], 1) * rng.uniform(
        0.1, 9, (500, 1)
    )
    pixels, _ = cam.project(local @ POSE[:3, :3].T + POSE[:3, 3])
    np.testing.assert_allclose(
        cam.unproject(pixels), local / np.linalg.norm(local, axis=1, keepdims=True), atol=1e-13
    )


def test_the_jacobian_is_the_derivative():
    k = np.array(LENSES["rational"].coefficients)
    x, y, eps = 0.3, -0.2, 1e-6
    _, _, xx, xy, yy = lenses._distort_one(x, y, k)
    right, left = (np.array(lenses._distort_one(x + d, y, k)[:2]) for d in (eps, -eps))
    down, up = (np.array(lenses._distort_one(x, y + d, k)[:2]) for d in (eps, -eps))
    np.testing.assert_allclose((right - left) / (2 * eps), [xx, xy], atol=1e-9)
    np.testing.assert_allclose((down - up) / (2 * eps), [xy, yy], atol=1e-9)
    np.testing.assert_allclose(
        lenses._distort(np.array([[x, y]]), k[None])[0], lenses._distort_one(x, y, k)[:2]
    )


def test_opencv_worked_by_hand():
    cam = Camera(100, 200, 50, 60, 100, 120, np.eye(4), Lens((0.1, 0.2, 0.01, 0.02)))
    x, y = 0.5, -0.25
    s = x * x + y * y
    radial = 1 + 0.1 * s + 0.2 * s * s
    px = x * radial + 2 * 0.01 * x * y + 0.02 * (s + 2 * x * x)
    py = y * radial + 0.01 * (s + 2 * y * y) + 2 * 0.02 * x * y
    pixel, depth = cam.project(np.array([[1.0, -0.5, 2.0]]))
    np.testing.assert_allclose(pixel[0], [100 * px + 50, 200 * py + 60], rtol=1e-15)
    assert depth[0] == 2


def test_what_lies_beyond_the_fold_has_no_pixel_and_no_ray():
    """x (1 - x^2 / 3) grows up to 1 and reaches 2 / 3; a point at 1.2 would land on the pixel of 0.73."""
    cam = Camera(100, 100, 100, 100, 200, 200, np.eye(4), Lens((-1 / 3,)))
    assert Cameras.stack([cam]).limit[0] == pytest.approx(1)
    pixels, _ = cam.project(np.array([[1.2, 0, 1], [0.7, 0, 1], [0, 0, -1], [0, 0, 0]]))
    assert np.isnan(pixels[[0, 2, 3]]).all() and np.isfinite(pixels[1]).all()
    rays = cam.unproject(np.array([[100 + 66, 100], [100 + 67, 100], [100, 100]]))
    assert np.isfinite(rays[[0, 2]]).all() and np.isnan(rays[1]).all()


def test_a_fisheye_sees_behind_itself():
    cam = Camera(50, 50, 200, 200, 400, 400, np.eye(4), LENSES["equidistant"])
    pixel, depth = cam.project(np.array([[1.0, 0, -1]]))
    assert depth[0] < 0 and pixel[0, 0] == pytest.approx(200 + 50 * 3 * np.pi / 4)
    np.testing.assert_allclose(cam.unproject(pixel), [[np.sqrt(0.5), 0, -np.sqrt(0.5)]], atol=1e-14)
    assert np.isnan(cam.unproject(np.array([[200 + 50 * 3.2, 200]]))).all()  # beyond pi


def test_resizing_keeps_what_a_pixels_edge_sees():
    """The corner of the image is a corner at every size; the centre of four pixels is the centre of one."""
    cam = camera(LENSES["opencv"])
    small = cam.resized(32, 24)
    np.testing.assert_allclose(
        cam.unproject(np.array([[64.0, 48.0]])), small.unproject(np.array([[32.0, 24.0]]))
    )
    np.testing.assert_allclose(cam.unproject(np.array([[2.0, 4.0]])), small.unproject(np.array([[1.0, 2.0]])))


def test_cameras_in_a_stack_are_the_same_alone():
    stack = Cameras.stack([camera(lens) for lens in LENSES.values()])
    pixels = np.tile([[3.5, 7.25]], (len(stack), 1))
    together = stack.unproject(pixels, np.arange(len(stack)))
    for row in range(len(stack)):
        assert (stack[row].unproject(pixels[:1])[0] == together[row]).all()
        assert (stack[[row]].unproject(pixels[:1], np.array([0]))[0] == together[row]).all()
    assert stack[1].lens.coefficients[0] == -0.21 and stack[7].lens.fisheye


def test_rays_of_an_image_start_at_the_camera_and_go_through_the_centres():
    cam = camera(LENSES["opencv"])
    rays = rays_of_image(cam, torch.float64)
    assert rays.origins.shape == (48 * 64, 3) and (rays.origins.numpy() == POSE[:3, 3]).all()
    pixels, _ = cam.project((rays.origins + 3 * rays.directions).numpy())
    np.testing.assert_allclose(pixels.reshape(48, 64, 2)[7, 5], [5.5, 7.5], atol=1e-10)
    one = rays_through(Cameras.stack([cam]), np.array([0]), np.array([[5.5, 7.5]]))
    assert one.directions.dtype == torch.float32
    assert torch.equal(one.directions[0], rays.directions[7 * 64 + 5].float())


def test_distance_and_depth_are_inverses():
    cam = camera(LENSES["strong barrel"])
    depth = np.random.default_rng(0).uniform(1, 5, (48, 64))
    distance = distance_from_depth(depth, cam)
    assert (distance >= depth).all()
    np.testing.assert_allclose(depth_from_distance(distance, cam), depth, rtol=1e-14)


def test_opengl_axes_become_opencv_axes():
    """The camera of an identity in OpenGL looks along -z with y up."""
    cam = Camera(1, 1, 0.5, 0.5, 1, 1, np.eye(4) @ OPENGL_TO_OPENCV)
    ray = rays_of_image(cam).directions[0]
    assert ray.tolist() == [0, 0, -1]
    pixel, _ = cam.project(np.array([[0, 0.25, -1.0]]))  # above
    assert pixel[0, 1] < 0.5


@pytest.mark.parametrize(
    ("pose", "complaint"),
    [
        (np.diag([1.0, 1, -1, 1]), "reflection"),
        (np.diag([2.0, 2, 2, 1]), "not orthonormal"),
        (np.diag([1.0, 1, 1, 2]), "last row"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.eye(3), "shape"),
    ],
)
def test_poses_that_are_none(pose, complaint):
    with pytest.raises(ValueError, match=complaint):
        checked_pose(pose)


def test_a_pose_with_rounded_digits_becomes_a_rotation():
    rough = np.round(POSE, 5)
    rotation = checked_pose(rough)[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-15)
    np.testing.assert_allclose(rotation, POSE[:3, :3], atol=1e-5)
    assert (checked_pose(rough[:3]) == checked_pose(rough)).all()


@pytest.mark.parametrize("bad", [{"fx": 0.0}, {"fy": -1.0}, {"cx": np.nan}, {"width": 0}])
def test_cameras_that_are_none(bad):
    with pytest.raises(ValueError):
        Camera(**{"fx": 1.0, "fy": 1.0, "cx": 0.5, "cy": 0.5, "width": 1, "height": 1} | bad)
    with pytest.raises(ValueError, match="coefficients"):
        Lens((0.1,) * 5, fisheye=True)
