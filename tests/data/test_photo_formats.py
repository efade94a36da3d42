"""Readers of others' layouts: all of them give the ring of cameras that `photo_folders` wrote, and say what
is wrong with what cannot be."""

import json
import struct

import numpy as np
import pytest

from sparse3d.data.photos import FORMATS, open_photos
from sparse3d.errors import DataError
from sparse3d.geometry.rays import distance_from_depth
from sparse3d.io.dtu import decompose_projection
from tests.data.photo_folders import (
    COLMAP_LENSES,
    FOCAL,
    HEIGHT,
    POINTS,
    SPHERE,
    WIDTH,
    blender_folder,
    colmap_folder,
    idr_folder,
    llff_folder,
    mvsnet_folder,
    picture,
    projection,
    rgbd_folder,
    ring_pose,
    spare_folder,
    tiny_nerf_file,
    transforms_folder,
    write_image,
)


def check_camera(camera, place, model_focal=True):
    np.testing.assert_allclose(camera.camera_to_world, ring_pose(place), atol=1e-9)
    assert camera.fx == pytest.approx(FOCAL) and camera.cx == pytest.approx(11.5)
    assert camera.cy == pytest.approx(8.25)
    if model_focal:
        assert camera.fy == pytest.approx(FOCAL + 1)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("model", [m for m in COLMAP_LENSES if m != "FOV"])
def test_colmap(tmp_path, model, binary):
    photos = open_photos(colmap_folder(tmp_path, 3, model, binary))
    assert photos.capture.format == "colmap"
    assert photos.names == ("6.png", "7.png", "8.png")  # images 3, 2, 1: in the order of names
    _, focals, rest = COLMAP_LENSES[model]
    for row, image in enumerate((3, 2, 1)):
        camera = photos.cameras[row]
        check_camera(camera, image / 3, focals == 2)
        assert camera.lens.fisheye == ("FISHEYE" in model)
        assert camera.lens.coefficients[: len(rest)] == rest and not any(
            camera.lens.coefficients[len(rest) :]
        )
        assert (photos.pixels(row) == picture(image)).all()
    points = photos.capture.points
    assert points is not None
    assert [tuple(p) for p in points.positions] == [POINTS[7][0], POINTS[2][0]]
    assert (points.colors == [10, 20, 30]).all() and (points.error == 0.5).all()
    seen = {
        (int(p), photos.names[v], *pixel)
        for p, v, pixel in zip(points.track_point, points.track_view, points.track_pixel, strict=True)
    }
    expected = {
        (row, f"{9 - image}.png", image + 0.25, feature + 0.5)
        for row, (_, track) in enumerate(POINTS.values())
        for image, feature in track
    }
    assert seen == expected


