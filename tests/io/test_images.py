"""Images, masks and depth maps from files, whole ones and others."""

import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from sparse3d.errors import DataError, MissingExtraError
from sparse3d.io.images import image_has_alpha, image_size, read_depth, read_image, read_mask


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_modes_of_photos(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (read_image(save(tmp_path / "g.png", grey)) == grey[..., None].repeat(3, 2)).all()
    rgba = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    path = save(tmp_path / "a.png", rgba)
    assert (read_image(path) == rgba).all() and image_has_alpha(path) and image_size(path) == (4, 3)
    palette = Image.fromarray(rgba[..., :3]).quantize(8)
    palette.save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").shape == (3, 4, 3) and not image_has_alpha(tmp_path / "p.png")
    palette.save(tmp_path / "t.png", transparency=0)
    assert read_image(tmp_path / "t.png").shape == (3, 4, 4) and image_has_alpha(tmp_path / "t.png")
    flat = np.full((16, 16, 3), 200, np.uint8)
    assert (np.abs(read_image(save(tmp_path / "j.jpg", flat)).astype(int) - 200) <= 1).all()


def test_an_orientation_in_the_file_is_not_applied(tmp_path):
    """Structure from motion saw the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.jpg", np.zeros((4, 8, 3), np.uint8), exif=exif)
    assert image_size(path) == (8, 4) and read_image(path).shape == (4, 8, 3)


def test_masks_are_bright_or_opaque(tmp_path):
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    assert read_mask(save(tmp_path / "m.png", grey)).tolist() == [[False, False, True, True]]
    rgba = np.full((1, 3, 4), 255, np.uint8)
    rgba[0, 1, 3], rgba[0, 2, 3] = 0, 200
    assert read_mask(save(tmp_path / "a.png", rgba)).tolist() == [[True, False, True]]
    rgba[..., 3] = 255
    rgba[0, 0, :3] = 0
    assert read_mask(save(tmp_path / "o.png", rgba)).tolist() == [[False, True, True]]


@pytest.mark.parametrize("name", ["d.png", "d.tif", "d.npy"])
def test_depth_in_units_with_holes(tmp_path, name):
    raw = np.array([[0, 1000], [65535, 2500]], np.uint16)
    if name.endswith(".npy"):
        np.save(tmp_path / name, raw)
    else:
        save(tmp_path / name, raw)
    depth = read_depth(tmp_path / name, 1e-3)
    np.testing.assert_array_equal(depth, np.array([[np.nan, 1], [np.nan, 2.5]], np.float32))
    assert image_size(tmp_path / name) == (2, 2)
    twice = read_depth(tmp_path / name, 1e-3, (4, 4))
    np.testing.assert_array_equal(twice, depth.repeat(2, 0).repeat(2, 1))  # nearest: no mean over a hole


def test_depth_in_floats(tmp_path):
    raw = np.array([[np.nan, -1.0, np.inf, 65535.0, 0.5]], np.float32)
    np.save(tmp_path / "f.npy", raw)
    depth = read_depth(tmp_path / "f.npy", 2.0)
    np.testing.assert_array_equal(depth, np.array([[np.nan, np.nan, np.nan, 131070, 1]], np.float32))
    save(tmp_path / "f.tif", np.array([[1.5, 2.5]], np.float32))
    assert read_depth(tmp_path / "f.tif", 1.0).tolist() == [[1.5, 2.5]]


def test_depth_maps_that_are_none(tmp_path):
    with pytest.raises(DataError, match="p.png: holds RGB of 8 bits, no depth map"):
        read_depth(save(tmp_path / "p.png", np.zeros((2, 2, 3), np.uint8)), 1)
    np.save(tmp_path / "n.npy", np.zeros(3))
    with pytest.raises(DataError, match="n.npy: a depth map is"):
        read_depth(tmp_path / "n.npy", 1)
    with open(tmp_path / "o.npy", "wb") as file:
        np.save(file, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="o.npy: not a whole .npy of plain numbers"):
        read_depth(tmp_path / "o.npy", 1)
    np.save(tmp_path / "w.npy", np.zeros((20, 20)))
    whole = (tmp_path / "w.npy").read_bytes()
    (tmp_path / "w.npy").write_bytes(whole[:200])
    with pytest.raises(DataError, match="w.npy"):
        read_depth(tmp_path / "w.npy", 1)


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF")  # Pillow's, before it raises
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_images_cut_anywhere(tmp_path, ending):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = save(tmp_path / f"i.{ending}", pixels)
    whole = path.read_bytes()
    for size in (0, 4, 30, len(whole) // 3, len(whole) * 2 // 3):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=f"i.{ending}"):
            read_image(path)


def test_an_image_that_claims_to_be_huge(tmp_path):
    """A PNG header of 60000 x 60000 pixels in a file of 100 bytes."""
    path = save(tmp_path / "bomb.png", np.zeros((2, 2, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="bomb.png: refused"):
        image_size(path)


def test_exr_depth(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    depth = np.random.default_rng(0).random((5, 7)).astype(np.float32) + 0.5
    depth[0, 0], depth[1, 1] = np.inf, 0
    for name, channels in (("z", {"A": np.ones_like(depth), "Z": depth}), ("y", {"Y": depth})):
        header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
        with exr.File(header, channels) as file:
            file.write(str(tmp_path / f"{name}.exr"))
        found = read_depth(tmp_path / f"{name}.exr", 2.0)
        assert np.isnan(found[0, 0]) and np.isnan(found[1, 1])
        assert image_size(tmp_path / f"{name}.exr") == (7, 5)
        known = np.isfinite(found)
        assert (found[known] == 2 * depth[known]).all() and known.sum() == 33
    path = tmp_path / "z.exr"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="z.exr: not a readable EXR"):
        read_depth(path, 1)


def test_exr_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (tmp_path / "d.exr").write_bytes(b"v/1\x01")
    with pytest.raises(MissingExtraError, match=r"sparse3d\[exr\]"):
        read_depth(tmp_path / "d.exr", 1)
