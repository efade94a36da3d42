"""The cube around what is opaque in photos."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sparse3d.data.photos import open_photos
from sparse3d.data.three_spheres import CENTRES, RADII, ThreeSpheresConfig, write_three_spheres
from sparse3d.recipes.radiance.bounds import cube_in_view
from sparse3d.recipes.radiance.hull import cube_around

LEAST, MOST = (CENTRES - RADII[:, None]).min(0), (CENTRES + RADII[:, None]).max(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three_spheres")
    write_three_spheres(folder, ThreeSpheresConfig(views=24, held_out=1, size=40))
    return folder


def holds(low, side):
    return (np.array(low) <= LEAST).all() and (np.array(low) + side >= MOST).all()


def test_the_cube_holds_the_thing_and_little_more(folder):
    photos = open_photos(folder, split="train")
    given = cube_in_view(photos)
    assert given[1] == 3
    low, side = cube_around(photos, *given)
    assert holds(low, side)
    # What no photo sees from below hangs on beneath; voxels of the last round are 3 cm, and the margin.
    assert side < 1.35 * (MOST - LEAST).max()


def test_three_photos_carve_less_and_never_too_much(folder):
    few = cube_around(open_photos(folder, split="train", views=3), (-1.5, -1.5, -1.5), 3.0)
    many = cube_around(open_photos(folder, split="train"), (-1.5, -1.5, -1.5), 3.0)
    assert holds(*few) and many[1] <= few[1] < 3


def test_one_wrong_photo_in_twenty_carves_nothing_away(folder, tmp_path):
    photos = open_photos(folder, split="train")
    alone = photos.select([0])
    name = alone.views[0].image
    stored = np.array(Image.open(name))
    try:
        Image.fromarray(np.zeros_like(stored)).save(name)
        assert holds(*cube_around(photos, (-1.5, -1.5, -1.5), 3.0))
        # A single photo that shows nothing says nothing.
        assert cube_around(alone, (-1.5, -1.5, -1.5), 3.0) == ((-1.5, -1.5, -1.5), 3.0)
    finally:
        Image.fromarray(stored).save(name)


def test_photos_without_opacity_keep_the_cube(folder, tmp_path):
    photos = open_photos(folder, split="train").select([0, 1])
    for view in photos.views:
        stored = np.array(Image.open(view.image))
        Image.fromarray(stored[..., :3]).save(tmp_path / view.image.name)
    flat = [tmp_path / view.image.name for view in photos.views]
    views = tuple(replace(view, image=path) for view, path in zip(photos.views, flat, strict=True))
    plain = replace(photos, views=views)
    assert cube_around(plain, (-1.5, -1.5, -1.5), 3.0) == ((-1.5, -1.5, -1.5), 3.0)
