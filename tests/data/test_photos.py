"""Folders of posed photos: every layout gives the cameras and pixels that were written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sparse3d.data.photos import open_photos
from sparse3d.errors import DataError
from sparse3d.io.images import resample
from tests.data.photo_folders import (
    FOCAL,
    HEIGHT,
    WIDTH,
    blender_folder,
    picture,
    ring_pose,
    tiny_nerf_file,
    to_opengl,
    transforms_folder,
    write_image,
)


def edit(path, change):
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def test_transforms_in_the_manner_of_instant_ngp(tmp_path):
    photos = open_photos(transforms_folder(tmp_path, 9, missing=(2, 5), k1=0.05, p2=-0.01, aabb_scale=4))
    assert photos.names == tuple(f"images/{i:04d}.png" for i in (0, 1, 3, 4, 6, 7, 8))
    assert [s.name for s in photos.skipped] == ["images/0002.png", "images/0005.png"]
    assert photos.views[2].number == 3
    camera = photos.cameras[2]
    np.testing.assert_allclose(camera.camera_to_world, ring_pose(3 / 9), atol=1e-12)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (FOCAL, FOCAL + 1, 11.5, 8.25)
    assert camera.lens.coefficients == (0.05, 0, 0, -0.01, 0, 0, 0, 0)
    photo = photos.photo(2)
    assert (photo.rgb * 255 == picture(3)).all() and photo.alpha is None and photo.mask is None
    box = photos.capture.box
    assert box is not None
    np.testing.assert_allclose(box[1], 2 / 0.33)


def test_a_camera_looks_at_what_it_is_turned_to(tmp_path):
    photos = open_photos(transforms_folder(tmp_path, 4))
    pixels, depth = photos.cameras.project(np.zeros((4, 3)), np.arange(4))
    np.testing.assert_allclose(pixels, np.tile([[11.5, 8.25]], (4, 1)), atol=1e-9)
    np.testing.assert_allclose(depth, np.sqrt(10))
    up, _ = photos.cameras.project(np.tile([[0, 0, 0.3]], (4, 1)), np.arange(4))
    assert (up[:, 1] < 8).all()  # world's up is the image's up, which is a smaller y


def test_nerfstudio_frames_with_intrinsics_masks_depth_and_splits(tmp_path):
    root = transforms_folder(
        tmp_path,
        3,
        frame={"fl_x": 40.0, "mask_path": "mask.png", "depth_file_path": "depth.png"},
        camera_model="OPENCV_FISHEYE",
        k4=0.002,
        train_filenames=["images/0002.png", "./images/0000.png"],
        test_filenames=["images/0001.png"],
    )
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 5:] = 255
    depth = np.full((HEIGHT, WIDTH), 1500, np.uint16)
    depth[0, :2] = 0, 65535
    write_image(root / "mask.png", mask)
    write_image(root / "depth.png", depth)
    photos = open_photos(root, split="train")
    assert photos.names == ("images/0002.png", "images/0000.png")
    assert open_photos(root, split="test").names == ("images/0001.png",)
    assert photos.cameras[0].fx == 40 and photos.cameras[0].lens.fisheye
    photo = photos.photo(0)
    assert photo.mask is not None and photo.depth is not None
    assert (photo.mask == (mask > 0)).all()
    assert np.isnan(photo.depth[0, :2]).all() and photo.depth[1, 0] == np.float32(1.5)


def test_masks_and_depths_of_the_users_own(tmp_path):
    root = transforms_folder(tmp_path / "photos", 3, frame={"mask_path": "elsewhere.png"})
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3] = 255
    write_image(tmp_path / "masks" / "0001.png", mask)
    (tmp_path / "depths").mkdir()
    np.save(tmp_path / "depths" / "0002.npy", np.full((HEIGHT * 2, WIDTH * 2), 0.5))
    photos = open_photos(root, masks=tmp_path / "masks", depths=tmp_path / "depths", depth_unit=3.0)
    assert [view.mask is not None for view in photos.views] == [False, True, False]
    assert [view.depth is not None for view in photos.views] == [False, False, True]
    found, depth = photos.mask(1), photos.depth(2)
    assert found is not None and (found == (mask > 0)).all()
    assert depth is not None and depth.shape == (HEIGHT, WIDTH) and (depth == 1.5).all()
    with pytest.raises(DataError, match="holds no mask with the name of a photo, as images/0000.png"):
        open_photos(root, masks=tmp_path / "depths")
    np.save(tmp_path / "depths" / "0002.npy", np.full((WIDTH, HEIGHT), 0.5))
    with pytest.raises(DataError, match="0002.npy: is 16 x 24, another aspect"):
        open_photos(root, depths=tmp_path / "depths").depth(2)


def test_blender_splits_alpha_and_field_of_view(tmp_path):
    root = blender_folder(tmp_path, {"train": 4, "test": 3}, missing=("test/r_1",))
    train, test = open_photos(root, split="train"), open_photos(root, split="test")
    assert (len(train), len(test)) == (4, 2) and [s.name for s in test.skipped] == ["./test/r_1"]
    assert train.cameras[0].fx == pytest.approx(FOCAL) == train.cameras[0].fy
    assert (train.cameras[0].cx, train.cameras[0].cy) == (WIDTH / 2, HEIGHT / 2)
    assert train.capture.background == (1, 1, 1)
    photo, pixels = train.photo(1), picture(1, channels=4)
    assert photo.alpha is not None
    over = photo.over((1, 1, 1))
    assert (over[0] == 1).all()  # the first row is clear
    alpha = pixels[..., 3:] / 255
    np.testing.assert_allclose(over, pixels[..., :3] / 255 * alpha + 1 - alpha, atol=1e-6)


def test_tiny_nerf_trains_on_the_first_hundred(tmp_path):
    root = tiny_nerf_file(tmp_path, 103)
    train, test = open_photos(root, split="train"), open_photos(root, split="test", scale=0.5)
    assert (len(train), len(test)) == (100, 3)
    np.testing.assert_allclose(train.cameras[7].camera_to_world, ring_pose(7 / 103), atol=1e-6)
    assert (train.photo(7).rgb * 255 == picture(7)).all()
    assert test.photo(0).rgb.shape == (HEIGHT // 2, WIDTH // 2, 3) and test.cameras[0].fx == FOCAL / 2


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.4])
def test_a_smaller_photo_is_seen_by_its_smaller_camera(tmp_path, scale):
    root = transforms_folder(tmp_path, 2)
    small, full = open_photos(root, scale=scale), open_photos(root)
    width, height = (int(v) for v in small.cameras.size[0])
    assert (width, height) == (round(WIDTH * scale), round(HEIGHT * scale))
    assert small.photo(0).rgb.shape == (height, width, 3)
    corner = np.array([[0.0, 0.0], [width, height]])
    far = np.array([[0.0, 0.0], [WIDTH, HEIGHT]])
    np.testing.assert_allclose(small.cameras[0].unproject(corner), full.cameras[0].unproject(far), atol=1e-12)
    # The mean over a new pixel's area keeps the mean of the photo.
    assert abs(small.photo(0).rgb.mean() - full.photo(0).rgb.mean()) < 0.003


def test_halving_is_the_mean_of_four_and_opacity_weights_colours():
    pixels = picture(1, channels=4)
    half = resample(pixels, (WIDTH // 2, HEIGHT // 2))
    blocks = pixels.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 4).astype(float)
    alpha = blocks[..., 3:].mean((1, 3))
    colour = (blocks[..., :3] * blocks[..., 3:]).mean((1, 3)) / np.maximum(alpha, 1e-9)
    np.testing.assert_allclose(half[..., 3:], alpha, atol=0.51)
    np.testing.assert_allclose(half[..., :3], colour, atol=0.51)
    assert resample(pixels, (WIDTH, HEIGHT)).shape == pixels.shape


def test_photos_stored_smaller_than_their_intrinsics(tmp_path):
    root = transforms_folder(tmp_path, 2, w=4 * WIDTH, h=4 * HEIGHT, cx=46.0, cy=33.0)
    stored = open_photos(root)  # at what is there
    assert stored.cameras.size[0].tolist() == [WIDTH, HEIGHT] and stored.cameras[0].fx == FOCAL / 4
    assert open_photos(root, scale=0.25).cameras[0].cx == 11.5
    with pytest.raises(DataError, match=r"0000.png.*scale=0.25"):
        open_photos(root, scale=0.5)


def test_rays_of_a_photo_are_its_cameras(tmp_path):
    photos = open_photos(transforms_folder(tmp_path, 3, k1=-0.1))
    rays = photos.rays(1, torch.float64)
    pixels, _ = photos.cameras[1].project((rays.origins + 2 * rays.directions).numpy())
    np.testing.assert_allclose(pixels[WIDTH + 3], [3.5, 1.5], atol=1e-9)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t["frames"][1].pop("transform_matrix"), r"frame 1 \(images/0001.png\).*shape"),
        (lambda t: t["frames"][1].update(transform_matrix=[[1, 2], [3]]), "frame 1"),
        (lambda t: t["frames"][1]["transform_matrix"][0].__setitem__(0, float("nan")), "frame 1.*not finite"),
        (
            lambda t: t["frames"][1].update(
                transform_matrix=(to_opengl(ring_pose(0)) * [1, 1, -1, 1]).tolist()
            ),
            "frame 1.*reflection",
        ),
        (
            lambda t: t["frames"][1].update(transform_matrix=(ring_pose(0) * [2, 2, 2, 1]).tolist()),
            "frame 1.*orthonormal",
        ),
        (lambda t: t["frames"].append({"file_path": 3}), "frame 2 has no file_path"),
        (lambda t: t.pop("frames"), "no list 'frames'"),
        (lambda t: t.pop("fl_x"), "frame 0.*neither fl_x nor camera_angle_x"),
        (lambda t: t.update(fl_x="far"), "frame 0.*fl_x is 'far'"),
        (lambda t: t.update(fl_x=-3.0), "frame 0.*above 0"),
        (lambda t: t.update(camera_model="EQUIRECTANGULAR"), "frame 0.*EQUIRECTANGULAR"),
        (lambda t: t.update(w=HEIGHT, h=WIDTH), "0000.png: is 24 x 16, but its intrinsics are for 16 x 24"),
        (lambda t: t.update(offset="left", aabb_scale=1), "offset is 'left'"),
    ],
)
def test_transforms_that_cannot_be(tmp_path, change, complaint):
    root = transforms_folder(tmp_path, 2)
    edit(root / "transforms.json", change)
    with pytest.raises(DataError, match=complaint) as caught:
        open_photos(root)
    assert str(caught.value).startswith(str(root))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"frames": [', "[" * 100_000, "\x00", '{"frames": []}'])
def test_text_that_is_no_transforms_file(tmp_path, text):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(DataError, match="transforms.json"):
        open_photos(tmp_path)


def test_photos_that_cannot_be_read(tmp_path):
    root = transforms_folder(tmp_path, 3)
    image = root / "images" / "0001.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    photos = open_photos(root)  # the header is whole
    with pytest.raises(DataError, match="0001.png: damaged or truncated"):
        photos.photo(1)
    image.write_bytes(b"not an image at all")
    with pytest.raises(DataError, match="0001.png: not an image"):
        open_photos(root)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 4), np.uint8), mode=None).convert("CMYK").save(image, "JPEG")
    with pytest.raises(DataError, match="CMYK.*PNG for alpha"):
        open_photos(root).photo(1)


def test_no_photo_at_all(tmp_path):
    with pytest.raises(DataError, match="no view can be read.*2 skipped.*no such file"):
        open_photos(transforms_folder(tmp_path / "a", 2, missing=(0, 1)))
    with pytest.raises(DataError, match="(?s)no layout of posed photos.*transforms.json"):
        open_photos(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_photos(tmp_path / "nowhere")


def test_arguments_that_fit_nothing(tmp_path):
    root = transforms_folder(tmp_path, 3)
    with pytest.raises(ValueError, match="an eighth is 0.125"):
        open_photos(root, scale=8)
    with pytest.raises(ValueError, match="no split 'dev'.*all, test, train"):
        open_photos(root, split="dev")
    with pytest.raises(ValueError, match="no format 'colnap'"):
        open_photos(root, format="colnap")
    with pytest.raises(ValueError, match="only 2 training photos"):
        open_photos(root, split="train", views=3)


def test_grey_and_16_bit_photos(tmp_path):
    root = transforms_folder(tmp_path, 2)
    write_image(root / "images/0000.png", np.full((HEIGHT, WIDTH), 77, np.uint8))
    write_image(root / "images/0001.png", np.full((HEIGHT, WIDTH), 77 * 257, np.uint16))
    photos = open_photos(root)
    for row in range(2):
        assert (photos.photo(row).rgb * 255 == 77).all() and photos.photo(row).rgb.shape[2] == 3


def test_fox(real_data):
    train, test = (open_photos(real_data / "fox", scale=0.125, split=s) for s in ("train", "test"))
    assert (len(train), len(test), len(train.skipped)) == (43, 7, 17)
    assert train.cameras.size[0].tolist() == [135, 240]
    assert train.photo(0).rgb.shape == (240, 135, 3)


def test_lego(real_data):
    few = open_photos(real_data / "lego", scale=0.25, split="train", views=8)
    assert [view.number for view in few.views] == [26, 86, 2, 55, 75, 93, 16, 73]
    assert few.photo(0).over((1, 1, 1))[0, 0].tolist() == [1, 1, 1]
    assert len(open_photos(real_data / "lego", split="test", views=8)) == 13


def test_lego_tiny(real_data):
    tiny = real_data / "lego_tiny"
    assert (len(open_photos(tiny, split="train")), len(open_photos(tiny, split="test"))) == (100, 6)