def test_colmap_with_masks_smaller_copies_and_missing_photos(tmp_path):
    root = colmap_folder(tmp_path)
    (root / "images" / "7.png").unlink()
    write_image(root / "masks" / "8.png.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    for name in ("6", "8"):
        write_image(root / "images_2" / f"{name}.jpg", picture(0, WIDTH // 2, HEIGHT // 2))
    photos = open_photos(root)
    assert [s.name for s in photos.skipped] == ["7.png"]
    assert [view.mask is None for view in photos.views] == [True, False]
    assert photos.capture.points is not None and set(photos.capture.points.track_view) == {0, 1}
    half = open_photos(root, scale=0.5)
    assert half.views[0].image.parent.name == "images_2" and half.cameras[0].cx == 5.75


@pytest.mark.parametrize("part", ["cameras.bin", "images.bin", "points3D.bin"])
def test_colmap_cut_anywhere(tmp_path, part):
    root = colmap_folder(tmp_path)
    path = root / "sparse" / "0" / part
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="truncated") as caught:
            open_photos(root)
        assert str(caught.value).startswith(str(path)) and "at byte" in str(caught.value)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError, match="1 bytes too many"):
        open_photos(root)
    path.write_bytes(struct.pack("<Q", 2**63) + whole[8:])  # would ask for all memory
    with pytest.raises(DataError, match="truncated"):
        open_photos(root)


@pytest.mark.parametrize(
    ("part", "old", "new", "complaint"),
    [
        ("cameras.txt", "PINHOLE", "SIMPLE_PINHOLE", "camera 4: SIMPLE_PINHOLE has 3 parameters, here are 4"),
        ("cameras.txt", "PINHOLE", "FOV", "lens model FOV is not supported.*image_undistorter"),
        ("cameras.txt", "30.0", "-30.0", "camera 4: fx.*above 0"),
        ("cameras.txt", "30.0", "nan", "camera 4: fx"),
        ("cameras.txt", "24", "2x4", "line 2: '2x4' is not a whole number"),
        ("cameras.txt", " 24 16 30.0 31.0 11.5 8.25", "", "line 2: 2 values"),
        ("images.txt", "4 8.png", "5 8.png", "'8.png' has the camera 5, which is not there"),
        ("images.txt", "4 8.png", "8.png", "line 2: 9 values, expected 10"),
        ("images.txt", "5.0 6.0 -1", "5.0 6.0", "line 3: 8 values, expected three"),
        ("images.txt", "5.0 6.0", "5.0 six", "line 3: could not convert"),
        ("points3D.txt", "10 20 30", "10 20 300", "line 2: colour 10 20 300"),
        ("points3D.txt", "0.1 0.2 0.3", "inf 0.2 0.3", "not finite"),
        ("points3D.txt", "0.1 0.2 0.3 10 20 30 0.5", "0.1", "line 2: .* values, expected at least 8"),
    ],
)
def test_colmap_text_that_cannot_be(tmp_path, part, old, new, complaint):
    root = colmap_folder(tmp_path, binary=False)
    path = root / "sparse" / "0" / part
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=complaint) as caught:
        open_photos(root)
    assert str(caught.value).startswith(str(path))


def test_colmap_quaternion_of_zeros_and_unknown_lenses(tmp_path):
    root = colmap_folder(tmp_path)
    images, cameras = (root / "sparse" / "0" / f"{n}.bin" for n in ("images", "cameras"))
    whole = images.read_bytes()
    images.write_bytes(whole[:12] + bytes(32) + whole[44:])
    with pytest.raises(DataError, match="'8.png': a quaternion has length 0"):
        open_photos(root)
    images.write_bytes(whole)
    whole = cameras.read_bytes()
    for number, name in ((7, "FOV"), (10, "THIN_PRISM_FISHEYE"), (77, "number 77")):
        cameras.write_bytes(whole[:12] + struct.pack("<i", number) + whole[16:])
        with pytest.raises(DataError, match=f"lens model {name} is not supported"):
            open_photos(root)


def test_what_colmap_itself_writes(tmp_path):
    """The reference writer, where it is installed."""
    pycolmap = pytest.importorskip("pycolmap")
    root = colmap_folder(tmp_path)
    ours = open_photos(root)
    model = pycolmap.Reconstruction(str(root / "sparse" / "0"))
    for write in (model.write_text, model.write_binary):
        for old in (root / "sparse" / "0").iterdir():
            old.unlink()
        write(str(root / "sparse" / "0"))
        again = open_photos(root)
        np.testing.assert_allclose(
            again.cameras.camera_to_world, ours.cameras.camera_to_world, rtol=0, atol=1e-12
        )
        assert again.cameras[0].cy == 8.25 and again.capture.points is not None


def test_llff(tmp_path):
    photos = open_photos(llff_folder(tmp_path), scale=0.125)
    assert photos.capture.format == "llff" and len(photos) == 9
    camera = photos.cameras[4]
    np.testing.assert_allclose(camera.camera_to_world, ring_pose(4 / 9), atol=1e-9)
    assert camera.fx == camera.fy == FOCAL and (camera.cx, camera.cy) == (WIDTH / 2, HEIGHT / 2)
    assert photos.views[4].near_far == (1.5, 13) and (photos.pixels(4) == picture(4)).all()
    assert open_photos(tmp_path).cameras.size[0].tolist() == [WIDTH, HEIGHT]  # what is stored
    assert [v.number for v in open_photos(tmp_path, split="test").views] == [0, 8]
    few = open_photos(tmp_path, split="train", views=3)
    assert [v.number for v in few.views] == [1, 4, 7]


