"""Streams of rays: every pixel once an epoch, the same for the same seed, resumable, from a file that is a
copy."""

import logging

import numpy as np
import pytest
import torch

from sparse3d.data import pixel_cache
from sparse3d.data.permutation import shuffled
from sparse3d.data.photos import open_photos
from sparse3d.data.ray_loader import RayLoader
from sparse3d.errors import DataError
from sparse3d.geometry.rays import depth_from_distance
from tests.data.photo_folders import HEIGHT, WIDTH, blender_folder, transforms_folder, write_image

PIXELS = WIDTH * HEIGHT


@pytest.fixture
def photos(tmp_path):
    return open_photos(transforms_folder(tmp_path, 3, k1=0.03))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.rays, b.rays, strict=True)) and torch.equal(a.rgb, b.rgb)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 1000, 4097])
def test_an_order_is_a_permutation(length):
    order = shuffled(np.arange(length), length, seed=3, epoch=1)
    assert sorted(order) == list(range(length))
    some = np.array([length - 1, 0, length // 2])
    assert (shuffled(some, length, 3, 1) == order[some]).all()  # any part of it alone
    if length > 16:
        assert (order != shuffled(np.arange(length), length, 4, 1)).any()
        assert (order != shuffled(np.arange(length), length, 3, 2)).any()


def test_an_order_looks_random():
    """The mean distance of neighbours in a random order of n is n / 3; 4097 of them spread by 0.4 %."""
    order = shuffled(np.arange(4097), 4097, 0, 0)
    assert abs(np.abs(np.diff(order)).mean() / (4097 / 3) - 1) < 0.03
    assert abs(np.corrcoef(order, np.arange(4097))[0, 1]) < 0.06


def test_every_digit_of_an_order_depends_on_none_alone():
    """Half of the 4096 positions with a digit set have any digit of their number set; the spread of that
    count is 23, and none of 169 pairs is off by five of them."""
    positions = np.arange(8192)
    digits = 1 & (positions[:, None] >> np.arange(13))
    order = shuffled(positions, 8192, 1, 0)
    both = digits.T @ (1 & (order[:, None] >> np.arange(13)))
    assert np.abs(both - 2048).max() < 115


def test_each_pixel_comes_once_an_epoch(photos):
    loader = RayLoader(photos, 100)
    assert loader.rays_per_epoch == 3 * PIXELS
    seen = torch.cat([torch.cat([(b := next(loader)).photo[:, None], b.pixel], 1) for _ in range(12)])
    first = {tuple(row) for row in seen[: 3 * PIXELS].tolist()}
    assert len(first) == 3 * PIXELS  # 11 batches and a half
    assert loader.position == 1200


def test_a_batch_shows_what_the_photos_show(photos):
    batch = next(RayLoader(photos, 64, seed=5))
    for photo, (x, y), colour, origin, direction in zip(
        batch.photo, batch.pixel, batch.rgb, *batch.rays, strict=True
    ):
        row = int(photo)
        assert (photos.photo(row).rgb[y, x] == colour.numpy()).all()
        rays = photos.rays(row)
        assert torch.equal(rays.origins[y * WIDTH + x], origin)
        assert torch.equal(rays.directions[y * WIDTH + x], direction)
    assert batch.alpha is None and batch.mask is None and batch.distance is None
    assert torch.equal(batch.over(torch.ones(3)), batch.rgb)


def test_pixels_stay_on_disk(photos):
    """Three bytes of a pixel are in the file, and nothing of it is copied when it is opened."""
    records = RayLoader(photos, 8)._pixels.records
    assert isinstance(records, np.memmap) and records.dtype.itemsize == 3
    assert not records.flags.writeable


def test_alpha_masks_and_depth_come_along(tmp_path):
    blender = next(RayLoader(open_photos(blender_folder(tmp_path / "b", {"train": 2})), 64))
    assert blender.alpha is not None
    clear = blender.pixel[:, 1] == 0
    assert clear.any() and (blender.alpha[clear] == 0).all()
    assert (blender.over(torch.tensor([0.0, 1, 0]))[clear] == torch.tensor([0.0, 1, 0])).all()

    root = transforms_folder(tmp_path / "t", 2, frame={"mask_path": "m.png", "depth_path": "d.png"})
    mask, depth = np.zeros((HEIGHT, WIDTH), np.uint8), np.full((HEIGHT, WIDTH), 2000, np.uint16)
    mask[3:7, 5:], depth[:, :9] = 255, 0
    write_image(root / "m.png", mask)
    write_image(root / "d.png", depth)
    photos = open_photos(root)
    batch = next(RayLoader(photos, 300))
    assert batch.mask is not None and batch.distance is not None
    x, y = batch.pixel.T
    assert torch.equal(batch.mask, torch.from_numpy(mask[y, x] > 0))
    assert torch.equal(batch.distance.isnan(), x < 9)
    whole = np.full((HEIGHT, WIDTH), np.nan)
    whole[y, x] = batch.distance
    back = depth_from_distance(whole, photos.cameras[0])[y, x]
    np.testing.assert_allclose(back[~np.isnan(back)], 2, rtol=1e-6)
    inside = RayLoader(photos, 300, masked_only=True)
    assert inside.rays_per_epoch == 2 * 4 * (WIDTH - 5)
    chosen = next(inside)
    assert chosen.mask is not None and chosen.mask.all()


def test_pixels_without_a_ray_are_left_out(tmp_path):
    """The lens reaches a radius of 2 / 3 of the plane (k1 = -1 / 3): 20 of 30 pixels of focal length."""
    root = transforms_folder(tmp_path, 1, k1=-1 / 3, w=WIDTH, fl_x=15.0, fl_y=15.0, cx=0.0, cy=0.0)
    loader = RayLoader(open_photos(root), PIXELS)
    assert 0 < loader.rays_per_epoch < PIXELS
    batch = next(loader)
    assert torch.isfinite(batch.rays.directions).all()
    assert (batch.pixel + 0.5).double().norm(dim=1).max() <= 10


def test_resuming_goes_on_where_it_stood(photos):
    whole = RayLoader(photos, 50, seed=1)
    batches = [next(whole) for _ in range(6)]
    part = RayLoader(photos, 50, seed=1)
    for _ in range(3):
        next(part)
    again = RayLoader(photos, 50)
    again.load_state_dict(part.state_dict())
    assert all(same(next(again), batch) for batch in batches[3:])
    with pytest.raises(ValueError, match="other photos, scale or masks"):
        RayLoader(photos.select([0]), 50).load_state_dict(whole.state_dict())


def test_ranks_share_out_the_batches_of_one(photos):
    alone = RayLoader(photos, 60, seed=2)
    ranks = [RayLoader(photos, 30, seed=2, rank=r, world_size=2) for r in range(2)]
    for _ in range(3):
        whole, parts = next(alone), [next(rank) for rank in ranks]
        assert torch.equal(whole.rgb, torch.cat([part.rgb for part in parts]))


def test_the_cache_is_used_again_and_follows_the_files(photos, monkeypatch):
    first = next(RayLoader(photos, 40))
    (cache,) = photos.root.glob("sparse3d_pixels_*.npy")
    monkeypatch.setattr(pixel_cache, "_write", lambda *_: pytest.fail("written again"))
    assert same(next(RayLoader(photos, 40)), first)
    monkeypatch.undo()
    write_image(photos.views[0].image, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    batch = next(RayLoader(photos, 3 * PIXELS))
    assert (batch.rgb[batch.photo == 0] == 0).all()
    (other,) = photos.root.glob("sparse3d_pixels_*.npy")  # the old one is gone
    assert other != cache


@pytest.mark.parametrize(
    "damage", [lambda b: b[:100], lambda b: b[:-7], lambda b: b"", lambda b: b"junk" * 99]
)
def test_a_damaged_cache_is_made_anew(photos, damage):
    first = next(RayLoader(photos, 40))
    (cache,) = photos.root.glob("sparse3d_pixels_*.npy")
    cache.write_bytes(damage(cache.read_bytes()))
    assert same(next(RayLoader(photos, 40)), first)


def test_a_cache_that_cannot_be_written_leaves_nothing(photos, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_cache, "_records", full)
    folder = tmp_path / "elsewhere"
    with pytest.raises(DataError, match="sparse3d_pixels.*No space left"):
        RayLoader(photos, 40, cache_dir=folder)
    assert not list(folder.iterdir())


def test_masks_that_hide_everything(tmp_path, caplog):
    root = transforms_folder(tmp_path, 2, frame={"mask_path": "m.png"})
    write_image(root / "m.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    photos = open_photos(root)
    assert RayLoader(photos, 8).rays_per_epoch == 2 * PIXELS
    with pytest.raises(DataError, match="no pixel is left: masks hide everything"):
        RayLoader(photos, 8, masked_only=True)
    first = open_photos(transforms_folder(tmp_path / "one", 2)).views[0]
    object.__setattr__(photos, "views", (photos.views[0], first))
    with caplog.at_level(logging.WARNING):
        assert RayLoader(photos, 8, masked_only=True).rays_per_epoch == PIXELS
    assert "images/0000.png: its mask hides everything" in caplog.text