def test_llff_that_cannot_be(tmp_path):
    root = llff_folder(tmp_path, 4)
    table = np.load(root / "poses_bounds.npy")

    def fails(new, complaint):
        np.save(root / "poses_bounds.npy", new)
        with pytest.raises(DataError, match=complaint):
            open_photos(root)

    fails(table[:3], "has 3 rows, but .*images_8 has 4 photos")
    fails(table[:, :16], "expected floats")
    fails(table * np.where(np.arange(17) == 16, 0.01, 1), "row 0 .*expected 0 < near < far")
    fails(np.where(np.arange(17) == 3, np.nan, table), r"row 0 \(image000.png\): a number is not finite")
    fails(table * np.where(np.arange(17) % 5 == 2, -1, 1), "reflection")
    with open(root / "poses_bounds.npy", "wb") as file:
        np.save(file, np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="poses_bounds.npy: not a whole .npy of plain numbers"):
        open_photos(root)
    (root / "poses_bounds.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="poses_bounds.npy"):
        open_photos(root)


def test_dtu_in_the_frame_of_the_unit_sphere(tmp_path):
    photos = open_photos(idr_folder(tmp_path, [0, 2, 5], 6))
    assert photos.capture.format == "dtu" and [v.number for v in photos.views] == [0, 2, 5]
    for row, number in enumerate((0, 2, 5)):
        check_camera(photos.cameras[row], number / 6)
        assert (photos.photo(row).mask == (picture(number) // 128 > 0).any(-1)).all()
    # A point of the files' world is where original_from_world puts ours.
    ours = np.array([[0.1, 0.2, 0.3, 1.0]])
    with np.load(tmp_path / "cameras_sphere.npz") as arrays:
        seen = arrays["world_mat_2"] @ photos.capture.original_from_world @ ours[0]
    pixel, _ = photos.cameras.project(ours[:, :3], np.array([1]))
    np.testing.assert_allclose(seen[:2] / seen[2] + 0.5, pixel[0], atol=1e-9)
    assert (photos.capture.original_from_world == SPHERE).all()
    assert [s.name for s in photos.skipped] == ["view 1", "view 3", "view 4"]
    withheld = photos.capture.withheld
    assert [w.number for w in withheld] == [1, 3, 4]
    check_camera(withheld[0].camera, 1 / 6)
    away = np.sqrt(10)
    assert photos.views[0].near_far == pytest.approx((away - 1, away + 1))


def test_views_of_the_dtu_protocol(tmp_path):
    numbers = [25, 22, 28, 40, 44, 48, 0, 8, 13, 3, 7, 21, 39, 1, 2, 24]
    root = idr_folder(tmp_path, numbers, 49, masks=False)
    for count in (3, 6, 9):
        train = open_photos(root, split="train", views=count)
        assert [v.number for v in train.views] == numbers[:count]
        test = open_photos(root, split="test", views=count)
        assert [v.number for v in test.views] == [1, 2, 24]
    (root / "image" / "000022.png").unlink()
    with pytest.raises(ValueError, match="25, 22, 28; 22 are not here"):
        open_photos(root, split="train", views=3)
    with pytest.raises(ValueError, match="at most 9"):
        open_photos(root, split="train", views=12)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_projection_matrix_falls_apart_into_what_made_it(sign):
    for place in np.linspace(0, 1, 7):
        k, pose = decompose_projection(sign * 0.01 * projection(ring_pose(place)))
        np.testing.assert_allclose(k, [[FOCAL, 0, 11.5], [0, FOCAL + 1, 8.25], [0, 0, 1]], atol=1e-9)
        np.testing.assert_allclose(pose, ring_pose(place), atol=1e-9)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_dtu_that_cannot_be(tmp_path):
    root = idr_folder(tmp_path, [0, 1], 2)
    path = root / "cameras_sphere.npz"
    with np.load(path) as stored:
        arrays = dict(stored)

    def fails(change, complaint):
        np.savez(path, **{k: v for k, v in (arrays | change).items() if v is not None})
        with pytest.raises(DataError, match=complaint) as caught:
            open_photos(root)
        assert str(caught.value).startswith(str(root))

    fails({"world_mat_1": np.zeros((4, 4))}, "view 1: .*no camera centre")
    fails({"world_mat_1": np.full((4, 4), np.nan)}, "view 1: .*finite")
    fails({"world_mat_1": np.eye(3)}, r"world_mat_1 is float64 \(3, 3\)")
    fails({"world_mat_1": None}, "no world_mat for 000001.png")
    fails({"scale_mat_1": np.eye(4)}, "no common sphere")
    skewed = np.array([[30.0, 9, 11], [0, 30, 8], [0, 0, 1]]) @ np.linalg.inv(ring_pose(0))[:3]
    fails(
        {"world_mat_1": np.concatenate([skewed @ np.linalg.inv(SPHERE), [[0, 0, 0, 1]]])}, "view 1: .*skewed"
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cameras_sphere.npz: not a whole .npz"):
        open_photos(root)
    np.savez(path, world_mat_0=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cameras_sphere.npz: not a whole .npz"):
        open_photos(root)


def test_mvsnet(tmp_path):
    photos = open_photos(mvsnet_folder(tmp_path, 3))
    assert photos.capture.format == "mvsnet" and photos.views[1].near_far == (2, 7)
    for row in range(3):
        check_camera(photos.cameras[row], row / 3)
    path = tmp_path / "cams" / "00000001_cam.txt"
    text = path.read_text()
    for broken in (
        text[:40],
        text.replace("intrinsic", ""),
        text.replace("7.0", "far"),
        text.replace("11.5", "nan"),
    ):
        path.write_text(broken)
        with pytest.raises(DataError, match="00000001_cam.txt: not a camera of MVSNet"):
            open_photos(tmp_path)


@pytest.mark.parametrize("dtu", [True, False])
def test_spare(tmp_path, dtu):
    scene = spare_folder(tmp_path, "scan63" if dtu else "Amplifier", dtu, hidden=[2, 4])
    train, test = (open_photos(scene, split=s, views=3) for s in ("train", "test"))
    assert train.capture.format == "spare" and [v.number for v in train.views] == [5, 0, 3]
    assert [v.number for v in test.views] == [1, 6]
    for row, number in enumerate((5, 0, 3)):
        check_camera(train.cameras[row], number / 10)
    assert [w.number for w in train.capture.withheld] == [2, 4]
    check_camera(train.capture.withheld[1].camera, 4 / 10)
    with pytest.raises(DataError, match="_003_3_.*all input views must be there"):
        open_photos(scene, views=9)
    spare_folder(tmp_path, scene.name, dtu, hidden=[])
    assert len(open_photos(scene, split="train", views=9)) == 9
    with pytest.raises(DataError, match="no split file.*names this scene with 6 input views"):
        open_photos(scene, split="train", views=6)
    (scene.parent / "Track1_split_test.json").write_text(json.dumps({scene.name: {"input_views": ["a"]}}))
    with pytest.raises(DataError, match="input_views is not a list of view numbers"):
        open_photos(scene)
    (scene.parent / "Track1_split_test.json").write_text("{")
    next(scene.parent.glob("cal*" + ("DTU" if dtu else "synthetic") + "/pos_006.txt")).write_text("1 2 3")
    with pytest.raises(DataError, match="pos_006.txt: not a projection matrix"):
        open_photos(scene, views=9)


def test_rgbd(tmp_path):
    photos = open_photos(rgbd_folder(tmp_path, 4, lost=2))
    assert photos.capture.format == "rgbd" and [v.number for v in photos.views] == [0, 10, 30]
    assert [s.name for s in photos.skipped] == ["frame-000020"] and "tracking" in photos.skipped[0].reason
    for row, number in enumerate((0, 1, 3)):
        check_camera(photos.cameras[row], number / 4)
    depth = photos.photo(2).depth
    assert depth is not None and (depth == np.float32(1.003)).all()
    half = open_photos(tmp_path, scale=0.5).photo(2).depth
    assert half is not None and half.shape == (HEIGHT // 2, WIDTH // 2)
    (tmp_path / "data" / "frame-000000.pose.txt").write_text("1 0 0")
    with pytest.raises(DataError, match="frame-000000.pose.txt: not a matrix of 4 x 4"):
        open_photos(tmp_path)


def test_each_layout_is_told_from_the_others(tmp_path):
    folders = {
        "blender": blender_folder(tmp_path / "1", {}) / "x",
        "transforms": transforms_folder(tmp_path / "2", 2),
        "dtu": idr_folder(tmp_path / "3", [0, 1], 2),
        "llff": llff_folder(tmp_path / "4", 2) if (tmp_path / "4").mkdir() is None else tmp_path,
        "colmap": colmap_folder(tmp_path / "5"),
        "mvsnet": mvsnet_folder(tmp_path / "6", 2),
        "rgbd": rgbd_folder(tmp_path / "7", 2),
        "spare": spare_folder(tmp_path / "8", "scan1", True, []),
        "tiny_nerf": tiny_nerf_file(tmp_path / "9", 2),
    }
    folders["blender"].mkdir(parents=True)
    blender_folder(folders["blender"], {"train": 2})
    assert set(folders) == set(FORMATS)
    for name, folder in folders.items():
        assert open_photos(folder).capture.format == name
        assert open_photos(folder, format=name).capture.format == name


def test_blender_with_few_views_of_all_numbers(tmp_path):
    root = blender_folder(tmp_path / "all", {"train": 100, "test": 105})
    few = open_photos(root, split="train", views=8)
    assert [v.number for v in few.views] == [26, 86, 2, 55, 75, 93, 16, 73]
    assert [v.number for v in open_photos(root, split="test", views=8).views] == [*range(0, 105, 8)]
    assert len(open_photos(root, split="test")) == 105
    assert [v.number for v in open_photos(root, split="train", views=4).views] == [0, 33, 66, 99]
    own = blender_folder(tmp_path / "own", {"train": 15, "test": 12})
    assert len(open_photos(own, split="test", views=8)) == 12
    assert [v.number for v in open_photos(own, split="train", views=8).views] == [*range(0, 15, 2)]


def test_fern(real_data):
    train = open_photos(real_data / "llff_fern", scale=0.125, split="train", views=3)
    assert [v.number for v in train.views] == [1, 10, 19]
    assert len(open_photos(real_data / "llff_fern", split="test")) == 3
    points = train.capture.points
    assert points is not None and len(points.positions) == 10091
    # The points of the sparse model lie in the photos, between near and far.
    pixels, depth = train.cameras.project(points.positions, np.zeros(10091, dtype=np.int64))
    inside = ((pixels > 0) & (pixels < train.cameras.size[0])).all(1) & (depth > 0)
    assert inside.mean() > 0.5
    near, far = train.views[0].near_far or (0, 0)
    assert ((depth[inside] > 0.8 * near) & (depth[inside] < 1.2 * far)).mean() > 0.95


def test_dtu_scan24(real_data):
    train = open_photos(real_data / "dtu" / "scan24", scale=0.25, split="train", views=3)
    assert [v.number for v in train.views] == [25, 22, 28] and len(train.capture.withheld) == 34
    assert train.cameras[0].fx == pytest.approx(2892.33 / 4, rel=1e-4)
    assert train.photo(0).mask is not None
    # The object's sphere is in the middle of every photo.
    pixels, depth = train.cameras.project(np.zeros((3, 3)), np.arange(3))
    assert (np.abs(pixels - train.cameras.size / 2) < train.cameras.size / 4).all() and (depth > 1).all()


def test_seven_scenes(real_data):
    photos = open_photos(real_data / "rgbd_7scenes", scale=0.25)
    assert len(photos) == 50
    depth = photos.photo(0).depth
    assert depth is not None and 0.8 < np.isfinite(depth).mean() < 1
    # The depth of one frame, seen by the next, is what that one measured there, but for the edges.

    rays = photos.rays(0)
    points = rays.origins.numpy() + rays.directions.numpy() * distance_from_depth(
        depth, photos.cameras[0]
    ).reshape(-1, 1)
    points = points[np.isfinite(points).all(1)]
    pixels, seen = photos.cameras.project(points, np.ones(len(points), dtype=np.int64))
    inside = ((pixels > 0) & (pixels < photos.cameras.size[1])).all(1)
    x, y = pixels[inside].astype(int).T
    other = photos.photo(1).depth
    assert other is not None
    assert np.nanmedian(np.abs(other[y, x] - seen[inside])) < 0.03
